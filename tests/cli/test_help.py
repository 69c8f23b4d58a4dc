"""`--help` and `experiments help` describe every key and option that exists, and nothing else."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.__main__ import usage
from experiments.cli.help import help_text
from experiments.config.fields import DESCRIPTION
from experiments.config.reference import Key, sections
from experiments.config.registry import COMMANDS, CONF, GROUPS, register, schemas
from experiments.errors import ConfigError

EXAMPLE = str(Path(__file__).parents[1] / "example_project" / "conf")


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    register()


def shown(command: str, *overrides: str) -> str:
    words = [sys.executable, "-m", f"experiments.{command}", *overrides, "--help"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_help_of_train_shows_values_and_examples() -> None:
    text = shown("train")
    assert "== Values (key=value), as composed now ==" in text
    assert "experiments train -m" in text
    assert "experiments help KEY" in text
    assert "schema" not in text


@pytest.mark.parametrize(
    ("command", "overrides", "listed"),
    [
        (
            "evaluate",
            [],
            "run_id sweep checkpoint split format allow_modules data allow_other_data logging logging.tracking_uri "
            "logging.experiment_name",
        ),
        (
            "predict",
            [],
            "run_id sweep checkpoint path image_size format allow_modules model logging logging.tracking_uri "
            "logging.experiment_name",
        ),
        (
            "predict",
            ["model=mobilenetv2"],
            "run_id sweep checkpoint path image_size format allow_modules model model.architecture model.weights "
            "model.include_top model.alpha logging logging.tracking_uri logging.experiment_name",
        ),
        (
            "compare",
            [],
            "runs sweep filter best limit diff note format logging logging.tracking_uri logging.experiment_name",
        ),
        (
            "inspect",
            [],
            "output decode samples data data.limit data.validation_fraction data.test_fraction",
        ),
        (
            "doctor",
            [],
            "folders sync refill cache_dir prune older_than_days fix format logging logging.tracking_uri",
        ),
    ],
)
def test_help_of_other_commands_lists_keys_with_an_effect(command: str, overrides: list[str], listed: str) -> None:
    text = shown(command, *overrides)
    assert re.findall(r"^  ([a-z_.]+)=", text, flags=re.MULTILINE) == listed.split()
    assert f"experiments {command}" in text
    assert "experiments help KEY" in text
    assert max(map(len, text.splitlines())) <= 80


def test_help_lists_the_options_of_every_group() -> None:
    template = (Path(CONF) / "config.yaml").read_text(encoding="utf-8")
    listed = {
        group: set(re.split(r",\s+", options))
        for group, options in re.findall(r"^ {8}([a-z]+) {2,}([a-z].*(?:\n {20}.*)*)$", template, flags=re.MULTILINE)
    }
    groups = [folder for folder in Path(CONF).iterdir() if folder.is_dir() and folder.name not in ("shared", "hydra")]
    assert listed == {folder.name: {file.stem for file in folder.glob("*.yaml")} for folder in groups}


def all_schemas() -> Iterator[type]:
    for schema in COMMANDS.values():
        yield schema
        yield from (field.type for field in dataclasses.fields(schema) if dataclasses.is_dataclass(field.type))  # type: ignore[misc]
    for group in GROUPS:
        yield from schemas(group).values()


def test_every_key_has_a_description() -> None:
    without = [
        f"{schema.__name__}.{field.name}"
        for schema in all_schemas()
        for field in dataclasses.fields(schema)
        if not field.metadata.get(DESCRIPTION, "").endswith(".")
    ]
    assert without == []
    # A dataclass without a docstring has a generated one, its signature.
    generated = [schema.__name__ for schema in all_schemas() if str(schema.__doc__).startswith(f"{schema.__name__}(")]
    assert generated == []


def test_a_key_has_one_description_in_all_options_of_its_group() -> None:
    for group in {*GROUPS} - {"metrics", "augment", "callbacks"}:
        descriptions: dict[str, set[str]] = {}
        for schema in schemas(group).values():
            for field in dataclasses.fields(schema):
                descriptions.setdefault(field.name, set()).add(field.metadata[DESCRIPTION])
        assert {name: texts for name, texts in descriptions.items() if len(texts) > 1} == {}, group


@pytest.fixture(scope="module")
def keys() -> dict[str, Key]:
    return {key.name: key for section in sections() for key in section.keys}


def test_reference_contains_type_range_default_and_options_of_a_key(keys: dict[str, Key]) -> None:
    key = keys["optimizer.learning_rate"]
    assert (key.type, key.expected) == ("float", "a number above 0")
    assert key.defaults == {"0.001": ["adam", "adamw", "rmsprop"], "0.0001": ["lion"], "0.01": ["sgd"]}
    assert keys["tensorboard.profile_steps"].type == "list[int] or null"
    assert keys["logging.tags"].default == "{}"
    assert keys["data.path"].defaults["required"] == ["image_folder", "npz"]


def test_reference_contains_every_field_of_every_schema(keys: dict[str, Key]) -> None:
    """Compared with the dataclasses, while the reference walks composed configs."""
    expected = {
        f"{group}.{field.name}"
        for group in GROUPS
        if group not in ("metrics", "augment", "callbacks")
        for schema in schemas(group).values()
        for field in dataclasses.fields(schema)
    }
    expected |= {
        f"{group}.{option}.{field.name}"
        for group in ("metrics", "augment", "callbacks")
        for option, schema in schemas(group).items()
        for field in dataclasses.fields(schema)
    }
    top = dataclasses.fields(COMMANDS["train"])
    expected |= {field.name for field in top if field.name not in GROUPS and not dataclasses.is_dataclass(field.type)}
    for field in top:
        if dataclasses.is_dataclass(field.type):
            expected |= {f"{field.name}.{inner.name}" for inner in dataclasses.fields(field.type)}
    of_train = [section for section in sections() if section.title not in {*COMMANDS} - {"train"}]
    assert {key.name for section in of_train for key in section.keys} == expected


def test_help_describes_a_key() -> None:
    assert help_text(["optimizer.learning_rate"]).splitlines() == [
        "optimizer.learning_rate",
        "  Peak learning rate, whatever the schedule.",
        "  type      float",
        "  expected  a number above 0",
        "  default   0.001 (adam, adamw, rmsprop), 0.0001 (lion), 0.01 (sgd)",
        "  options   optimizer=adam, optimizer=adamw, optimizer=rmsprop, optimizer=lion,",
        "            optimizer=sgd",
        "  commands  train",
    ]
    assert help_text(["seed="]).startswith("seed\n  Seed of weights")
    assert help_text(["split"]).endswith("commands  evaluate")


def test_help_describes_a_group_and_a_node() -> None:
    assert "  schedule=cosine       Lowers the learning rate along half a cosine." in help_text(["schedule"])
    assert "  sweep.repeats=1\n      Runs of each combination" in help_text(["sweep"])


def test_help_describes_presets_and_entries_of_named_dicts() -> None:
    assert "debug=profile    Profiles a few steps" in help_text(["debug=profile"])
    assert "experiment=fit_or_tape " in help_text(["experiment"])
    assert help_text(["callbacks.early_stopping"]).startswith("callbacks.early_stopping: Stops training when")
    assert help_text(["metrics.accuracy"]).startswith("metrics.accuracy: Share of examples")
    assert help_text(["data=digits"]) == help_text(["data"])


def test_help_describes_user_defined_options() -> None:
    text = help_text(["data.num_examples", "--config-dir", EXAMPLE])
    assert "default   2400 (cats_dogs_synthetic), 600 (stripes)" in text


def test_help_names_the_commands_in_which_a_key_of_a_group_has_an_effect() -> None:
    assert help_text(["logging.tracking_uri"]).endswith("commands  train, evaluate, predict, compare, doctor")
    assert help_text(["data.path"]).endswith("commands  train, evaluate, inspect")
    assert help_text(["data.shuffle"]).endswith("commands  train")
    assert help_text(["sweep.exclude"]).endswith("commands  train")


@pytest.mark.parametrize("name", ["cü", "it's", r"c\b", "a b"])
def test_help_reads_user_defined_options_from_any_folder(name: str, tmp_path: Path) -> None:
    for group, option in (("model", "2"), ("experiment", "mine")):
        (tmp_path / name / group).mkdir(parents=True)
        (tmp_path / name / group / f"{option}.yaml").write_text("# Mine.\nunits: 3\n")
    assert "default   3" in help_text(["model.units", "--config-dir", str(tmp_path / name)])
    assert "experiment=mine                 Mine." in help_text(["experiment", "--config-dir", str(tmp_path / name)])
    with pytest.raises(ConfigError, match="is not a folder: expected one with YAML files"):
        help_text(["model", "--config-dir", str(tmp_path / "nothing")])


def test_help_refuses_several_keys() -> None:
    with pytest.raises(ConfigError, match=r"^help describes one key: received seed epochs\. Type experiments help KEY"):
        help_text(["seed", "epochs"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sed", "'sed' is not a key or a group of keys. Did you mean 'seed'?"),
        ("optimizer.learning_rat", "is not a key or a group of keys. Did you mean 'optimizer.learning_rate'?"),
        ("learning_rate", "Did you mean 'optimizer.learning_rate'?"),
        ("lr", "'lr' is not a key or a group of keys. Did you mean 'optimizer.learning_rate'?"),
        ("zzz", "'zzz' is not a key or a group of keys. Known: allow_modules, allow_other_data, augment,"),
    ],
)
def test_unknown_key_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        help_text([name])
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["", *GROUPS, "sweep", "monitor", "experiment", "optimizer.learning_rate"])
def test_help_fits_80_columns(name: str) -> None:
    text = help_text([name]) if name else usage()
    assert max(map(len, text.splitlines())) <= 80
