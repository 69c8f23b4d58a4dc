"""Values and combinations that types cannot refuse are refused before anything is built, in words that help."""

from collections.abc import Callable

import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.config import check
from experiments.errors import ConfigError

Compose = Callable[..., DictConfig]
PHOTOS = "data=image_folder data.path=photos"

OUT_OF_RANGE = [
    ("seed=-1", "seed=-1 is out of range: expected a number from 0 to 4294967295. Change seed."),
    ("epochs=0", "epochs=0 is out of range: expected 1 or more. Change epochs."),
    ("progress=loud", "progress=loud is out of range: expected one of auto, bar, plain, none. Change progress."),
    ("monitor.mode=up", "monitor.mode=up is out of range: expected one of min, max. Change monitor.mode."),
    ("checkpoint.max_to_keep=0", "checkpoint.max_to_keep=0 is out of range: expected 2 or more."),
    ("checkpoint.every_n_minutes=0", "checkpoint.every_n_minutes=0.0 is out of range: expected a number above 0."),
    ("tensorboard.profile_steps=[5]", "expected the first and the last step, such as [5, 10]."),
    ("tensorboard.profile_steps=[9,5]", "tensorboard.profile_steps=[9, 5] is out of range"),
    ("tensorboard.images=-1", "tensorboard.images=-1 is out of range: expected 0 or more."),
    ("runtime.precision=float64", "expected one of float32, mixed_bfloat16, mixed_float16. Change runtime.precision."),
    ("runtime.deterministic=maybe", "runtime.deterministic=maybe is out of range: expected auto, true or false."),
    ("runtime.threads=0", "runtime.threads=0 is out of range: expected 1 or more."),
    ("runtime.strategy=tpu", "runtime.strategy=tpu is out of range: expected one of none, mirrored."),
    ("runtime.device=tpu", "runtime.device=tpu is out of range: expected one of auto, cpu, gpu."),
    ("data.batch_size=0", "data.batch_size=0 is out of range: expected 1 or more."),
    ("data.prefetch=-1", "data.prefetch=-1 is out of range: expected 'auto' or a whole number of 0 or more."),
    ("data.num_parallel_calls=many", "expected 'auto' or a whole number of 1 or more. Change data.num_parallel_calls."),
    ("data.limit=0", "data.limit=0 is out of range: expected 1 or more."),
    (
        "data.validation_fraction=1",
        "expected a number from 0 up to, not including, 1. Change data.validation_fraction.",
    ),
    ("data.test_fraction=1.5", "data.test_fraction=1.5 is out of range: expected a number from 0 up to"),
    (f"{PHOTOS} data.image_size=[160]", "data.image_size=[160] is out of range: expected 2 whole numbers of 1 or more"),
    (
        f"{PHOTOS} data.image_size=[0,9]",
        "data.image_size=[0, 9] is out of range: expected 2 whole numbers of 1 or more",
    ),
    (f"{PHOTOS} data.channels=4", "data.channels=4 is out of range: expected one of 1, 3."),
    (f"{PHOTOS} data.cache=disc", "data.cache=disc is out of range: expected one of none, memory"),
    (f"{PHOTOS} data.on_corrupt=ignore", "data.on_corrupt=ignore is out of range: expected one of error, skip."),
    ("data=cats_dogs_synthetic data.num_examples=5", "data.num_examples=5 is out of range: expected 60 or more."),
    ("model.dropout=1", "model.dropout=1.0 is out of range: expected a number from 0 up to, not including, 1."),
    ("model.l2=-1", "model.l2=-1.0 is out of range: expected 0 or more."),
    ("model=mobilenetv2 model.alpha=0", "model.alpha=0.0 is out of range: expected a number above 0."),
    ("optimizer.learning_rate=0", "optimizer.learning_rate=0.0 is out of range: expected a number above 0."),
    ("optimizer.learning_rate=inf", "optimizer.learning_rate=inf is out of range: expected a number above 0."),
    ("model.l2=1e400", "model.l2=inf is out of range: expected 0 or more."),
    ("optimizer.learning_rate=nan", "optimizer.learning_rate=nan is out of range: expected a number above 0."),
    ("optimizer.gradient_accumulation_steps=1", "gradient_accumulation_steps=1 is out of range: expected 2 or more."),
    ("optimizer=sgd optimizer.momentum=1", "optimizer.momentum=1.0 is out of range"),
    ("schedule.warmup_steps=-1", "schedule.warmup_steps=-1 is out of range: expected 0 or more."),
    ("schedule=exponential schedule.decay_rate=0", "schedule.decay_rate=0.0 is out of range"),
    ("loss=categorical_crossentropy loss.label_smoothing=1", "loss.label_smoothing=1.0 is out of range"),
    ("metrics=[accuracy,top_k] metrics.top_k.k=0", "metrics.top_k.k=0 is out of range: expected 1 or more."),
    ("metrics=f1_score metrics.f1_score.average=mean", "expected one of macro, micro, weighted."),
    ("augment=crop_and_resize augment.crop_and_resize.scale=0", "expected a number above 0, at most 1."),
    ("callbacks=early_stopping callbacks.early_stopping.patience=-1", "early_stopping.patience=-1 is out of range"),
    ("loop.steps_per_execution=0", "loop.steps_per_execution=0 is out of range: expected 1 or more."),
    ("logging.every_n_steps=0", "logging.every_n_steps=0 is out of range: expected 1 or more."),
    ("logging=none logging.every_n_steps=0", "logging.every_n_steps=0 is out of range: expected 1 or more."),
]


@pytest.mark.parametrize(("words", "message"), OUT_OF_RANGE)
def test_out_of_range(composed: Compose, words: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(composed(*words.split()))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        "seed=0",
        "data.limit=1 data.prefetch=0 data.num_parallel_calls=1",
        "model.dropout=0 data.validation_fraction=0",
        "runtime.deterministic=false loop.jit_compile=true",
        "runtime.strategy=mirrored optimizer.use_ema=true",
        "callbacks=[early_stopping,reduce_on_plateau,terminate_on_nan]",
        "metrics.accuracy=null",
        "callbacks=[early_stopping] callbacks.early_stopping=null",
        "optimizer.gradient_accumulation_steps=2",
        "schedule=cosine schedule.warmup_steps=10",
    ],
)
def test_the_edges_of_every_range_are_fine(composed: Compose, words: str) -> None:
    cfg = composed(*words.split())
    before = OmegaConf.to_container(cfg, resolve=False)
    check(cfg)
    assert OmegaConf.to_container(cfg, resolve=False) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "+optimizer.learing_rate=1",
            "'optimizer.learing_rate' is not a key of this config. Did you mean 'learning_rate'?",
        ),
        ("+epoch=3", "'epoch' is not a key of this config. Did you mean 'epochs'?"),
        ("+data.batchsize=3", "'data.batchsize' is not a key of this config. Did you mean 'batch_size'?"),
    ],
)
def test_keys_added_by_a_plus(composed: Compose, words: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(composed(*words.split()))
    assert message in str(error.value)


def test_an_entry_that_is_added_without_its_option(composed: Compose) -> None:
    """`+callbacks.early_stopping.patience=3` where callbacks=early_stopping was forgotten."""
    with pytest.raises(ConfigError) as error:
        check(composed("+callbacks.early_stopping.patience=3"))
    assert str(error.value) == (
        "callbacks.early_stopping has no _target_, so nothing can be built from it: expected a mapping of keys and "
        "values. Add _target_ to the YAML file, or choose callbacks=early_stopping."
    )


def test_a_key_that_is_taken_away(composed: Compose) -> None:
    with pytest.raises(ConfigError, match=r"^epochs was deleted, but this config needs it\. Leave out ~epochs\.$"):
        check(composed("~epochs"))


def test_a_reference_to_nothing(composed: Compose) -> None:
    with pytest.raises(ConfigError) as error:
        check(composed("optimizer.learning_rate=${rate}"))
    assert str(error.value) == (
        "optimizer.learning_rate refers to a key that does not exist: Interpolation key 'rate' not found. "
        "Expected ${key} of this config or ${oc.env:NAME}. Change optimizer.learning_rate."
    )


@pytest.mark.parametrize(
    ("words", "key"), [("model=application", "model.architecture"), ("data=npz", "data.path"), ("seed=???", "seed")]
)
def test_a_value_that_only_the_person_knows(composed: Compose, words: str, key: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(composed(*words.split()))
    assert str(error.value) == f"{key} has no value: this option needs one. Add {key}=VALUE."


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "callbacks=reduce_on_plateau schedule=cosine",
            "callbacks=reduce_on_plateau changes the learning rate itself and cannot be combined with a schedule: "
            "expected schedule=constant schedule.warmup_steps=0. Drop the callback or the schedule.",
        ),
        (
            "callbacks=reduce_on_plateau schedule.warmup_steps=5",
            "callbacks=reduce_on_plateau changes the learning rate itself",
        ),
        (
            "runtime.strategy=mirrored optimizer.gradient_accumulation_steps=2",
            "optimizer.gradient_accumulation_steps=2 does not work with runtime.strategy=mirrored in Keras: expected "
            "one of the two. Set optimizer.gradient_accumulation_steps=null and a larger data.batch_size, "
            "or runtime.strategy=none.",
        ),
        (
            "loop.jit_compile=true",
            "loop.jit_compile=true needs runtime.deterministic=false, received auto: XLA has no repeatable form of "
            "some operations. Set runtime.deterministic=false or loop.jit_compile=false.",
        ),
        (
            "loop=tape loop.jit_compile=true runtime.deterministic=true",
            "loop.jit_compile=true needs runtime.deterministic=false, received True",
        ),
        (
            "optimizer.clipnorm=1 optimizer.global_clipnorm=1",
            "optimizer.clipnorm and optimizer.global_clipnorm are both set: Keras clips gradients in one way only. "
            "Set optimizer.clipnorm=null or optimizer.global_clipnorm=null.",
        ),
    ],
)
def test_combinations_that_cannot_train(composed: Compose, words: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(composed(*words.split()))
    assert message in str(error.value)
