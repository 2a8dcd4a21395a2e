"""Success rates, their intervals, and which starts are played."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lastr1.config import Config, EnvConfig, EvaluateConfig
from lastr1.envs.base import Setup, Start
from lastr1.rollout.batch import Episode, Step
from lastr1.train import team
from lastr1.train.evaluate import (
    Assessment,
    Coverage,
    Tally,
    coverage,
    evaluate,
    remarks,
    starts_of,
    stop_rules,
    summarize,
    table,
    wilson,
)


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
    tasks: tuple[str, ...] = ("touch it", "push it", "lift it")


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
        "decisions": 2,
        "latents": pytest.approx(np.mean(latents[:2])),
        "seconds": 1.25,
        "lost": 0,
    }


def test_tasks_that_share_an_instruction_are_counted_apart(tiny, episodes):
    player = _Player(tiny())
    player.pool = _Pool()
    player.pool.tasks = ("touch it", "push it", "touch it")
    result = summarize(episodes[0], player)
    assert {name: tally.successes for name, tally in result.tasks.items()} == {
        "touch it (task 0)": 1,
        "touch it (task 2)": 0,
    }


def test_table(tiny, episodes):
    lines = table(summarize(episodes[0], _Player(tiny()))).splitlines()
    assert [line.split("  ")[0].strip() for line in lines[:3]] == ["touch it", "lift it", "all tasks"]
    assert lines[0].endswith("1/1    100.0%  95% [20.7, 100.0]")
    assert "50.0%  95% [9.5, 90.5]" in lines[2]
    assert lines[3].endswith("mean episode 6 control steps")


def test_exact_coverage():
    """All 500 of 10 tasks x 50 states once; a repeated, a missing or a fresh one is not all."""
    starts = starts_of(EnvConfig(), EvaluateConfig(), tasks=10, stored=50, seed=0)
    assert coverage(starts, 10, 50) == Coverage(episodes=500, distinct=500, stored=500, complete=True)
    twice = [*starts[:-1], starts[0]]
    assert coverage(twice, 10, 50) == Coverage(episodes=500, distinct=499, stored=500, complete=False)
    assert coverage(starts[:-1], 10, 50) == Coverage(episodes=499, distinct=499, stored=500, complete=False)
    assert not coverage([*starts, starts[0]], 10, 50).complete
    fresh = [Start(task=i % 10, seed=i) for i in range(500)]
    assert coverage(fresh, 10, 50) == Coverage(episodes=500, distinct=0, stored=500, complete=False)


def with_rules(episode, *pairs):
    """The episode with other recorded (first, mode) groups."""
    steps = tuple(
        replace(step, decided=replace(step.decided, rules=torch.tensor(pair)))
        for step, pair in zip(episode.steps, pairs, strict=True)
    )
    return replace(episode, steps=steps)


def test_both_stop_rules_by_hand(episodes):
    """(1,1) (1,3) | (2,2) (4,0): the last is not known by `mode`; of the other three, two agree.  G = 2."""
    (one, two), _ = episodes
    found = stop_rules([with_rules(one, (1, 1), (1, 3)), with_rules(two, (2, 2), (4, 0))], "first", 2)
    assert (found.played, found.compared) == ("first", 3)
    assert found.first == {2: 2, 4: 1}
    assert found.mode == {2: 1, 4: 1, 6: 1}
    assert found.agreement == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("asked", "likelihood", "noted"),
    [(True, "consistent", True), (True, "released", False), (False, "consistent", False)],
)
def test_both_rules_are_noted_where_they_may_differ(
    tiny, observations, monkeypatch, asked, likelihood, noted
):
    """Unless the recipe says otherwise; a policy with the `released` stop keeps its early exits."""
    bundle = tiny(stop_likelihood=likelihood, eval_stop="first")
    monkeypatch.setattr(team.run, "load_policy", lambda *_: bundle)
    config = Config(name="toy", evaluate=EvaluateConfig(both_rules=asked))
    policy = team._load(config, Path("last"), bundle.spec, training=False).policy
    rules = policy.decide(bundle.prompts.build(observations(2))).rules
    assert bool((rules > 0).all()) == bool((rules > 0).any()) == noted
    assert (policy.config.schedule == "speculative") != noted


def test_rules_that_were_not_recorded_are_not_counted(episodes):
    found = stop_rules(episodes[0], "mode", 2)  # sampled decisions
    assert (found.first, found.mode, found.compared, found.agreement) == ({}, {}, 0, 0.0)


SETUP = Setup(
    suite="toy", cap=6, settle=2, camera="front", image=9, render="full", renderer="egl: soft",
    patches=("one object 3 m higher",), packages={"mujoco": "3"},
)  # fmt: skip


class _Recorded(_Player):
    """Has played already."""

    def __init__(self, bundle, episodes):
        super().__init__(bundle)
        self.pool = _Pool()
        self.pool.stored_states, self.pool.setup = 5, SETUP
        self.episodes = episodes

    def play(self, starts, *, noise, most, progress):
        assert noise is None
        self.most = most
        for episode in self.episodes:
            progress(episode)
        return self.episodes


def test_assessment_says_what_was_played_and_how(tiny, episodes):
    played = [with_rules(e, (1, 1), (1, 3)) for e in episodes[0]]
    player = _Recorded(tiny(eval_stop="first"), [replace(played[0], lost=3), played[1]])
    starts = [e.start for e in player.episodes]
    found = evaluate(player, starts)
    assert isinstance(found, Assessment)
    assert found.setup == SETUP
    assert found.coverage == Coverage(episodes=2, distinct=2, stored=15, complete=False)
    text = remarks(found)
    for part in (
        "first mean 2.00 latents (2: 100%)", "mode  mean 4.00 latents (2: 50%, 6: 50%)",
        "alike in 50.0% of 4 decisions", "report this policy by `mode`",
        "2 of 15 stored initial states, not all",
        "3 times an episode lost its simulator and was begun anew",
        "toy: cap 6, 2 settling steps, 9 px, drawn full by egl: soft; PATCHED: one object 3 m higher",
    ):  # fmt: skip
        assert part in text
    with pytest.raises(RuntimeError, match="other ones played"):
        evaluate(player, starts[::-1])
