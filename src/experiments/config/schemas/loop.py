"""Types of `loop=...`."""

from experiments.config.fields import Target, at_least, described, option


@option("fit")
class Fit(Target):
    """Trains with `keras.Model.fit`, called once per epoch."""

    steps_per_execution: int = at_least(
        1, "Steps in one call of the compiled function; more save time if steps are short."
    )
    jit_compile: bool = described("Compile the step with XLA; needs runtime.deterministic=false.")


@option("tape")
class Tape(Fit):
    """Trains with the `tf.GradientTape` loop of the TensorFlow 2 tutorial."""

    train_step: str = described("Dotted name of the function that performs a step: (model, batch) -> metrics.")
