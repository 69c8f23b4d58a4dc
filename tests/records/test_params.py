"""Flattening of the config into params."""

import pytest
from mlflow.utils.validation import _validate_param
from omegaconf import OmegaConf

from experiments.records.params import CUT, LONGEST_VALUE, flatten


def test_values_are_formatted_like_yaml() -> None:
    cfg = OmegaConf.create(
        {
            "seed": 3,
            "resume": None,
            "model": {"dropout": 0.5, "freeze": True, "name": "Ünï", "empty": {}},
            "data": {"image_size": [160, 160], "copy": "${seed}"},
            "layers": [{"units": 3}],
        }
    )
    assert flatten(cfg) == {
        "seed": "3",
        "resume": "null",
        "model.dropout": "0.5",
        "model.freeze": "true",
        "model.name": "Ünï",
        "model.empty": "{}",
        "data.image_size": "[160, 160]",
        "data.copy": "3",
        "layers": '[{"units": 3}]',
    }


def test_long_value_is_cut_and_marked() -> None:
    value = flatten(OmegaConf.create({"long": "x" * 10_000}))["long"]
    assert len(value) == LONGEST_VALUE
    assert value.endswith(CUT)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a+b", "a_b"),
        ("a//b", "a__b"),
        ("/a", "_a"),
        ("../a", "_a"),
        ("k" * 300, "k" * 250),
        ("a/b", "a/b"),
        ("+", "_"),
    ],
)
def test_invalid_keys_become_valid(key: str, expected: str) -> None:
    (found,) = flatten(OmegaConf.create({key: 1}))
    assert found == expected
    _validate_param(found, "1")


def test_equal_keys_are_numbered() -> None:
    assert flatten(OmegaConf.create({"a+b": 1, "a|b": 2})) == {"a_b": "1", "a_b_2": "2"}


def test_secrets_are_masked() -> None:
    cfg = OmegaConf.create({"data": {"api_key": "abc def", "url": "http://me:pw@host"}, "list": ["http://:pw@host"]})
    assert flatten(cfg) == {
        "data.api_key": "***",
        "data.url": "http://me:***@host",
        "list": '["http://:***@host"]',
    }
