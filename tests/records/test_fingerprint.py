"""Changes that affect the fingerprint of a run, and changes that do not."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from experiments.records import fingerprint as module
from experiments.records.fingerprint import comparable, fingerprint, values

Compose = Callable[..., DictConfig]


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "model=mlp",
        "model.dropout=0.5",
        "optimizer.learning_rate=0.5",
        "optimizer.use_ema=true",
        "schedule=cosine",
        "augment=flip",
        "metrics=[accuracy,top_k]",
        "loop=tape",
        "loop.steps_per_execution=2",
        "callbacks=early_stopping",
        "monitor.metric=val_loss",
        "data.batch_size=8",
        "data.shuffle=false",
        "data.limit=50",
        "runtime.precision=mixed_bfloat16",
        "runtime.deterministic=false",
    ],
)
def test_override_that_changes_weights_changes_config_digest(composed: Compose, override: str) -> None:
    before, after = comparable(composed()), comparable(composed(override))
    assert before["config"] != after["config"]
    assert (before["code"], before["versions"]) == (after["code"], after["versions"])


@pytest.mark.parametrize(
    "override",
    [
        "epochs=9",
        "progress=none",
        "resume=last",
        "resume_allow=[code]",
        "checkpoint.every_n_steps=3",
        "tensorboard.images=0",
        "logging=none",
        "logging.run_name=other",
        "monitor.max_loss=null",
        "data.prefetch=3",
        "data.num_parallel_calls=3",
    ],
)
def test_neutral_override_changes_no_digest(composed: Compose, override: str) -> None:
    assert comparable(composed()) == comparable(composed(override))


def test_data_path_and_cache_change_no_digest(composed: Compose) -> None:
    before = composed("data=image_folder", "data.path=here", "data.cache=none")
    assert comparable(before) == comparable(composed("data=image_folder", "data.path=there", "data.cache=memory"))


def test_data_epochs_threads_and_replicas_are_separate_parts(composed: Compose) -> None:
    cfg = composed("epochs=7")
    one, other = fingerprint(cfg, ["a", "b"], 2, 1), fingerprint(cfg, ["a", "c"], 3, 4)
    assert (one.config, one.code, one.versions) == (other.config, other.code, other.versions)
    assert one.data != other.data
    assert fingerprint(cfg, ["ab"], 2, 1).data != fingerprint(cfg, ["a", "b"], 2, 1).data
    assert (one.epochs, one.threads, other.threads) == (7, 2, 3)
    assert (one.replicas, other.replicas) == (1, 4)
    assert fingerprint(cfg, [], None, 1).threads >= 1
    assert one.tags()["fingerprint.epochs"] == "7"


def test_weights_file_is_compared_by_content(composed: Compose, tmp_path: Path) -> None:
    first, second = tmp_path / "a.weights.h5", tmp_path / "b.weights.h5"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")

    def config(path: Path) -> str:
        return comparable(composed("model=mobilenetv2", f"model.weights={path}"))["config"]

    assert config(first) == config(second)
    before = config(first)
    first.write_bytes(b"other weights")
    assert config(first) != before


def test_values_mask_secrets(composed: Compose) -> None:
    assert "hunter2" not in str(values(composed("+callbacks.mine._target_=a.B", "+callbacks.mine.password=hunter2")))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of custom modules that fail when they are imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "single_module.py").write_text("raise ImportError")
    (tmp_path / "custom_package").mkdir()
    (tmp_path / "custom_package" / "steps.py").write_text("raise ImportError")
    (tmp_path / "unused_module.py").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("override", "file"),
    [
        ("+callbacks.mine._target_=single_module.Mine", "single_module.py"),
        ("loop.train_step=custom_package.steps.step", "custom_package/steps.py"),
    ],
)
def test_custom_modules_change_code_digest(composed: Compose, project: Path, override: str, file: str) -> None:
    cfg = composed("loop=tape", override)
    before = comparable(cfg)
    (project / "unused_module.py").write_text("changed = 1")
    assert comparable(cfg) == before
    (project / file).write_text("changed = 1")
    after = comparable(cfg)
    assert after["code"] != before["code"]
    assert after["config"] == before["config"]
    assert "single_module" not in sys.modules


@pytest.mark.parametrize(
    ("imports", "file"),
    [
        ("import helper", "helper.py"),
        ("from helper import x", "helper.py"),
        ("import os, helper.part as h", "helper/part.py"),
        ("def later():\n    from helper.part import x", "helper/part.py"),
        ("from middle import x", "helper.py"),
        ("import namespace.deep", "namespace/deep.py"),
    ],
)
def test_module_imported_by_custom_module_changes_code_digest(
    composed: Compose, project: Path, imports: str, file: str
) -> None:
    cfg = composed("+callbacks.mine._target_=single_module.Mine")
    (project / "middle.py").write_text("import helper, single_module, keras, pytest, no_such_module")
    (project / file).parent.mkdir(exist_ok=True)
    (project / file).write_text("raise ImportError")
    alone = comparable(cfg)
    (project / "single_module.py").write_text(imports)
    before = comparable(cfg)
    assert before["code"] != alone["code"]
    (project / "unused_module.py").write_text("changed = 1")
    assert comparable(cfg) == before
    (project / file).write_text("changed = 1")
    assert comparable(cfg)["code"] != before["code"]
    (project / file).write_text("not python {")
    assert comparable(cfg)["config"] == before["config"]
    assert not {"helper", "middle", "namespace"} & set(sys.modules)


def test_imported_packages_of_others_change_no_code_digest(composed: Compose, project: Path) -> None:
    """Their versions are part of the environment; reading all their files would take seconds."""
    cfg = composed("+callbacks.mine._target_=single_module.Mine")
    (project / "single_module.py").write_text(
        "import yaml, json, numpy, tensorflow, matplotlib.pyplot, experiments.data"
    )
    found = {path.parent for path in module._code_files(cfg)}
    assert found == {project} | {path.parent for path in Path(module.__file__).parents[1].rglob("*.py")}


@pytest.mark.parametrize("target", ["builtins.dict", "sys.exit", "no_such_module.Part", "zipimport.zipimporter"])
def test_target_without_source_changes_no_code_digest(composed: Compose, target: str) -> None:
    assert comparable(composed(f"+callbacks.mine._target_={target}"))["code"] == comparable(composed())["code"]


def test_this_package_changes_code_digest(composed: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = comparable(composed())["code"]
    (tmp_path / "fingerprint.py").write_text("other = 1")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "records" / "fingerprint.py"))
    assert comparable(composed())["code"] != before


def test_package_versions_change_versions_digest(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    before = comparable(composed())
    monkeypatch.setattr(module, "version", lambda package: f"{package} 0")
    after = comparable(composed())
    assert after["versions"] != before["versions"]
    assert after["config"] == before["config"]
