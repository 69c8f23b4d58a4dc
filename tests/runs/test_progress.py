"""Progress display during training."""

import io
import re

import keras
import pytest

from experiments.runs.progress import Size, progress

SIZE = Size(epochs=2, steps=3, validation_steps=2, batch_size=8)


def train(callbacks: list[keras.callbacks.Callback]) -> None:
    """Calls the callbacks like a loop of two epochs."""
    for callback in callbacks:
        callback.on_train_begin()
        for epoch in range(2):
            callback.on_epoch_begin(epoch)
            for batch in range(3):
                callback.on_train_batch_begin(batch)
                callback.on_train_batch_end(batch, {"loss": 0.5})
            callback.on_epoch_end(epoch, {"loss": 0.25, "val_loss": 12345.0})
        callback.on_train_end()


def shown(mode: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with progress(mode, SIZE) as callbacks:
        train(callbacks)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


@pytest.mark.parametrize("mode", ["plain", "auto"])
def test_plain_mode_prints_a_line_per_epoch(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, *epochs = shown(mode, capsys)
    assert first == "tracing the first step ..."
    assert len(epochs) == 2
    for number, line in enumerate(epochs, 1):
        assert re.fullmatch(rf"epoch {number}/2  loss 0\.2500  val_loss 1\.23e\+04  \d+ images/s", line)


def test_mode_none_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("none", capsys) == []


def test_bar_prints_a_line_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for line in shown("bar", capsys) if line.startswith("epoch") and "loss 0.2500" in line]
    assert len(lines) == 2


def test_bar_is_removed_on_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar hides the cursor of the terminal and must show it again."""
    terminal = io.StringIO()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with pytest.raises(RuntimeError):
        fail_while_training()
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h")


def fail_while_training() -> None:
    with progress("bar", SIZE) as callbacks:
        callbacks[0].on_train_begin()
        raise RuntimeError
