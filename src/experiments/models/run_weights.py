"""Loads the best weights of a run in the tracking store into a model, as far as its layers match."""

import logging
import re
import tempfile
from collections import deque
from collections.abc import Iterator

import keras
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from experiments.errors import first_few, pluralized, reading
from experiments.files import literal
from experiments.records.named_run import named_run

PREFIXES = ("runs:/", "models:/")
COMPLETE_ID = re.compile(r"runs:/([0-9a-f]{32})(/model)?")
"""Source that names a run by its complete id. Earlier versions named the folder of the saved model."""
LEAST = 0.5
"""Smallest share of a model's arrays that must match: fewer are equal by chance, as biases of equal length are."""
EXPECTED = (
    "runs:/ID or models:/NAME@ALIAS of a run of the tracking store, trained by experiments train with a similar model. "
    "Set model.weights or logging.tracking_uri"
)
logger = logging.getLogger(__name__)


def run_of(source: str, tracking_uri: str | None = None, experiment: str | None = None) -> str:
    """Returns the run id in `runs:/ID`, or of the registered version in `models:/NAME/VERSION` or `models:/NAME@ALIAS`.

    Other names, as in `runs:/best`, are those of `named_run` in the experiment. Raises TrackingError if the source has
    another form, or if the registry has no such version.
    """
    from experiments.records.finished_run import store_of_weights  # Imports MLflow, which takes 4 s.

    if found := COMPLETE_ID.fullmatch(source):
        return found[1]
    kind, _, rest = source.partition(":/")
    if kind == "runs" and re.fullmatch(r"\w+", rest):
        return str(named_run(store_of_weights(tracking_uri), rest, experiment, "model.weights").info.run_id)
    with reading(f"model.weights='{source}'", EXPECTED):
        form = re.fullmatch(r"([^/@]+)(?:@(.+)|/(\d+))", rest)
        if kind != "models" or form is None:
            raise ValueError("it has another form")
        name, alias, version = form.groups()
        client = store_of_weights(tracking_uri)
        model = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
        if not model.run_id:
            raise ValueError("this version was registered without a run")
        return str(model.run_id)


def load_run_weights(source: str, model: keras.Model) -> None:
    """Assigns the arrays of the run's best checkpoint to the variables of `model` at the same place and of equal shape.

    Logs the variables that keep their initial values. Raises TrackingError if less than half of the arrays match.
    """
    from experiments.records.finished_run import download_best  # Imports MLflow, which takes 4 s.

    run_id = run_of(source)
    with (
        reading(f"model.weights='{source}'", EXPECTED),
        tempfile.TemporaryDirectory() as folder,
        literal(*download_best(run_id, folder).glob("best-*.index")) as index,
    ):
        reader = tf.train.load_checkpoint(index.removesuffix(".index"))
        shapes = reader.get_variable_to_shape_map()
        graph = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
        variables = list(_variables(model, graph))
        matching = [(key, each) for key, each in variables if shapes.get(key) == list(each.shape)]
        if len(matching) < LEAST * len(variables):
            raise ValueError(f"{len(matching)} of {pluralized(len(variables), 'array')} of {model.name} match")
        for key, variable in matching:
            variable.assign(reader.get_tensor(key))
    loaded = {id(variable) for _, variable in matching}
    others = first_few(variable.path for _, variable in variables if id(variable) not in loaded)
    count, rest = pluralized(len(variables), "array"), f"; initial values remain in {others}" if others else ""
    logger.info("Loaded %d of %s from run %s%s.", len(matching), count, run_id, rest)


def _variables(model: keras.Model, graph: TrackableObjectGraph) -> Iterator[tuple[str, keras.Variable]]:
    """Yields the variables of a built model, except random seeds, with their key in a checkpoint; "" if it has none.

    Follows equal names of attributes in the model and in the graph of the checkpoint, as TensorFlow does when it
    restores. https://www.tensorflow.org/guide/checkpoint#loading_mechanics
    """
    view = tf.train.TrackableView(model)
    roots = {child.local_name: child.node_id for child in graph.nodes[0].children}
    queue, seen = deque([(model, roots.get("model"))]), {id(model)}
    while queue:
        node, place = queue.popleft()
        stored = graph.nodes[place] if place is not None else None
        places = {child.local_name: child.node_id for child in stored.children} if stored else {}
        for name, child in view.children(node).items():
            if id(child) not in seen and name != "optimizer" and not isinstance(child, keras.random.SeedGenerator):
                seen.add(id(child))
                found = places.get(name)
                if isinstance(child, keras.Variable):
                    keys = [each.checkpoint_key for each in graph.nodes[found].attributes] if found is not None else []
                    yield (keys or [""])[0], child
                queue.append((child, found))
