"""One iteration of LAPO from a rollout to minibatches: advantages by hand, starts, budgets."""

import time

import pytest
import torch

from lastr1.algo.lapo import PolicyTerms
from lastr1.config import Config, EnvConfig, LapoConfig, ReinforceConfig, ThinkingConfig
from lastr1.envs.base import Start
from lastr1.rollout.batch import Episode, Step, make_rollout, tree_map
from lastr1.train.figures import explained_variance, rollout_figures
from lastr1.train.price import LatentPrice
from lastr1.train.reinforce import (
    TaskSuccess,
    improve,
    reinforce,
    training_starts,
)

FREE = LatentPrice(ThinkingConfig())


class FakeLearner:
    """Scores every decision with the value written for its instruction, and keeps the minibatches."""

    def __init__(self, values):
        self.values, self.batches, self.value_only = values, [], []

    def rescore(self, decisions):
        value = torch.tensor([self.values[text] for text in decisions.instructions])
        return tree_map(lambda x: x + 0.25, self._terms(decisions.terms, value))

    def _terms(self, terms, value):
        return PolicyTerms(
            token_logp=terms.token_logp,
            stop_logp=terms.stop_logp,
            latent=terms.latent,
            latent_used=terms.latent_used,
            value=value - 0.25,
        )

    def update(self, batch, *, value_only=False):
        self.batches.append(batch)
        self.value_only.append(value_only)
        return {"action_ratio_max": float(len(self.batches)), "loss": 10.0 * len(self.batches)}


@pytest.fixture
def rollout(tiny, played):
    """a1, a2: success; b1, b2, b3: truncated, seen once more as b4."""
    names = ("a1", "a2", "b1", "b2", "b3", "b4")
    rows = [
        type(row)(**{**vars(row), "instruction": name})
        for row, name in zip(played(tiny(), 6), names, strict=True)
    ]

    def episode(rows, success, after=None):
        steps = tuple(Step(decided=row, reward=float(success and row is rows[-1]), steps=3) for row in rows)
        return Episode(start=Start(task=0), steps=steps, success=success, after=after, seconds=1.0, version=0)

    return make_rollout([episode(rows[:2], True), episode(rows[2:5], False, rows[5])])


VALUES = {"a1": 1.0, "a2": 3.0, "b1": 2.0, "b2": 1.0, "b3": 0.0, "b4": 4.0}
# Reward of a success 5, gamma 0.5, lambda 0.5 (product 0.25).
# a2: delta 5 - 3 = 2.              a1: delta 0.5 * 3 - 1 = 0.5;  advantage 0.5 + 0.25 * 2 = 1.
# b3: delta 0.5 * 4 - 0 = 2.        b2: delta 0.5 * 0 - 1 = -1;   advantage -1 + 0.25 * 2 = -0.5.
# b1: delta 0.5 * 1 - 2 = -1.5;     advantage -1.5 + 0.25 * -0.5 = -1.625.   Target: advantage + value.
ADVANTAGE = {"a1": 1.0, "a2": 2.0, "b1": -1.625, "b2": -0.5, "b3": 2.0}
TARGET = {"a1": 2.0, "a2": 5.0, "b1": 0.375, "b2": 0.5, "b3": 2.0}


def config(*, minibatches=2, epochs=1, value_only=0, **lapo):
    return Config(
        name="test",
        lapo=LapoConfig(**{"reward_scale": 5.0, "discount": 0.5, "trace": 0.5, "whiten": False, **lapo}),
        reinforce=ReinforceConfig(
            episodes=2, minibatches=minibatches, epochs=epochs, value_only_iterations=value_only
        ),
    )


def seen(batches, field):
    """Instruction -> what the learner was given for it."""
    return {
        name: value
        for batch in batches
        for name, value in zip(batch.decisions.instructions, getattr(batch, field).tolist(), strict=True)
    }


def test_advantages_and_targets_by_hand(rollout):
    learner = FakeLearner(VALUES)
    improve(learner, rollout, config(), 0)
    assert seen(learner.batches, "advantage") == pytest.approx(ADVANTAGE)
    assert seen(learner.batches, "target") == pytest.approx(TARGET)
    assert seen(learner.batches, "weight") == pytest.approx(
        {"a1": 1 / 2, "a2": 1 / 2, "b1": 1 / 3, "b2": 1 / 3, "b3": 1 / 3}
    )


def test_without_bootstrap_the_cap_is_a_failure(rollout):
    """b3: delta 0 - 0 = 0; b2: -1; b1: -1.5 - 0.25 = -1.75."""
    learner = FakeLearner(VALUES)
    improve(learner, rollout, config(on_truncation="zero"), 0)
    assert seen(learner.batches, "advantage") == pytest.approx(
        {"a1": 1.0, "a2": 2.0, "b1": -1.75, "b2": -1.0, "b3": 0.0}
    )


def test_whitened_over_the_whole_rollout(rollout):
    """Mean of the five (not of each minibatch) 0.575, unbiased variance 2.52969."""
    learner = FakeLearner(VALUES)
    improve(learner, rollout, config(whiten=True), 0)
    given = seen(learner.batches, "advantage")
    raw = torch.tensor(list(ADVANTAGE.values()))
    assert raw.mean().item() == pytest.approx(0.575)
    expected = ((raw - raw.mean()) / raw.std()).tolist()
    assert given == pytest.approx(dict(zip(ADVANTAGE, expected, strict=True)), abs=1e-5)


def test_one_minibatch_holds_everything_in_order(rollout):
    learner = FakeLearner(VALUES)
    improve(learner, rollout, config(minibatches=1, epochs=3), 0)
    assert [b.decisions.instructions for b in learner.batches] == [["a1", "a2", "b1", "b2", "b3"]] * 3
    assert learner.batches[0].weight.tolist() == pytest.approx([0.2] * 5)
    assert learner.batches[0].old.value.tolist() == [1.0, 3.0, 2.0, 1.0, 0.0]


def test_per_episode_average(rollout):
    learner = FakeLearner(VALUES)
    improve(learner, rollout, config(minibatches=1, average="episode"), 0)
    assert learner.batches[0].weight.tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 6, 1 / 6, 1 / 6])


def test_minibatches_are_episodes_and_their_order_follows_the_iteration(rollout):
    def order(iteration):
        learner = FakeLearner(VALUES)
        improve(learner, rollout, config(epochs=4), iteration)
        return ["".join(b.decisions.instructions) for b in learner.batches]

    found = order(0)
    assert sorted(found) == ["a1a2"] * 4 + ["b1b2b3"] * 4
    assert all(set(found[i : i + 2]) == {"a1a2", "b1b2b3"} for i in range(0, 8, 2))
    assert order(0) == found
    assert len({tuple(order(i)) for i in range(6)}) > 1


def test_first_iterations_may_train_the_critic_alone(rollout):
    learner = FakeLearner(VALUES)
    for iteration in range(3):
        improve(learner, rollout, config(value_only=2), iteration)
    assert learner.value_only == [True] * 4 + [False] * 2


def test_figures_of_an_update(rollout):
    """Means over the optimizer steps; the ratio of the first; rescored - recorded: 12 tokens, 0.25 each."""
    figures = improve(FakeLearner(VALUES), rollout, config(epochs=2), 0)
    assert figures["loss"] == pytest.approx((10 + 20 + 30 + 40) / 4)
    assert figures["first_ratio_max"] == 1.0
    assert figures["recorded_gap"] == pytest.approx(12 * 0.25, abs=1e-5)
    errors = torch.tensor(list(ADVANTAGE.values()))
    targets = torch.tensor(list(TARGET.values()))
    assert figures["explained_variance"] == pytest.approx(float(1 - errors.var() / targets.var()), abs=1e-5)


def test_explained_variance_by_hand():
    target = torch.tensor([0.0, 2.0, 4.0])
    assert explained_variance(target.clone(), target) == 1.0
    assert explained_variance(torch.full((3,), 7.0), target) == pytest.approx(0.0)
    # errors 0, 1, 2: variance 1 against 4
    assert explained_variance(torch.tensor([0.0, 1.0, 2.0]), target) == pytest.approx(0.75)


def test_figures_of_a_rollout(rollout):
    figures = rollout_figures(rollout)
    by_task = {
        task: sum(e.success for e in rollout.episodes if e.start.task == task)
        / sum(e.start.task == task for e in rollout.episodes)
        for task in {e.start.task for e in rollout.episodes}
    }
    groups = rollout.decisions.thought.groups.float().mean().item()
    assert figures == {
        "success": 0.5,
        "episodes": 2,
        "decisions": 5,
        "control_steps": 15,
        "mean_groups": pytest.approx(groups),
        "lost_share": 0.0,
        "latent_spread": pytest.approx(figures["latent_spread"]),
        "latent_rank": pytest.approx(figures["latent_rank"]),
        **{f"success_task_{task}": found for task, found in by_task.items()},
    }


class _Pool:
    tasks, stored_states = ("a", "b", "c", "d"), 3


class _Player:
    pool = _Pool()


def starts(iteration, *, tasks=None, states="fresh", episodes=6, seed=0):
    job = ReinforceConfig(episodes=episodes, train_states=states)
    return training_starts(
        Config(name="t", seed=seed, env=EnvConfig(tasks=tasks), reinforce=job), _Player(), iteration
    )


def test_fresh_starts_take_the_tasks_in_turn_and_never_repeat_a_scene():
    first, second = starts(0), starts(1)
    assert [s.task for s in first] == [0, 1, 2, 3, 0, 1]
    assert all(s.state is None for s in first)
    assert len({s.seed for s in first + second}) == 12
    assert starts(0) == first
    assert not {s.seed for s in starts(0, seed=1)} & {s.seed for s in first}
    assert [s.task for s in starts(0, tasks=(3, 1))] == [3, 1, 3, 1, 3, 1]


def test_tasks_that_fail_are_played_more_often():
    """Rates after one iteration: 0.2 x (1, 0.5, 0, -) = 0.2, 0.1, 0, 0; failing 0.8, 0.9, 1, 1 of 3.7."""
    success = TaskSuccess((0, 1, 2, 5))
    assert success.choose(8) == [0, 0, 1, 1, 2, 2, 5, 5]
    success.note({"success_task_0": 1.0, "success_task_1": 0.5, "success_task_2": 0.0})
    assert success.rate == pytest.approx({0: 0.2, 1: 0.1, 2: 0.0, 5: 0.0})
    counts = [success.choose(370).count(task) for task in (0, 1, 2, 5)]
    assert counts == [80, 90, 100, 100]
    for _ in range(60):
        success.note({f"success_task_{task}": 1.0 for task in (0, 1, 2)})
    assert [success.choose(115).count(task) for task in (0, 1, 2, 5)] == [5, 5, 5, 100]


def test_the_choice_of_tasks_changes_no_scene():
    job = ReinforceConfig(episodes=6, task_choice="failures")
    success = TaskSuccess(range(4))
    for _ in range(60):
        success.note({f"success_task_{task}": 1.0 for task in range(3)})
    found = training_starts(Config(name="t", reinforce=job), _Player(), 0, success)
    assert [s.seed for s in found] == [s.seed for s in starts(0)]
    assert [s.task for s in found].count(3) == 5


def test_benchmark_starts_are_drawn_without_replacement_from_two_passes():
    """4 tasks x 3 states, twice: 24 starts, each at most twice."""
    everything = starts(5, states="benchmark", episodes=24)
    pairs = [(s.task, s.state) for s in everything]
    assert sorted(pairs) == sorted([(task, state) for task in range(4) for state in range(3)] * 2)
    assert starts(5, states="benchmark", episodes=7) == everything[:7]
    assert starts(6, states="benchmark", episodes=24) != everything


class _Fleet:
    def __init__(self, rollout, log, pause=0.0):
        self.rollout, self.log, self.pause = rollout, log, pause

    def collect(self, iteration):
        self.log.append(("collect", iteration))
        time.sleep(self.pause)
        return self.rollout

    def update(self, rollout, iteration):
        self.log.append(("update", iteration))
        return {"loss": 1.0}

    def publish(self):
        self.log.append(("publish",))


def test_the_loop(rollout):
    log = []
    job = ReinforceConfig(iterations=4)
    found = list(reinforce(_Fleet(rollout, log), job, 2, float("inf"), FREE))
    assert log == [step for i in (2, 3) for step in (("collect", i), ("update", i), ("publish",))]
    assert [iteration for iteration, _ in found] == [2, 3]
    assert found[0][1]["loss"] == 1.0
    assert found[0][1]["success"] == 0.5


def test_no_iteration_begins_after_the_deadline(rollout):
    log = []
    fleet = _Fleet(rollout, log, pause=0.01)
    found = list(reinforce(fleet, ReinforceConfig(iterations=10), 0, time.perf_counter() + 0.005, FREE))
    assert len(found) <= 1
    assert not list(reinforce(fleet, ReinforceConfig(iterations=10), 0, time.perf_counter() - 1, FREE))
