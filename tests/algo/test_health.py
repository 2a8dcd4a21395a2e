"""Dead-run detector: every planted failure is found in time, and healthy runs raise no alarm."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from lastr1.algo.health import Finding, health
from lastr1.config import HealthConfig, HealthSign

LIMITS = HealthConfig()
BEGIN = 30
"""healthy iterations before a planted failure"""


def healthy(seed, count=100):
    """Figures as real runs of the embedded world show them: levels, noise, bad first iterations."""
    draw = np.random.default_rng(seed)
    rows = []
    for step in range(count):
        first = step < 3  # no ramp: Adam's first steps are too long
        rows.append(
            {
                "step": step,
                "success": float(np.clip(0.45 + 0.003 * step + 0.05 * draw.normal(), 0, 1)),
                "success_task_0": float(draw.binomial(4, 0.8) / 4),
                # rarely played, and hard: it has never been solved
                **({"success_task_11": float(draw.random() < 0.05)} if step % 3 == 0 else {}),
                "advantage_std": float(0.3 * draw.lognormal(0, 0.2)),
                "grad_norm": float(25 * draw.lognormal(0, 0.25)),
                "last_ratio_max": float(1.07 + draw.lognormal(0, 1.5)),
                "action_entropy": float(3.3 - 0.002 * step + 0.04 * draw.normal()),
                "action_approx_kl": float((0.8 if first else 0.025) * draw.lognormal(0, 0.7)),
                "latent_spread": float(0.8 * draw.lognormal(0, 0.05)),
                "latent_rank": float(5 * draw.lognormal(0, 0.15)),
                "explained_variance": 0.0005 if first else float(0.05 + 0.07 * draw.normal()),
                "groups_std": float(1.1 + 0.03 * draw.normal()),
                "lost_share": 1 / 65 if draw.random() < 0.05 else 0.0,
                "recorded_gap": float(5e-5 * draw.random()),
            }
        )
    return rows


@pytest.mark.parametrize("seed", range(10))
def test_healthy_runs_raise_no_alarm(seed):
    rows = healthy(seed)
    assert [health(rows[:n], LIMITS) for n in range(1, len(rows) + 1)] == [[]] * len(rows)


# name, figure, its value from then on, iterations until found: over half a window where its median counts
PLANTED = [
    ("no_success", "success", 0.0, 10),
    ("no_advantage", "advantage_std", 0.0, 6),
    ("no_gradient", "grad_norm", 0.0, 6),
    ("still_ratios", "last_ratio_max", 1.00005, 6),
    ("low_entropy", "action_entropy", 0.5, 6),
    ("high_entropy", "action_entropy", 4.6, 6),
    ("high_kl", "action_approx_kl", 0.2, 6),
    ("same_latents", "latent_spread", 0.015, 6),
    ("flat_latents", "latent_rank", 1.05, 6),
    ("blind_value", "explained_variance", -0.1, 10),
    ("fixed_stop", "groups_std", 0.0, 6),
    ("lost_environments", "lost_share", 0.2, 6),
    ("mismatch", "recorded_gap", 0.3, 6),
    ("forgotten_task", "success_task_0", 0.0, 10),
]


@pytest.mark.parametrize(("name", "figure", "value", "within"), PLANTED)
def test_planted_failures_are_found_in_time(name, figure, value, within):
    rows = healthy(0)
    rows[BEGIN:] = [{**row, figure: value} for row in rows[BEGIN:]]
    found = [health(rows[: BEGIN + n], LIMITS) for n in range(1, 26)]
    first = next(n for n, findings in enumerate(found, 1) if findings)
    assert first <= within
    assert {f.name for findings in found for f in findings} == {name}
    expected = "note" if name in LIMITS.note else "warn"
    assert [f.level for f in found[first - 1]] == [expected]
    assert [f.level for f in found[-1]] == ["stop" if name in LIMITS.stop else expected]


def test_every_sign_is_planted():
    everything = tuple(name for name, *_ in PLANTED)
    assert sorted(everything) == sorted(get_args(HealthSign))
    rows = [{figure: value for _, figure, value, _ in PLANTED}] * 20
    assert health(rows, replace(LIMITS, note=(), stop=(), off=everything)) == []


@pytest.mark.parametrize(
    ("name", "figure", "value"),
    [
        ("high_entropy", "action_entropy", 5.5),
        ("same_latents", "latent_spread", 1e-5),
        ("flat_latents", "latent_rank", 1.0),
        ("no_success", "success", 0.0),
    ],
)
def test_a_run_that_is_dead_from_the_start(name, figure, value):
    rows = [{**row, figure: value} for row in healthy(1, 10)]
    assert health(rows[:9], LIMITS) == []
    assert [f.name for f in health(rows, LIMITS)] == [name]


def test_no_success_says_what_is_wrong():
    (finding,) = health([{"success": 0.0}] * 10, LIMITS)
    text = "zero success for 10 iterations: nothing to learn from; the warm-up is too weak"
    assert finding == Finding(level="warn", name="no_success", text=text)
    assert health([{"success": 0.0}] * 9 + [{"success": 0.01}], LIMITS) == []


def test_a_forgotten_task_is_named():
    """Task 2, played every other iteration, was solved (mean of 0.4, 0.6, 0.6: 0.53); task 10 never was."""
    limits = replace(LIMITS, window=3)
    played = [0.4, 0.6, 0.6, 0.0, 0.0, 0.0]
    rows = [{"success_task_10": 0.4 * (i < 3), "success_task_2": x} for i, x in enumerate(played)]
    rows = [row for pair in rows for row in (pair, {"success_task_10": pair["success_task_10"]})]
    assert health(rows[:10], limits) == []
    (finding,) = health(rows, limits)
    text = "no success for 3 iterations on what had been solved: task 2 (53% at best)"
    assert finding == Finding(level="note", name="forgotten_task", text=text)
    assert health([*rows, {"success_task_2": 0.1}], limits) == []
    assert health(rows, limits, since=8) == []  # played twice since the run was resumed


def test_the_end_comes_after_two_windows_and_after_a_warning():
    limits = replace(LIMITS, stop=("no_success",), window=3)
    levels = [[f.level for f in health([{"success": 0.0}] * n, limits)] for n in range(1, 8)]
    assert levels == [[], [], ["warn"], ["warn"], ["warn"], ["stop"], ["stop"]]


def test_a_resumed_run_gets_whole_windows_and_keeps_its_beginning():
    limits = replace(LIMITS, stop=("low_entropy",), window=3)
    rows = [{"action_entropy": 3.0}] * 3 + [{"action_entropy": 0.3}] * 8
    assert [f.level for f in health(rows, limits)] == ["stop"]
    assert health(rows, limits, since=9) == []
    assert [f.level for f in health(rows, limits, since=8)] == ["warn"]


def test_levels_follow_the_config():
    rows = [{"success": 0.0}] * 20
    assert [f.level for f in health(rows, replace(LIMITS, note=("no_success",)))] == ["note"]
    assert health(rows, replace(LIMITS, off=("no_success",))) == []
    with pytest.raises(ValueError, match="no_success stands in more than one"):
        replace(LIMITS, stop=("no_success",), note=("no_success",))


def test_a_figure_that_is_missing_says_nothing():
    assert health([{"loss": 1.0}] * 30, LIMITS) == []
    assert health([{"grad_norm": 0.0}] * 29 + [{"loss": 1.0}], LIMITS) == []
