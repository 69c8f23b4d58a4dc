"""Figures of a sweep, drawn from trials without training."""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from experiments.sweeps.plan import Plan
from experiments.sweeps.summary import _link_boards, draw_figures, shares_of_variance

LONG = "optimizer.a_long_name_of_a_key.learning_rate"
SPACE: dict[str, list[Any]] = {"model": ["mlp", "cnn"], LONG: [1e-4, 1e-3, 1e-2]}
Draw = Callable[..., dict[str, Figure]]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Draw]:
    """Returns a function that draws the figures of a sweep and returns them by file name."""
    drawn: dict[str, Figure] = {}

    def savefig(figure: Figure, path: Path, **_: object) -> None:
        drawn[path.stem] = figure

    def call(trials: list[FrozenTrial], direction: str) -> dict[str, Figure]:
        drawn.clear()
        draw_figures(dict(enumerate(trials)), tmp_path, "score", direction)
        return drawn

    monkeypatch.setattr(Figure, "savefig", savefig)
    monkeypatch.setattr(pyplot, "close", lambda _: None)
    yield call
    monkeypatch.undo()
    pyplot.close("all")


def trial(params: dict[str, Any], *values: float, **distributions: BaseDistribution) -> FrozenTrial:
    grid = {name: CategoricalDistribution(choices) for name, choices in SPACE.items() if name in params}
    state = TrialState.COMPLETE if values else TrialState.FAIL
    return create_trial(params=params, distributions=grid | distributions, values=list(values) or None, state=state)


def grid(score: Callable[[int, int], float]) -> list[FrozenTrial]:
    names, choices = list(SPACE), [range(len(labels)) for labels in SPACE.values()]
    cells = list(product(*choices))
    params = [{name: SPACE[name][at] for name, at in zip(names, cell, strict=True)} for cell in cells]
    # The second objective must not matter.
    return [
        trial(each, score(*cell), -100.0 * number)
        for number, (each, cell) in enumerate(zip(params, cells, strict=True))
    ]


def r_squared(columns: list[list[Any]], values: np.ndarray) -> float:
    """Share of the variance that a linear regression on indicators explains; one indicator per value of a column."""
    indicators = [[cell == level for cell in column] for column in columns for level in dict.fromkeys(column)]
    design = np.array([np.ones(len(values)), *indicators], float).T
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float(1 - (rest**2).sum() / ((values - values.mean()) ** 2).sum())


@pytest.mark.parametrize(
    ("levels", "repeats"), [((2, 3), 1), ((4,), 1), ((4,), 3), ((3, 2, 4), 1), ((2, 2), 5), ((1, 3), 2)]
)
def test_shares_of_a_full_grid_are_those_of_a_regression(levels: tuple[int, ...], repeats: int) -> None:
    rng = np.random.default_rng(0)
    cells = [cell for cell in product(*map(range, levels)) for _ in range(repeats)]
    order = rng.permutation(len(cells))
    values = rng.normal(size=len(cells)) + np.array(
        [sum((at + 1) * part for at, part in enumerate(cell)) for cell in cells]
    )
    cells, values = [cells[at] for at in order], values[order]
    keys = [f"key {at}" for at in range(len(levels))]
    shares = shares_of_variance([dict(zip(keys, cell, strict=True)) for cell in cells], list(values))
    columns = [[cell[at] for cell in cells] for at in range(len(levels))]
    expected = {key: r_squared([column], values) for key, column in zip(keys, columns, strict=True)}
    by_cell = r_squared([[*cells]], values)
    expected |= {"(interactions)": by_cell - sum(expected.values()), "(repeats)": 1 - by_cell}
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert shares == pytest.approx({name: share for name, share in expected.items() if name in keys or share > 1e-9})


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        ([(0, 0), (0, 1), (1, 0)], [1.0, 2.0, 3.0]),
        ([(0, 0), (0, 1), (1, 0), (1, 1), (1, 1)], [1.0, 2.0, 3.0, 4.0, 5.0]),
    ],
    ids=["missing", "unequal repeats"],
)
def test_shares_of_other_jobs_are_not_computed(cells: list[tuple[int, int]], values: list[float]) -> None:
    assert shares_of_variance([dict(zip("ab", cell, strict=True)) for cell in cells], values) == {}


def bars(figure: Figure) -> dict[str, float]:
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(names, [float(text.get_text()) for text in axes.texts], strict=True))


@pytest.mark.parametrize("direction", ["max", "min"])
def test_figures_keep_direction_names_and_one_word_for_jobs(draw: Draw, direction: str) -> None:
    sign = 1 if direction == "max" else -1
    scores = [0.5, 0.8, 0.7, 0.6, 0.9, 0.4]
    trials = grid(lambda model, rate: sign * scores[3 * model + rate])
    figures = draw([*trials[:3], trial({}), *trials[3:]], direction)
    assert list(figures) == ["history", "parallel_coordinates", "slice", "importance"]
    history, parallel = figures["history"].axes[0], figures["parallel_coordinates"].axes[0]
    (best,) = history.lines
    np.testing.assert_allclose(
        np.asarray(best.get_xydata()),
        np.transpose([range(7), np.array([0.5, 0.8, 0.8, 0.8, 0.8, 0.9, 0.9]) * sign]),
    )
    assert [label.get_text() for label in parallel.get_xticklabels()] == ["score", "model", LONG]
    (lines,) = [each for each in parallel.collections if isinstance(each, LineCollection)]
    colors = lines.to_rgba(np.array([sign * 0.4, sign * 0.9]))[:, :3].sum(axis=1)
    assert colors[1] < 1 < colors[0]  # the best jobs are dark
    texts = {text.get_text() for figure in figures.values() for text in figure.findobj(Text)}
    assert {"job", "best job"} <= texts
    assert not [text for text in texts if "Trial" in text or "Objective" in text]


def test_importance_is_the_share_of_the_variance(draw: Draw) -> None:
    """Values whose shares are known: the learning rate moves the score 10 times as far as the model does."""
    model, rate = np.var([0.0, 0.1]), np.var([0.0, 1.0, 2.0])
    exact = bars(draw(grid(lambda *cell: 0.1 * cell[0] + cell[1]), "max")["importance"])
    assert exact == pytest.approx({"model": model / (model + rate), LONG: rate / (model + rate)}, abs=5e-4)
    figure = draw(grid(lambda *cell: 0.1 * cell[0] + cell[1])[:5], "max")["importance"]
    assert figure.axes[0].get_title() == "share of the variance of score, estimated by fANOVA"
    assert bars(figure)[LONG] > 0.9


def test_importance_of_drawn_combinations_is_estimated(draw: Draw) -> None:
    rng = np.random.default_rng(0)
    ranges = {"a": FloatDistribution(0, 1), "b": FloatDistribution(0, 1)}
    points = rng.random((60, 2))
    trials = [trial({"a": a, "b": b}, a + 0.1 * b, **ranges) for a, b in points.tolist()]
    assert bars(draw(trials, "max")["importance"])["a"] == pytest.approx(1 / 1.01, abs=0.05)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5]])
def test_few_or_equal_results_have_no_importance(draw: Draw, values: list[float]) -> None:
    trials = [trial({"model": SPACE["model"][number]}, value) for number, value in enumerate(values)]
    assert "importance" not in draw(trials, "max")


def test_files_of_jobs_are_linked_under_valid_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = {0: "a=../../x/y", 1: "b=" + "é" * 300, 2: "equal run without files", 3: "$(x) `y` <b> = + @"}
    plan = cast("Plan", SimpleNamespace(name=lambda number, _, repeat: f"#{number} {names[repeat]}"))
    jobs = {number: trial({}, 0.5) for number in names}
    for number, job in jobs.items():
        job.set_user_attr("repeat", number)
        if number != 2:
            (tmp_path / str(number) / "tensorboard").mkdir(parents=True)
    for _ in range(2):  # also when links exist
        _link_boards(tmp_path, jobs, plan)
    links = sorted((tmp_path / "tensorboard").iterdir())
    assert [link.name for link in links] == ["#0 a=.._.._x_y", "#1 b=" + "é" * 122, "#3 $(x) `y` <b> = + @"]
    assert [link.resolve() for link in links] == [tmp_path / str(number) / "tensorboard" for number in (0, 1, 3)]

    def fail(*_: object, **__: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", fail)
    links[0].unlink()
    _link_boards(tmp_path, jobs, plan)
    assert caplog.messages == ["TensorBoard's files of the jobs cannot be linked: Operation not permitted"]
