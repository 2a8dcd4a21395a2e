import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lastr1.report import plots
from lastr1.report.figure import NARROW_DARK
from lastr1.train.evaluate import Capped, Evaluation, Tally


def evaluation(successes: int, latents: dict[int, int]) -> Evaluation:
    return Evaluation(
        total=Tally.of([k < successes for k in range(10)]),
        tasks={},
        mean_latents=4.0,
        latents=latents,
        control_steps=20.0,
        rows=(),
    )


BEFORE, AFTER = evaluation(2, {4: 1, 8: 3}), evaluation(10, {2: 5, 4: 5})
ROWS = [
    {"step": k, "episodes": n, "success": s, "action_loss": 0.1 * k, "value_clipped": 0.0}
    | {"action_approx_kl": 0.0, "explained_variance": math.nan, "collect_seconds": 3.0, "update_seconds": 1.0}
    for k, (n, s) in enumerate([(8, 0.25), (8, 0.5), (16, 0.75)])
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    figures: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    return figures


def test_smoothing_by_hand() -> None:
    # Neighbours at distance 1 weigh e^-1/2 each; the second value has twice the episodes.
    e = math.exp(-0.5)
    found = plots.smooth(np.array([0.0, 1.0]), np.array([1.0, 2.0]), 1.0)
    np.testing.assert_allclose(found, [2 * e / (1 + 2 * e), 2 / (2 + e)], atol=1e-12)


def test_smoothing_skips_what_was_not_measured() -> None:
    found = plots.smooth(np.array([0.5, np.nan, 0.5]), np.ones(3), 1.0)
    np.testing.assert_allclose(found, [0.5, 0.5, 0.5], atol=1e-12)


def test_a_repeated_iteration_counts_once_and_the_later_row_wins() -> None:
    rows = [{"step": 0.0, "x": 1.0}, {"step": 1.0, "x": 2.0}, {"step": 1.0, "x": 3.0}]
    assert plots.history(rows) == [{"step": 0.0, "x": 1.0}, {"step": 1.0, "x": 3.0}]


def test_phases_are_summed_over_the_run() -> None:
    assert plots.phase_seconds(ROWS) == {"collect": 9.0, "update": 3.0}


def test_success_stands_where_its_episodes_began(drawn: list[Any]) -> None:
    plots.learning_curve(ROWS, BEFORE, AFTER, Path("x.png"))
    (axes,) = drawn[0].axes
    raw = axes.lines[0]
    assert raw.get_xdata().tolist() == [0, 8, 16]
    assert raw.get_ydata().tolist() == [0.25, 0.5, 0.75]
    ends = [(box.lines[0].get_xdata().tolist(), box.lines[0].get_ydata().tolist()) for box in axes.containers]
    assert ends == [([0.0], [0.2]), ([32.0], [1.0])]
    # Wilson, 2 of 10: centre (0.2 + 0.384146 / 2) / 1.384146 = 0.28326, half 0.22659
    low, high = axes.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == (pytest.approx(0.05668, abs=1e-4), pytest.approx(0.50984, abs=1e-4))


def test_thought_lengths_are_shares_of_each_policy(drawn: list[Any]) -> None:
    plots.thought_lengths(BEFORE, AFTER, Path("x.png"))
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "4", "8"]
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights == [[0.0, 0.25, 0.75], [0.5, 0.5, 0.0]]


def test_success_stands_at_the_mean_length_of_its_cap(drawn: list[Any]) -> None:
    points = [
        Capped(cap=cap, total=Tally.of([k < n for k in range(10)]), mean_latents=m, control_steps=9.0)
        for cap, n, m in ((1, 2, 2.0), (4, 10, 3.5))
    ]
    plots.success_against_thinking(points, Path("x.png"))
    (axes,) = drawn[0].axes
    line, _, (whiskers,) = axes.containers[0].lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([2.0, 3.5], [0.2, 1.0])
    # the interval of 2 of 10 as above; 10 of 10: 10 / (10 + 3.841459) = 0.72247 to 1
    found = [segment[:, 1].tolist() for segment in whiskers.get_segments()]
    assert found == [pytest.approx(ends, abs=1e-4) for ends in ([0.05668, 0.50984], [0.72247, 1.0])]
    assert [text.get_text() for text in axes.texts] == ["1", "4"]


def test_losses_leave_out_what_was_not_measured(drawn: list[Any]) -> None:
    plots.losses(ROWS, Path("x.png"))
    titles = [axes.get_title(loc="left") for axes in drawn[0].axes if axes.axison]
    assert len(titles) == 4
    assert not any("Entropy" in title for title in titles)


@pytest.mark.parametrize("rows", [ROWS[:1], []])
def test_short_runs_are_drawn(tmp_path: Path, rows: list[dict[str, float]]) -> None:
    plots.learning_curve(rows, None, AFTER, tmp_path / "curve.png", NARROW_DARK)
    if rows:
        plots.phases(rows, tmp_path / "phases.png", NARROW_DARK)
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert image.width == 720


def test_the_same_input_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        plots.thought_lengths(BEFORE, None, tmp_path / "new" / f"{name}.png")
    assert (tmp_path / "new" / "a.png").read_bytes() == (tmp_path / "new" / "b.png").read_bytes()
