"""Success rates, their intervals, and which starts are played."""

import numpy as np
import pytest

from lastr1.config import EnvConfig, EvaluateConfig
from lastr1.envs.base import Start
from lastr1.rollout.batch import Episode, Step
from lastr1.train.evaluate import Tally, starts_of, summarize, table, wilson


def percent(successes, episodes):
    return [round(100 * x, 1) for x in wilson(successes, episodes)]


def test_wilson_by_hand():
    """z = 1.959964, z^2 = 3.841459.  500 of 500: low = 500 / (500 + z^2) = 0.992376.

    499 of 500, p = 0.998, z^2/n = 0.00768292: middle (0.998 + 0.00384146) / 1.00768292 = 0.994203; half
    z / 1.00768292 * sqrt(0.998 * 0.002 / 500 + 0.00768292 / 2000) = 1.945021 * 0.00279884 = 0.005444.
    """
    assert percent(500, 500) == [99.2, 100.0]
    assert percent(499, 500) == [98.9, 100.0]
    low, high = wilson(499, 500)
    assert (low, high) == pytest.approx((0.988759, 0.999647), abs=1e-6)
    assert wilson(500, 500)[0] == pytest.approx(500 / 503.841459, abs=1e-7)


def test_wilson_properties():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(1, 2) == pytest.approx([0.5 - 0.405469, 0.5 + 0.405469], abs=1e-5)
    for successes in range(11):
        low, high = wilson(successes, 10)
        other = wilson(10 - successes, 10)
        assert 0 <= low <= successes / 10 <= high + 1e-12 <= 1 + 1e-12
        assert (low, high) == pytest.approx((1 - other[1], 1 - other[0]))


def test_every_stored_state_of_every_task_once():
    starts = starts_of(EnvConfig(), EvaluateConfig(), tasks=4, stored=50, seed=0)
    assert len(starts) == 200
    assert {(s.task, s.state) for s in starts} == {(task, state) for task in range(4) for state in range(50)}
    assert starts_of(EnvConfig(), EvaluateConfig(), tasks=4, stored=50, seed=9) == starts


def test_fewer_episodes_spread_over_the_tasks():
    config = EvaluateConfig(episodes=6)
    starts = starts_of(EnvConfig(tasks=(0, 3, 5)), config, tasks=9, stored=50, seed=0)
    assert [(s.task, s.state) for s in starts] == [(0, 0), (3, 0), (5, 0), (0, 1), (3, 1), (5, 1)]


@pytest.mark.parametrize("stored", [0, 50])
def test_fresh_scenes(stored):
    """Asked for, or because nothing is stored."""
    config = EvaluateConfig(episodes=5, states="fresh" if stored else "stored")
    starts = starts_of(EnvConfig(tasks=(2, 1)), config, tasks=4, stored=stored, seed=3)
    assert [(s.task, s.state) for s in starts] == [(2, None), (1, None), (2, None), (1, None), (2, None)]
    assert len({s.seed for s in starts}) == 5
    other = starts_of(EnvConfig(tasks=(2, 1)), config, tasks=4, stored=stored, seed=4)
    assert not {s.seed for s in starts} & {s.seed for s in other}


def test_fresh_scenes_are_fifty_per_task_unless_said_otherwise():
    config = EvaluateConfig(states="fresh")
    assert len(starts_of(EnvConfig(), config, tasks=3, stored=50, seed=0)) == 150


class _Pool:
    tasks = ("touch it", "push it", "lift it")


class _Player:
    pool = _Pool()

    def __init__(self, bundle):
        self.bundle = bundle


@pytest.fixture
def episodes(tiny, played):
    """Task 0 solved in 3 + 2 control steps, task 2 not in 3 + 3; of which thought is told by `groups`."""
    rows = played(tiny(), 4)

    def episode(task, rows, steps, success):
        return Episode(
            start=Start(task=task, state=4),
            steps=tuple(
                Step(decided=d, reward=float(success), steps=n) for d, n in zip(rows, steps, strict=True)
            ),
            success=success,
            after=None if success else rows[0],
            seconds=1.25,
            version=0,
        )

    return [episode(0, rows[:2], (3, 2), True), episode(2, rows[2:], (3, 3), False)], rows


def test_summary_of_two_episodes(tiny, episodes):
    found, rows = episodes
    result = summarize(found, _Player(tiny()))
    latents = [2 * int(row.thought.groups) for row in rows]  # G = 2
    assert result.total == Tally(successes=1, episodes=2, wilson95=wilson(1, 2))
    assert list(result.tasks) == ["touch it", "lift it"]
    assert [(t.successes, t.episodes) for t in result.tasks.values()] == [(1, 1), (0, 1)]
    assert result.mean_latents == pytest.approx(np.mean(latents))
    assert result.latents == {n: latents.count(n) for n in sorted(set(latents))}
    assert result.control_steps == pytest.approx(5.5)
    assert result.rows[0] == {
        "task": 0,
        "state": 4,
        "seed": 0,
        "success": True,
        "control_steps": 5,
        "latents": pytest.approx(np.mean(latents[:2])),
        "seconds": 1.25,
    }


def test_table(tiny, episodes):
    lines = table(summarize(episodes[0], _Player(tiny()))).splitlines()
    assert [line.split("  ")[0].strip() for line in lines[:3]] == ["touch it", "lift it", "all tasks"]
    assert lines[0].endswith("1/1    100.0%  95% [20.7, 100.0]")
    assert "50.0%  95% [9.5, 90.5]" in lines[2]
    assert lines[3].endswith("mean episode 6 control steps")
