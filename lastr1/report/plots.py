"""Curves, thought lengths, success with intervals: PNG files drawn without pyplot's global state.

Axes: I iterations.  `metrics` is what `read_metrics` returns: one row per iteration.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from lastr1.report.figure import DPI, LIGHT, Look, legend, new_figure, percent, save, tidy
from lastr1.report.pieces import rate
from lastr1.train.evaluate import Capped, Evaluation

Metrics: TypeAlias = Sequence[dict[str, float]]
Series: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One of the small multiples."""

    title: str
    names: tuple[str, ...]
    """metrics"""
    kind: Literal["linear", "log", "share"] = "linear"


PANELS = (
    Panel(title="Entropy of actions (nats per token)", names=("action_entropy",)),
    Panel(title="Entropy of the stop (nats)", names=("stop_entropy",)),
    Panel(title="Groups of latents per thought", names=("mean_groups",)),
    Panel(title="Price of a latent (successes)", names=("latent_price",)),
    Panel(
        title="Approximate KL to the old policy (nats)",
        names=("action_approx_kl", "stop_approx_kl", "latent_approx_kl"),
        kind="log",
    ),
    Panel(
        title="Decisions where the clip acts",
        names=("action_clipped", "stop_clipped", "latent_clipped", "value_clipped"),
        kind="share",
    ),
    Panel(title="Surrogate losses", names=("action_loss", "stop_loss", "latent_loss")),
    Panel(title="Value loss (squared reward)", names=("value_loss",)),
    Panel(title="Variance the critic explains (1: all)", names=("explained_variance",)),
    Panel(title="Gradient norm before clipping", names=("grad_norm",)),
)
FAMILIES = {
    "action": ("action_",),
    "stop": ("stop_",),
    "latent": ("latent_",),
    "value": ("value_", "explained_"),
}
"""what a line belongs to -> how its metric begins; one colour each in every panel"""


def history(metrics: Metrics) -> list[dict[str, float]]:
    """Rows in order, each step once: of a step that a resumed run played again, the later row counts."""
    rows = {int(row["step"]): row for row in metrics}
    return [rows[step] for step in sorted(rows)]


def series(rows: Metrics, name: str) -> Series:
    """One metric [I]; NaN where a row lacks it."""
    return np.array([({name: np.nan} | row)[name] for row in rows], dtype=np.float64)


def smooth(values: Series, weights: Series, width: float) -> Series:
    """Weighted mean [I] under a Gaussian window of standard deviation `width` iterations; skips NaN."""
    distance = np.subtract.outer(np.arange(len(values)), np.arange(len(values)))
    window = np.exp(-0.5 * (distance / width) ** 2) * np.where(np.isnan(values), 0.0, weights)
    total = window.sum(1)
    return (window @ np.nan_to_num(values)) / np.where(total > 0, total, np.nan)


def window_width(count: int) -> float:
    """Standard deviation of the smoothing window in iterations: a thirtieth of the run."""
    return max(1.0, count / 30)


def learning_curve(
    metrics: Metrics,
    before: Evaluation | None,
    after: Evaluation | None,
    path: Path,
    look: Look = LIGHT,
) -> None:
    """Success against the training episodes a policy has learned from, greedy evaluations at both ends.

    An iteration's success belongs to the policy that played it, so it stands where its episodes began.
    """
    figure, axes = new_figure(look, 3.2 if look.narrow else 4.0)
    rows = history(metrics)
    episodes = series(rows, "episodes")
    ends = np.cumsum(episodes)
    starts, total = ends - episodes, float(ends[-1]) if rows else 1.0
    if rows:
        success, width = series(rows, "success"), window_width(len(rows))
        axes.plot(starts, success, color=look.muted, lw=0.8, alpha=0.55, label="training episodes, sampled")
        label = f"the same, smoothed (Gaussian, {width:.1f} iterations)"
        axes.plot(starts, smooth(success, episodes, width), color=look.ink, lw=1.8, label=label)
        _iteration_axis(axes, rows, starts, look)
    for evaluation, x, name, colour, marker in (
        (before, 0.0, "warm-up", look.orange, "o"),
        (after, total, "final", look.blue, "D"),
    ):
        if evaluation is not None:
            _greedy_point(axes, evaluation, x, name, colour, marker)
    axes.set(xlim=(-0.03 * total, 1.03 * total), ylim=(-0.02, 1.04))
    axes.set_xlabel("training episodes played before", color=look.muted)
    axes.set_ylabel("success (share of episodes)", color=look.muted)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend(figure, look, columns=1 if look.narrow else 2)
    save(figure, path)


def thought_lengths(
    before: Evaluation | None, after: Evaluation | None, path: Path, look: Look = LIGHT
) -> None:
    """Share of greedy decisions per thought length, bars side by side for warm-up and final."""
    found = [
        (evaluation, name, colour)
        for evaluation, name, colour in ((before, "warm-up", look.orange), (after, "final", look.blue))
        if evaluation is not None
    ]
    lengths = sorted({length for evaluation, _, _ in found for length in evaluation.latents})
    figure, axes = new_figure(look, 2.9)
    width = 0.76 / len(found)
    for i, (evaluation, name, colour) in enumerate(found):
        counts = np.array([Counter(evaluation.latents)[k] for k in lengths])
        share = counts / max(1, counts.sum())
        place = np.arange(len(lengths)) + (i - (len(found) - 1) / 2) * width
        label = f"{name} (mean {evaluation.mean_latents:.1f}, {counts.sum():,} decisions)"
        bars = axes.bar(place, share, 0.94 * width, color=colour, label=label)
        texts = [percent(s) if c else "" for s, c in zip(share, counts, strict=True)]
        axes.bar_label(bars, texts, padding=2, fontsize=8, color=look.muted)
    axes.set_xticks(range(len(lengths)), [str(k) for k in lengths])
    axes.set_xlabel("latents in the thought", color=look.muted)
    axes.set_ylabel("share of decisions", color=look.muted)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.margins(y=0.12)
    legend(figure, look, columns=1 if look.narrow else 2)
    save(figure, path)


def success_against_thinking(points: Sequence[Capped], path: Path, look: Look = LIGHT) -> None:
    """Success with 95% intervals against the mean length of thoughts, a point per cap."""
    figure, axes = new_figure(look, 3.2)
    latents = [point.mean_latents for point in points]
    shares = np.array([rate(point.total) for point in points])
    ends = np.array([point.total.wilson95 for point in points]).T
    whiskers = np.maximum(0.0, [shares - ends[0], ends[1] - shares])
    axes.errorbar(
        latents,
        shares,
        yerr=whiskers,
        fmt="o-",
        ms=6,
        color=look.blue,
        lw=1.2,
        elinewidth=1.6,
        capsize=4,
        label="at most n groups per thought, n above each point; 95% Wilson intervals",
    )
    for x, high, point in zip(latents, ends[1], points, strict=True):
        place = {"textcoords": "offset points", "ha": "center", "fontsize": 8, "color": look.ink}
        axes.annotate(str(point.cap), (x, high), (0, 4), **place)
    axes.set(xlim=(0, 1.2 * max(latents)), ylim=(-0.02, 1.09))
    axes.set_xlabel("latents per decision, mean", color=look.muted)
    axes.set_ylabel(f"success (share of {points[-1].total.episodes} episodes)", color=look.muted)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    legend(figure, look, columns=1)
    save(figure, path)


def phases(metrics: Metrics, path: Path, look: Look = LIGHT) -> None:
    """Seconds of every iteration, stacked by phase: every metric that ends in `_seconds`."""
    rows = history(metrics)
    steps = series(rows, "step")
    edges = np.append(steps - 0.5, steps[-1] + 0.5)
    figure, axes = new_figure(look, 2.6)
    parts = phase_seconds(metrics)
    total, floor = sum(parts.values()), np.zeros(len(rows))
    # blue and orange mean final and warm-up elsewhere on the page
    colours = (look.green, look.purple, look.muted, look.blue, look.orange)
    for i, (name, seconds) in enumerate(parts.items()):
        top = floor + np.nan_to_num(series(rows, f"{name}_seconds"))
        label = f"{name}: {seconds / 60:.1f} min ({percent(seconds / max(total, 1e-9))})"
        axes.stairs(top, edges, baseline=floor, fill=True, color=colours[i % len(colours)], label=label)
        floor = top
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("iteration", color=look.muted)
    axes.set_ylabel("seconds", color=look.muted)
    legend(figure, look, columns=1 if look.narrow else 3)
    save(figure, path)


def phase_seconds(metrics: Metrics) -> dict[str, float]:
    """Phase -> seconds over the whole run, from the metrics that end in `_seconds`."""
    rows = history(metrics)
    names = dict.fromkeys(name for row in rows for name in row if name.endswith("_seconds"))
    return {name.removesuffix("_seconds"): float(np.nansum(series(rows, name))) for name in names}


def losses(metrics: Metrics, path: Path, look: Look = LIGHT) -> None:
    """Small multiples: entropies, KLs, clip shares, losses, explained variance, gradient norm."""
    rows = history(metrics)
    known = {name for row in rows for name in row}
    panels = [panel for panel in PANELS if known.intersection(panel.names)]
    columns = 1 if look.narrow else 3
    lines = max(1, -(-len(panels) // columns))
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.06)
    figure = Figure((look.width, 1.7 * lines + 0.4), dpi=DPI, layout=layout, facecolor=look.paper)
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, panel, rows, look)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    colours = _family_colours(look)
    shown = [f for f, starts in FAMILIES.items() if any(name.startswith(starts) for name in known)]
    figure.legend(
        [Line2D([], [], color=colours[f], lw=1.8) for f in shown],
        shown,
        loc="outside upper left",
        ncols=4,
        fontsize=8,
        frameon=False,
        labelcolor=look.ink,
    )
    figure.supxlabel("iteration", fontsize=8, color=look.muted)
    save(figure, path)


def _family_colours(look: Look) -> dict[str, str]:
    return dict(zip(FAMILIES, (look.blue, look.orange, look.green, look.purple), strict=True))


def _draw_panel(axes: Any, panel: Panel, rows: Metrics, look: Look) -> None:
    tidy(axes, look, size=7)
    axes.set_title(panel.title, fontsize=7.5, color=look.ink, loc="left")
    steps, colours = series(rows, "step"), _family_colours(look)
    for name in panel.names:
        family = next((f for f, starts in FAMILIES.items() if name.startswith(starts)), None)
        colour = look.ink if family is None else colours[family]
        axes.plot(steps, series(rows, name), color=colour, lw=1.1, marker="." if len(steps) == 1 else "")
    values = np.concatenate([series(rows, name) for name in panel.names])
    positive = values[np.isfinite(values) & (values > 0)]
    if panel.kind == "share":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylim(0, 1.08 * positive.max() if positive.size else 1)
    elif panel.kind == "log" and positive.size:
        axes.set_yscale("log")
        subs = (1, 2, 5) if positive.max() < 30 * positive.min() else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _greedy_point(axes: Any, evaluation: Evaluation, x: float, name: str, colour: str, marker: str) -> None:
    tally = evaluation.total
    share = rate(tally)
    low, high = tally.wilson95
    axes.errorbar(
        [x],
        [share],
        yerr=[[max(0.0, share - low)], [max(0.0, high - share)]],
        fmt=marker,
        ms=6,
        color=colour,
        elinewidth=1.8,
        capsize=4,
        capthick=1.8,
        zorder=5,
        clip_on=False,
        label=f"{name}, greedy: {percent(share)} ({100 * low:.0f}–{100 * high:.0f}%), n = {tally.episodes}",
    )


def _iteration_axis(axes: Any, rows: Metrics, starts: Series, look: Look) -> None:
    steps = series(rows, "step")
    ticks = [t for t in MaxNLocator(5, integer=True).tick_values(steps[0], steps[-1]) if t in steps]
    top = axes.secondary_xaxis("top")
    top.set_xticks([starts[int(np.searchsorted(steps, t))] for t in ticks], [f"{t:.0f}" for t in ticks])
    top.set_xlabel("iteration", fontsize=8, color=look.muted)
    top.tick_params(colors=look.muted, labelsize=8, length=0)
    top.spines["top"].set_visible(False)
