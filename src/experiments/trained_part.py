"""What the loop trains: the whole model, or its head on features that the frozen layers compute once."""

import logging
from typing import NamedTuple

import keras

from experiments.data.base import Splits
from experiments.data.features import features_of
from experiments.errors import ConfigError, ExperimentError, ModelError
from experiments.models.frozen import split_frozen

logger = logging.getLogger(__name__)


class TrainedPart(NamedTuple):
    """model: shares its layers with the whole one; splits: what it is fed."""

    model: keras.Model
    splits: Splits


def trained_part(model: keras.Model, splits: Splits, *, cache_features: bool | str) -> TrainedPart:
    """The head where features can be kept.

    cache_features: False never; "auto" where nothing changes by it, said in one line where not; True or an error, and
    also where features differ in their last bits from batch to batch.
    Raises ConfigError with the reason where True cannot be.
    """
    if cache_features is False:
        return TrainedPart(model, splits)
    try:
        return _head_on_features(model, splits, exactly=cache_features == "auto")
    except ExperimentError as reason:
        if cache_features is True:
            raise ConfigError(
                f"model.cache_features=true cannot be: {reason}. Set model.cache_features=auto or false."
            ) from reason
        logger.info("Features are computed in every epoch (model.cache_features=auto): %s.", reason)
        return TrainedPart(model, splits)


def _head_on_features(model: keras.Model, splits: Splits, *, exactly: bool) -> TrainedPart:
    policy = keras.config.dtype_policy().name
    if policy != "float32":
        raise ModelError(f"under runtime.precision={policy} features would be kept in another precision")
    if model.distribute_strategy.num_replicas_in_sync > 1:
        raise ModelError("under runtime.strategy=mirrored each replica has frozen layers of its own")
    frozen = split_frozen(model, splits.train.spec.input_dtype)
    if exactly and not frozen.exact:
        raise ModelError(f"those of {model.name} differ in their last bits from batch to batch")
    return TrainedPart(frozen.head, features_of(splits, frozen.features, frozen.shape, frozen.identity))
