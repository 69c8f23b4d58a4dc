"""Hostile overrides, tags, checkpoints, journals and saved models of runs."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from tests.records.hostile import Record
from tests.records.hostile_configs import YAML, Change


def override(text: str, *expected: str) -> Change:
    name = text.replace("VICTIM", "V")
    return Change(name, lambda record: record.overrides(text), expected or ("names ", "allow_modules=["))


UNTYPED = "a record must not do that. Expected plain values. If you trust it, type the same override again"
OVERRIDES = [
    override("+callbacks.evil={_target_: planted.run}"),
    override("+callbacks.evil._target_=planted.run"),
    override("+callbacks.csv={_target_: keras.callbacks.CSVLogger, filename: x.csv}"),
    override("+callbacks.csv={_target_: keras.callbacks.CSVLogger, filename: VICTIM/x.csv}", UNTYPED),
    override("+callbacks.send={_target_: keras.callbacks.RemoteMonitor, root: 'http://127.0.0.1:9'}", UNTYPED),
    override("+callbacks.backup={_target_: keras.callbacks.BackupAndRestore, backup_dir: ../x}", UNTYPED),
    override("+callbacks.function={_target_: keras.callbacks.LambdaCallback}"),
    override("model._target_=planted.run"),
    override("loss._target_=os.system"),
    override("data._target_=experiments.models.cnn.cnn"),
    override("optimizer._target_=subprocess.Popen"),
    override("schedule._target_=keras.utils.get_file"),
    override("logging._target_=planted.run"),
    override("+augment.evil={_target_: shutil.rmtree}"),
    override("+model.x=[[{y: {_target_: hydra.utils.call}}]]"),
    override("+loop.train_step=planted.run"),
    override("+model.x={_target_: experiments.models.applications.application, weights: x.keras}", UNTYPED),
    override("+loss._partial_=true", UNTYPED),
    override("+loss.x={_args_: [1]}", UNTYPED),
    override("+loss.x={class_name: Lambda}", UNTYPED),
    override("loss.name=${oc.env:MY_DB_PASSWORD}", UNTYPED),
    override("+model.x='${oc.env:MY_DB_PASSWORD}'", UNTYPED),
    override(r"+model.x=$\{oc.env:MY_DB_PASSWORD}", "config/overrides.yaml of run RUN"),
    override("+model.x=${oc.create:{_target_:planted.run}}", "config/overrides.yaml of run RUN"),
    override("+debug@hydra=profile", UNTYPED),
    override("+experiment=../../VICTIM", UNTYPED),
    override("loss=/VICTIM/x", UNTYPED),
    override("loss='~/x'", UNTYPED),
    override("checkpoint.name=../../x", UNTYPED),
    override("checkpoint.name=VICTIM/ckpt", UNTYPED),
    override("data={_target_: experiments.data.npz, path: x}", "data.path='x' does not exist"),
    override("++logging={_target_: planted.run}"),
    override("seed=1,2", "seed=1,2"),
    override("seed=choice(1,2)", "requires --multirun"),
    override("data.path=VICTIM/new", "data.path='VICTIM/new' is not a folder"),
    override("data.path=/dev/zero", "data.path='/dev/zero' is not a folder"),
    override("a b c", "config/overrides.yaml of run RUN cannot be used"),
    override("[[[", "config/overrides.yaml of run RUN cannot be used"),
    override("x" * 5000, "config/overrides.yaml of run RUN cannot be used"),
    override("logging={tracking_uri: databricks}", UNTYPED),
    override("data={cache_dir: planted, cache: disk}", UNTYPED),
    override("seed=abc", "seed=abc"),
    override("planted=1", "'planted' is not a key of this config"),
]


def redraw(record: Record) -> None:
    """Data that is drawn again, in place of the user's own, if its parameters differ."""
    record.write(
        "config/overrides.yaml",
        yaml.safe_dump(["data=cats_dogs_synthetic", record.placed("data.path=VICTIM/data"), "data.num_examples=120"]),
    )


def file(name: str, path: str, content: str | bytes, *expected: str) -> Change:
    return Change(name, lambda record: record.write(path, content), expected)


def lost(record: Record, *, config: bool) -> None:
    """The run folder is empty, and with `config` also the record in the store."""
    shutil.rmtree(record.output)
    record.output.mkdir()
    if config:
        shutil.rmtree(record.artifacts / "config")


def elsewhere(record: Record) -> None:
    """The tag of the run names another folder, which contains files."""
    record.tag("output_dir", str(record.victim))
    shutil.rmtree(record.artifacts / "config")


UNUSABLE = "cannot be used: "
TAGS = ("the name or the fingerprint of run RUN cannot be used",)
MISSING = ("config/overrides.yaml of run RUN cannot be used: it is missing",)
RESUMED = [
    *OVERRIDES,
    Change(
        "metrics-without-step",
        lambda record: record.journal('{"event":"metrics","values":{"a":1}}'),
        ("the journal in ", f"{UNUSABLE}KeyError: 'step'"),
    ),
    Change("draw-again", redraw, ("data.path=",)),
    file("overrides-python", "config/overrides.yaml", "- !!python/object/apply:os.system [x]\n", "ConstructorError"),
    file("overrides-mapping", "config/overrides.yaml", "seed: 1\n", "config/overrides.yaml of run RUN cannot be used"),
    file(
        "overrides-numbers",
        "config/overrides.yaml",
        "- 5\n- [x]\n",
        "config/overrides.yaml of run RUN cannot be used: TypeError",
    ),
    file("overrides-alias", "config/overrides.yaml", "- &a seed=1\n- *a\n", "it has an alias"),
    file("overrides-empty", "config/overrides.yaml", "", "config/overrides.yaml of run RUN cannot be used: TypeError"),
    file("recorded-list", YAML, "- 1\n", "it is not a mapping"),
    file("recorded-python", YAML, "seed: !!python/name:planted.run\n", "ConstructorError"),
    Change("upload-of-list", lambda record: record.journal(event("artifacts", path=[1])), ("the journal in ",)),
    Change(
        "empty-folder",
        lambda record: lost(record, config=True),
        MISSING,
    ),
    Change("other-folder", elsewhere, MISSING),
    Change(
        "threads",
        lambda record: record.tag("fingerprint.threads", "planted"),
        TAGS,
    ),
    Change(
        "huge-threads",
        lambda record: record.tag("fingerprint.threads", "9" * 20),
        TAGS,
    ),
    Change(
        "epochs",
        lambda record: record.tag("fingerprint.epochs", "-1"),
        TAGS,
    ),
]
FOREIGN = "the files of run RUN are at"
ADDRESSES = [
    Change(f"place-{uri}", lambda record, uri=uri: record.place(uri), (FOREIGN,))  # type: ignore[misc]
    for uri in (
        "http://127.0.0.1:9/api/2.0/mlflow-artifacts/artifacts/x",
        "https://127.0.0.1:9/x",
        "mlflow-artifacts://127.0.0.1:9/x",
        "ftp://127.0.0.1:9/x",
        "s3://bucket/x",
    )
]
"""Addresses of the files of a run to which MLflow would send its credentials."""
FOLDERS = [
    Change(f"place-{uri}", lambda record, uri=uri: record.place(uri), (FOREIGN,))  # type: ignore[misc]
    for uri in ("file:VICTIM", "VICTIM/data")
]
"""Folders in which MLflow would overwrite and remove files."""


def piped(record: Record) -> None:
    """The tag of the run names a folder with pipes, which block when they are opened."""
    folder = record.work / "pipes"
    folder.mkdir()
    for name in ("run.lock", "journal.jsonl", "journal.offset"):
        os.mkfifo(folder / name)
    record.tag("output_dir", str(folder))


IGNORED_OVERRIDES = [
    override("hydra.searchpath=[file://VICTIM]"),
    override("+hydra.callbacks.evil._target_=planted.run"),
    override("hydra/launcher=joblib"),
    override("hydra.run.dir=VICTIM"),
    override("logging.tracking_uri=http://127.0.0.1:9"),
    override("data.cache_dir=VICTIM"),
    override("+data.url=http://127.0.0.1:9/${oc.env:MY_DB_PASSWORD}"),
    override("+data.sha256=0"),
    override("resume_allow=[code]"),
    override("allow_modules=[planted]"),
    override("sweep.storage=sqlite:///VICTIM/x.db"),
    override("+sweep.sampler._target_=planted.run"),
    Change("heartbeat", lambda record: record.tags(heartbeat="inf", host="elsewhere")),
    Change("pid", lambda record: record.tags(pid="-9", heartbeat="planted")),
    Change("long-folder", lambda record: record.tag("output_dir", "/" + "a" * 5000)),
    Change("journal-offset", lambda record: (record.output / "journal.offset").write_text("9" * 20)),
    Change("journal-time", lambda record: record.journal(event("metrics", step=1, values={}, time="x"))),
    Change("pipes", piped),
    *(
        Change(f"journal-{kind}", lambda record, kind=kind: record.journal(event("artifacts", path="VICTIM", **kind)))  # type: ignore[misc]
        for kind in ({"folder": "x", "temporary": True}, {"folder": "x"})
    ),
    Change("store-folder", lambda record: lost(record, config=False)),
]


def checkpoint_list(record: Record) -> None:
    """TensorFlow's list names checkpoints of another folder, which its manager would delete."""
    own = next(record.output.glob("checkpoints/*.index")).stem
    names = [f'all_model_checkpoint_paths: "{path}"\n' for path in [f"{record.victim}/ckpt-1"] * 4 + [own]]
    text = f'model_checkpoint_path: "{own}"\n{"".join(names)}'
    (record.output / "checkpoints" / "checkpoint").write_text(text)
    best = next(record.output.glob("checkpoints/best/*.index")).stem
    listed = "".join(f'all_model_checkpoint_paths: "{record.victim}/{name}"\n' for name in ("ckpt-1", best))
    text = f'model_checkpoint_path: "{record.victim}/{best}"\n{listed}'
    (record.output / "checkpoints" / "best" / "checkpoint").write_text(text)


def committed(content: Any) -> Callable[[Record], object]:
    def change(record: Record) -> None:
        for path in [*record.output.glob("checkpoints/**/*.json"), *record.artifacts.glob("checkpoints/**/*.json")]:
            path.write_text(content if isinstance(content, str) else json.dumps(content))

    return change


def state(**changes: Any) -> Callable[[Record], object]:
    """Changes the state of the checkpoint, which is committed with it and has no digest."""

    def change(record: Record) -> None:
        for path in record.output.glob("checkpoints/*.json"):
            content = json.loads(path.read_text())
            path.write_text(json.dumps({**content, "state": {**content["state"], **changes}}))

    return change


def without_state(record: Record) -> None:
    """The files of the checkpoint are as they were written, but its state is empty."""
    for path in [*record.output.glob("checkpoints/*.json"), *record.artifacts.glob("checkpoints/**/*.json")]:
        path.write_text(json.dumps({**json.loads(path.read_text()), "state": {}}))


COMMITS = [
    Change("commit-cut", committed('{"files": {')),
    Change("commit-list", committed([1])),
    Change("commit-of-texts", committed({"files": "x", "state": 3})),
    Change("commit-of-numbers", committed({"files": {"x": 1}, "state": {}})),
    Change("commit-outside", committed({"files": {"../../../x": "0"}, "state": {}})),
    Change("commit-without-state", without_state),
]
STATES = [
    Change("epoch", state(epoch=-5), ("checkpoints' of the run", "its position is epoch -5, step 0")),
    Change("step", state(step=[1]), (UNUSABLE,)),
    Change("best", state(best=["../x", 0]), (UNUSABLE,)),
    Change("history", state(history={"loss": ["a"]}), (UNUSABLE,)),
]


def event(kind: str, **fields: Any) -> str:
    return json.dumps({"event": kind, "time": 1_700_000_000_000, **fields}, separators=(",", ":"))


def journal(name: str, *lines: str) -> Change:
    return Change(name, lambda record: record.journal(*lines))


def linked(record: Record) -> None:
    """A folder of the run contains a link to files of the user."""
    (record.output / "figures").mkdir(exist_ok=True)
    (record.output / "figures" / "notes.txt").symlink_to(record.victim / "notes.txt")
    record.journal(event("artifacts", path=str(record.output / "figures"), folder="stolen"))


MODEL = {"step": 1, "digest": "0", "metrics": {}}
REJECTED = [
    journal("upload", event("artifacts", path="VICTIM", folder="stolen")),
    journal("upload-file", event("artifacts", path="VICTIM/notes.txt", folder=None)),
    journal("remove", event("artifacts", path="VICTIM", folder="stolen", temporary=True)),
    journal("remove-relative", event("artifacts", path="../victim", folder="stolen", temporary=True)),
    journal("dots", event("artifacts", path="out/../../victim", folder="stolen")),
    Change("link", linked),
    journal("folder-dots", event("artifacts", path="out/config", folder="../../..")),
    journal("folder-absolute", event("artifacts", path="out/config", folder="VICTIM")),
    journal("path-is-a-list", event("artifacts", path=["VICTIM"], folder="stolen")),
    journal("model-outside", event("artifacts", path="VICTIM", folder="model", model=MODEL)),
    journal("model-of-other-name", event("artifacts", path="out/config", folder="a' OR name = 'b", model=MODEL)),
    journal("model-is-a-list", event("artifacts", path="out/config", folder="model", model=[1])),
    journal("model-metrics", event("artifacts", path="out/config", folder="model", model={**MODEL, "metrics": [1]})),
    journal("metrics-list", event("metrics", step=1, values=[1])),
    journal("metrics-text", event("metrics", step="1", values={"loss": "x"})),
    journal("metrics-huge", event("metrics", step=10**30, values={"loss": 1.0})),
    journal("tags-null", event("tags", values=None)),
    journal("dataset", event("dataset", name=1)),
    journal("end", event("end", status="planted")),
    journal("unknown", event("planted", path="VICTIM")),
    journal("number", "5"),
    journal("list", "[1]"),
    journal("deep", "[" * 100_000),
    journal("text", "planted.run"),
    journal("null", "null"),
]


def first_line(text: str) -> Callable[[Record], object]:
    def change(record: Record) -> None:
        (record.output / "journal.jsonl").write_text(f"{record.placed(text)}\n{event('metrics', step=1, values={})}\n")
        (record.output / "journal.offset").write_text("0")

    return change


def address(uri: str) -> Callable[[Record], object]:
    """The journal names another store, and today's does not know the run."""
    return first_line(event("start", run_id="f" * 32, tracking_uri=uri))


def replaced(name: str, target: str) -> Callable[[Record], object]:
    """A file of the journal is a link, while events wait."""

    def change(record: Record) -> None:
        record.journal(event("planted"))
        (record.output / name).unlink(missing_ok=True)
        (record.output / name).symlink_to(record.victim / target)

    return change


def foreign(record: Record) -> None:
    """The journal of another folder names the run."""
    record.tag("output_dir", str(record.work / "elsewhere"))
    record.journal(event("tags", values={"mlflow.runName": "renamed"}))


LINKED = ("is a link, or not a file",)
UNDELIVERED = [
    Change("other-folder", foreign, ("not sent: the run is in",)),
    Change("offset-link", replaced("journal.offset", "notes.txt"), LINKED),
    Change("rejected-link", replaced("journal.rejected.jsonl", "notes.txt"), LINKED),
    Change("lock-link", replaced("run.lock", "new"), LINKED),
    Change("address", address("http://127.0.0.1:9"), ("The journal names the store 'http://127.0.0.1:9'",)),
    Change("database", address("sqlite:////VICTIM/x.db"), ("The journal names the store",)),
    Change("no-address", address(None), ("The journal names the store",)),  # type: ignore[arg-type]
    Change("start-is-a-list", first_line("[1]"), ("does not begin with the start of a run",)),
    Change("start-is-cut", first_line('{"event":"start"'), ("does not begin with the start of a run",)),
    Change("run-is-a-list", first_line(event("start", run_id=[1])), ("does not begin with the start of a run",)),
    Change("offset", lambda record: (record.output / "journal.offset").write_text("planted"), ("delivered 20",)),
    Change("offset-huge", lambda record: (record.output / "journal.offset").write_text("9" * 20), ("delivered 20",)),
]


def hostile_folders(record: Record) -> None:
    """Tags and links of a run that would make a repair touch other folders."""
    record.status("RUNNING")
    record.tag("output_dir", str(record.victim))
    shutil.rmtree(record.output / "checkpoints")
    (record.output / "checkpoints").symlink_to(record.victim)


def saved_model(record: Record) -> Path:
    return next(record.work.glob("mlartifacts/models/*/artifacts"))


def mlmodel(**changes: Any) -> Callable[[Record], object]:
    """Sets keys of the flavors in MLmodel; `flavors` replaces all."""

    def change(record: Record) -> None:
        path = saved_model(record) / "MLmodel"
        content = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            if key == "flavors":
                content["flavors"] = value
            else:
                content["flavors"]["python_function" if key == "loader_module" else "keras"][key] = value
        path.write_text(yaml.safe_dump(content))

    return change


def mlmodel_text(text: str) -> Callable[[Record], object]:
    return lambda record: (saved_model(record) / "MLmodel").write_text(text)


def pickled(record: Record) -> None:
    """Custom objects, as MLflow stores them in a pickle, and a module to import."""
    (saved_model(record) / "custom_objects.cloudpickle").write_bytes(b"cplanted\nrun\n(tR.")
    (saved_model(record) / "data" / "custom_objects.cloudpickle").write_bytes(b"cplanted\nrun\n(tR.")
    mlmodel(custom_objects="custom_objects.cloudpickle", keras_module="planted", data="data")(record)


DESCRIPTIONS = [
    Change("pickle", pickled),
    Change("loader", mlmodel(loader_module="planted")),
    Change("exported", mlmodel(save_exported_model=True)),
    Change("outside", mlmodel(data="../../x")),
    Change("absolute", mlmodel(data="/etc")),
    Change("other-flavor", mlmodel(flavors={"sklearn": {"pickled_model": "x"}})),
    Change("flavors-are-a-list", mlmodel(flavors=[1])),
    Change("object", mlmodel_text("flavors: !!python/object/apply:os.system [x]")),
    Change("cut", mlmodel_text("flavors: {keras: [")),
    Change("empty", mlmodel_text("")),
    Change("none", lambda record: (saved_model(record) / "MLmodel").unlink()),
]
"""Files of MLflow that are not read."""


def pickled_arrays(path: Path) -> None:
    """An archive of arrays whose first one is a pickle that would call a function."""
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    with zipfile.ZipFile(path, "w") as arrays:
        for name in ("x_train.npy", "y_train.npy"):
            arrays.writestr(name, header.ljust(127) + b"\ncplanted\nrun\n(tR.")


def broken_images(record: Record) -> None:
    """Names of classes and files that are commands, links out of the folder, and files that are no images."""
    folder = record.work / "photos" / "train" / "$(touch executed)"
    folder.mkdir()
    (folder / "`touch executed`.jpg").write_text("planted")
    (folder / "link.jpg").symlink_to(record.victim / "notes.txt")
    (record.work / "photos" / "train" / "linked").symlink_to(record.victim)
