"""Hostile `config/` folders of runs: targets, interpolations, paths, and files that are not what they should be."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.records.hostile import Record


class Change(NamedTuple):
    """A change of an honest record, and parts of the message with which it is refused."""

    name: str
    apply: Callable[[Record], object]
    expected: tuple[str, ...] = ()


def target(name: str, /, *, section: str = "loss", **arguments: Any) -> Change:
    node = {"_target_": name, **arguments}
    expected = ("names ", f"_target_={name!r}", "allow_modules=[")
    return Change(f"{section}-{name}", lambda record: record.config({section: node}), expected)


def config(name: str, changes: dict[str, Any], *expected: str) -> Change:
    return Change(name, lambda record: record.config(changes), expected)


def written(name: str, file: str, content: str | bytes, *expected: str) -> Change:
    return Change(
        name, lambda record: record.write(f"config/{file}", content), (*expected, f"config/{file} of run RUN")
    )


EVIL = {"_target_": "planted.run"}
RESTORED = "config/ or checkpoints/ of run RUN cannot be used"
UNCREATED = "data.path='VICTIM/new' does not contain the data of the run"
YAML = "config/config.yaml"
TARGETS = [
    target("os.system", command="touch VICTIM/x"),
    target("posix.system", command="touch VICTIM/x"),
    target("subprocess.run", args=["touch", "VICTIM/x"]),
    target("subprocess.Popen", args=["touch", "VICTIM/x"]),
    target("distutils.spawn.spawn", cmd=["touch", "VICTIM/x"]),
    target("builtins.exec", source="open('VICTIM/x', 'w')"),
    target("builtins.eval", source="open('VICTIM/x', 'w')"),
    target("builtins.open", file="VICTIM/x", mode="w"),
    target("builtins.__import__", name="planted"),
    target("importlib.import_module", name="planted"),
    target("runpy.run_path", path_name="planted.py"),
    target("planted.run"),
    target("planted.Loss"),
    target("joblib.load", filename="VICTIM/notes.txt"),
    target("pickle.loads", data="cos\nsystem\n(S'true'\ntR."),
    target("numpy.load", file="VICTIM/notes.txt", allow_pickle=True),
    target("cloudpickle.load", file="VICTIM/notes.txt"),
    target("pathlib.Path.write_text", self="VICTIM/notes.txt", data="x"),
    target("pathlib.Path.unlink", self="VICTIM/notes.txt"),
    target("shutil.copyfile", src="VICTIM/notes.txt", dst="VICTIM/x"),
    target("shutil.rmtree", path="VICTIM"),
    target("os.remove", path="VICTIM/notes.txt"),
    target("os.makedirs", name="VICTIM/x"),
    target("urllib.request.urlretrieve", url="http://127.0.0.1:9/", filename="VICTIM/x"),
    target("urllib.request.urlopen", url="http://127.0.0.1:9/"),
    target("requests.get", url="http://127.0.0.1:9/"),
    target("webbrowser.open", url="http://127.0.0.1:9/"),
    target("hydra.utils.call", config=EVIL),
    target("hydra.utils.instantiate", config=EVIL),
    target("hydra.utils.get_method", path="planted.run"),
    target("hydra._internal.utils._locate", path="planted.run"),
    target("keras.utils.get_file", origin="http://127.0.0.1:9/", fname="x"),
    target("keras.models.load_model", filepath="VICTIM/notes.txt"),
    target("keras.saving.load_model", filepath="VICTIM/notes.txt", safe_mode=False),
    target("keras.config.enable_unsafe_deserialization"),
    target("keras.layers.Lambda", function="planted.run"),
    target("keras.layers.TFSMLayer", filepath="VICTIM"),
    target("keras.layers.TextVectorization", vocabulary="VICTIM/notes.txt"),
    target("keras.layers.deserialize", config={}),
    target("keras.losses.get", identifier="mse"),
    target("keras.losses.MSE"),
    target("keras.src.utils.file_utils.get_file", origin="http://127.0.0.1:9/"),
    target("keras.layers.Dense.from_config", config={}),
    target("keras.layers.Dense.__init__.__globals__"),
    target(" keras.losses.MeanSquaredError"),
    target("keras.losses.MeanSquaredError\u200b"),
    target("tensorflow.io.write_file", filename="VICTIM/x", contents="x"),
    target("tensorflow.saved_model.load", export_dir="VICTIM"),
    target("mlflow.pyfunc.load_model", model_uri="VICTIM"),
    target("experiments.config.build.build"),
    target("experiments.files.write_atomically", path="VICTIM/x", content="x"),
    target("experiments.data.cats_dogs", path="VICTIM/x", url="http://127.0.0.1:9/", sha256="0"),
    target("experiments.models.applications.application", weights="VICTIM/x.keras"),
    target("planted.run", section="model"),
    target("builtins.exec", section="data"),
    target("experiments.models.cnn.cnn", section="data"),
    target("experiments.tracking.mlflow_tracker.MlflowTracker", section="model"),
    target("keras.callbacks.CSVLogger", section="loss", filename="VICTIM/x.csv"),
    target("keras.callbacks.RemoteMonitor", section="loss", root="http://127.0.0.1:9"),
]
NESTED = [
    config("nested", {"model.hidden_units": EVIL}, "names model.hidden_units._target_='planted.run'"),
    config("in-a-list", {"loss.name": [1, EVIL]}, "names loss.name.1._target_"),
    config("in-lists-of-lists", {"loss.name": [[[{"x": [EVIL]}]]]}, "names loss.name.0.0.0.x.0._target_"),
    config("metric", {"metrics.accuracy": EVIL}, "names metrics.accuracy._target_"),
    config("new-metric", {"metrics.other": EVIL}, "names metrics.other._target_"),
    config("below-a-metric", {"metrics.accuracy.name": EVIL}, "names metrics.accuracy.name._target_"),
    config("section-of-metrics", {"metrics._target_": "planted.run"}, "names metrics._target_"),
    config(
        "builtin-as-argument", {"loss.name": {"_target_": "experiments.data.cats_dogs"}}, "names loss.name._target_"
    ),
    config("train-step", {"model.train_step": "planted.run"}, "names model.train_step='planted.run'"),
    config("target-is-a-list", {"loss._target_": ["planted.run"]}, "names loss._target_"),
    config("target-is-a-number", {"loss._target_": 5}, "names loss._target_"),
    config("target-is-null", {"loss._target_": None}, "names loss._target_"),
    config("target-is-a-mapping", {"loss._target_": EVIL}, "names loss._target_"),
    config("no-target", {"loss": {"name": "x"}}, "loss"),
    config("partial", {"loss._partial_": True}, "names loss._partial_="),
    config("recursive", {"loss._recursive_": False}, "names loss._recursive_="),
    config("convert", {"loss._convert_": "object"}, "names loss._convert_="),
    config("args", {"loss._args_": ["VICTIM"]}, "names loss._args_="),
    config("nested-partial", {"model.x": [{"_partial_": True}]}, "names model.x.0._partial_="),
    config(
        "keras-object",
        {"loss.name": {"class_name": "Lambda", "module": "keras.layers", "config": {}}},
        "names loss.name.class_name=",
    ),
    config("missing-value", {"loss.name": "???"}, "MissingMandatoryValue: Missing mandatory value: name"),
]
INTERPOLATED = [
    config("interpolated-target", {"loss._target_": "${oc.env:MY_DB_PASSWORD}"}, "or has an interpolation"),
    config("interpolated-section", {"loss": "${model}"}, "or has an interpolation"),
    config("interpolated-path", {"data.path": "${oc.env:HOME}"}, "or has an interpolation"),
    config("interpolated-key", {"data": {"${oc.env:HOME}": 1}}, "or has an interpolation"),
    config("interpolated-url", {"data.url": "http://127.0.0.1:9/${oc.env:HOME}"}, "or has an interpolation"),
    config("cut-interpolation", {"data.path": "${oc.env:"}, "or has an interpolation"),
    config("created-node", {"loss": "${oc.create:{_target_: planted.run}}"}, "or has an interpolation"),
    config("backslashes", {"data.path": "\\\\${oc.env:HOME}"}, "or has an interpolation"),
    config("interpolated-name", {"loss.name": "${oc.env:MY_DB_PASSWORD}"}, "or has an interpolation"),
    config("cut-name", {"loss.name": "${oc.env:MY_DB_PASSWORD"}, "or has an interpolation"),
    config("unknown-resolver", {"logging.run_name": "${planted:x}"}, "or has an interpolation"),
    written("escaped", "config.yaml", 'loss: "\\x24{oc.env:MY_DB_PASSWORD}"\n', "or has an interpolation"),
]
DOWNLOAD = {"path": "VICTIM/new", "url": "http://127.0.0.1:9/a.zip", "sha256": "0" * 64}
DRAWN = {"num_examples": 12, "draw_size": 32, "draw_seed": 0}


def fifo(record: Record) -> None:
    """A path that waits for ever when it is opened."""
    os.mkfifo(record.work / "f")
    record.config({"data.path": "f"})


PATHS = [
    config(
        "download",
        {"data": {"_target_": "experiments.data.cats_dogs", **DOWNLOAD}},
        UNCREATED,
    ),
    config(
        "download-mnist",
        {"data": {"_target_": "experiments.data.mnist", **DOWNLOAD}},
        UNCREATED,
    ),
    config(
        "draw",
        {"data": {"_target_": "experiments.data.cats_dogs_synthetic", "path": "VICTIM/new", **DRAWN}},
        UNCREATED,
    ),
    config(
        "draw-again",
        {"data._target_": "experiments.data.cats_dogs_synthetic", "data.path": "VICTIM/data"}
        | {f"data.{key}": value for key, value in DRAWN.items()},
        "data.path='VICTIM/data' does not contain the data of the run",
    ),
    config("device", {"data.path": "/dev/zero"}, "data.path='/dev/zero' is not a folder"),
    config("null-byte", {"data.path": "photos\0"}, "is not a folder"),
    config("path-is-a-list", {"data.path": ["photos"]}, "refuses its values"),
    config("path-is-a-number", {"data.path": 3}, "refuses its values"),
    config("npz-is-a-text", {"data": {"_target_": "experiments.data.npz", "path": "VICTIM/notes.txt"}}, "notes.txt"),
    Change("fifo", fifo, ("data.path='f' is not a folder",)),
]
WRONG_VALUES = [
    config("seed-is-text", {"seed": "abc"}, RESTORED),
    config("seed-is-negative", {"seed": -1}, "Seed must be between 0"),
    config("runtime-is-a-list", {"runtime": [1]}, RESTORED),
    config("precision", {"runtime.precision": "VICTIM"}, "Cannot convert 'VICTIM'"),
    config("metrics-are-a-list", {"metrics": [1]}, RESTORED),
    config("metric-is-text", {"metrics.accuracy": "planted.run"}, ""),
    config("model-is-null", {"model": None}, RESTORED),
    config("units-are-text", {"model.hidden_units": "many"}, ""),
    config("unknown-argument", {"model.planted": 1}, ""),
    config("loss-argument", {"loss.reduction": "planted"}, ""),
    config("data-argument", {"data.batch_size": "many"}, ""),
]
LAUGHS = "a: &a [x]\n" + "".join(f"b{n}: &b{n} [*{'a' if n == 0 else f'b{n - 1}'}, *a]\n" for n in range(40))
ALIASED = "loss: &evil {_target_: planted.run}\nmodel: *evil\ndata: *evil\nmetrics: {m: *evil}\nruntime: {}\nseed: 0\n"
FILES = [
    written("aliased", "config.yaml", ALIASED, "it has an alias, or more than 50 levels within each other"),
    written("billion-laughs", "config.yaml", LAUGHS, "it has an alias, or more than 50 levels within each other"),
    written(
        "merged",
        "config.yaml",
        "a: &a {_target_: planted.run}\nloss:\n  <<: *a\n",
        "it has an alias, or more than 50 levels within each other",
    ),
    written("python-object", "config.yaml", "loss: !!python/object/apply:os.system ['touch x']\n", "ConstructorError"),
    written("python-name", "config.yaml", "loss: !!python/name:planted.run\n", "ConstructorError"),
    written("binary", "config.yaml", "loss: !!binary aGVsbG8=\n", "bytes"),
    written("date", "config.yaml", "loss: 2024-01-01\n", "date"),
    written("set", "config.yaml", "loss: !!set {a, b}\n", "set"),
    written("list", "config.yaml", "- loss\n", "it is not a mapping"),
    written("text", "config.yaml", "loss\n", "it is not a mapping"),
    written("empty", "config.yaml", "", "it is not a mapping"),
    written("two-documents", "config.yaml", "a: 1\n---\nb: 2\n", "ComposerError"),
    written("unclosed", "config.yaml", "loss: {_target_: [", "ParserError"),
    written("tabs", "config.yaml", "loss:\n\t_target_: x\n", "ScannerError"),
    written("deep", "config.yaml", "[" * 2000, "it has an alias, or more than 50 levels within each other"),
    written("not-text", "config.yaml", b"\xff\xfe\x00loss", "UnicodeDecodeError"),
    written("too-large", "config.yaml", "# " + "x" * 10_000_001, "larger than 10 MB"),
    Change("no-config", lambda record: (record.artifacts / "config/config.yaml").unlink(), ("it is missing",)),
    Change(
        "config-cut", lambda record: record.write("config/config.yaml", record.text("config/config.yaml")[:400]), ()
    ),
    Change("no-snapshot", lambda record: (record.artifacts / "config/data.json").unlink(), ("it is missing",)),
    written("json-cut", "data.json", '{"input_shape": [8, 8', "JSONDecodeError"),
    written("json-list", "data.json", "[]", "AttributeError"),
    written("json-number", "data.json", "5", "AttributeError"),
    written("json-deep", "data.json", "[" * 100_000, "RecursionError"),
    written("json-digits", "data.json", "9" * 10_000, "Exceeds the limit"),
    written("json-empty", "data.json", "{}", "missing 8 required"),
    written("json-pickle", "data.json", b"\x80\x04\x95", "UnicodeDecodeError"),
    Change("unknown-field", lambda record: record.data(planted=1), ("unexpected keyword argument 'planted'",)),
    Change(
        "shape-is-text",
        lambda record: record.data(input_shape="8,8"),
        ("data.json of run RUN cannot be used: TypeError",),
    ),
    Change(
        "shape-has-text",
        lambda record: record.data(input_shape=[8, "8"]),
        ("data.json of run RUN cannot be used: TypeError",),
    ),
    Change("shape-is-huge", lambda record: record.data(input_shape=[10**6, 10**6, 3]), ("out of range",)),
    Change("shape-is-negative", lambda record: record.data(input_shape=[-8, 8, 3]), ("out of range",)),
    Change(
        "shape-is-empty",
        lambda record: record.data(input_shape=[]),
        (RESTORED,),
    ),
    Change("classes-are-huge", lambda record: record.data(num_classes=10**12), ("out of range",)),
    Change(
        "classes-differ",
        lambda record: record.data(num_classes=7),
        ("its classes or its input_shape are",),
    ),
    Change("class-names", lambda record: record.data(class_names=[1, 2, 3]), ("the data of run RUN cannot be used",)),
    Change(
        "dtype",
        lambda record: record.data(input_dtype="planted.run"),
        (RESTORED,),
    ),
]
CONFIGS = [*TARGETS, *NESTED, *FILES]
"""Refused by every command that reads the run."""
EVALUATED = [*INTERPOLATED, *PATHS, *WRONG_VALUES]
IGNORED = {"_target_": "planted.run", "filename": "VICTIM/x"}
LITERALS = [
    config("callbacks", {"callbacks": {"evil": IGNORED}}),
    config("logging", {"logging._target_": "planted.run", "logging.tracking_uri": "http://127.0.0.1:9"}),
    config("sweep", {"sweep.sampler": IGNORED, "sweep.storage": "sqlite:///VICTIM/x.db"}),
    config("loop", {"loop": {"_target_": "planted.run", "train_step": "planted.run"}}),
    config("optimizer", {"optimizer": IGNORED, "schedule": IGNORED, "augment": {"evil": IGNORED}}),
    config("resume", {"resume": "last", "resume_allow": ["code"], "allow_modules": ["planted"]}),
    config("hydra", {"hydra": {"run": {"dir": "VICTIM"}, "searchpath": ["file://VICTIM"]}}),
    config("cache", {"data.cache": "disk", "data.cache_dir": "VICTIM"}),
    config("device-of-other-machine", {"runtime.device": "gpu", "runtime.threads": 10**6, "runtime.strategy": "x"}),
    config("tensorboard", {"tensorboard.profile_steps": "VICTIM", "checkpoint.name": "../../VICTIM"}),
]
