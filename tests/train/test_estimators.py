"""Advantages without a critic from a rollout to minibatches; figures of a run's health, by hand."""

import math
from dataclasses import replace

import pytest
import torch

from lastr1.config import Config, LapoConfig, ReinforceConfig
from lastr1.envs.base import Start
from lastr1.rollout.batch import Episode, Step, make_rollout
from lastr1.train.figures import latent_figures, rollout_figures
from lastr1.train.reinforce import improve, training_starts


class FakeLearner:
    """Keeps the minibatches; scores as recorded, half a nat apart."""

    def __init__(self):
        self.batches = []

    def rescore(self, decisions):
        logp = decisions.terms.token_logp
        return replace(decisions.terms, token_logp=logp + 0.5 / logp.shape[1])

    def update(self, batch, *, value_only=False):
        self.batches.append(batch)
        return {"action_ratio_max": 1.0 + len(self.batches)}


@pytest.fixture
def rollout(tiny, played):
    """Two starts of three episodes (decisions): success (1), failure (1), failure (2); success (1) thrice."""
    rows = iter(type(row)(**{**vars(row), "instruction": str(i)}) for i, row in enumerate(played(tiny(), 7)))

    def episode(success, count, lost=0):
        found = [next(rows) for _ in range(count)]
        steps = tuple(Step(decided=row, reward=float(success and row is found[-1]), steps=3) for row in found)
        return Episode(
            start=Start(task=0), steps=steps, success=success, after=None, seconds=1.0, version=0, lost=lost
        )

    plan = [(True, 1), (False, 1, 2), (False, 2), (True, 1), (True, 1), (True, 1)]
    return make_rollout([episode(*what) for what in plan])


def config(advantage, *, minibatches=1, recompute=True, **job):
    return Config(
        name="test",
        lapo=LapoConfig(advantage=advantage, value_weight=0.0, whiten=False),
        reinforce=ReinforceConfig(
            episodes=6, group=3, minibatches=minibatches, recompute_old=recompute, **job
        ),
    )


# Returns 1, 0, 0: mean 1/3, squares 4/9 + 1/9 + 1/9 = 2/3, unbiased variance 1/3; 2/3 and -1/3 times sqrt(3).
# Leaving one out: 1 - 0; 0 - 1/2.  The other start succeeds every time: 0.
ADVANTAGE = {
    "grpo": [2 / math.sqrt(3), -1 / math.sqrt(3), -1 / math.sqrt(3), -1 / math.sqrt(3), 0.0, 0.0, 0.0],
    "rloo": [1.0, -0.5, -0.5, -0.5, 0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("advantage", ADVANTAGE)
def test_every_decision_gets_its_episodes_advantage(rollout, advantage):
    learner = FakeLearner()
    figures = improve(learner, rollout, config(advantage), 0)
    (batch,) = learner.batches
    assert batch.advantage.tolist() == pytest.approx(ADVANTAGE[advantage], abs=1e-5)
    assert "explained_variance" not in figures
    spread = torch.tensor(ADVANTAGE[advantage]).std(correction=0).item()
    assert figures["advantage_std"] == pytest.approx(spread, abs=1e-5)


def test_figures_that_tell_acting_from_learning(rollout):
    recomputed = improve(FakeLearner(), rollout, config("rloo", minibatches=2), 0)
    assert recomputed["recorded_gap"] == pytest.approx(0.5, abs=1e-5)
    recorded = improve(FakeLearner(), rollout, config("rloo", recompute=False), 0)
    assert recorded["recorded_gap"] == pytest.approx(math.log(2))


def test_ratios_are_looked_at_where_they_can_leave_one(rollout):
    assert improve(FakeLearner(), rollout, config("rloo", minibatches=3), 0)["last_ratio_max"] == 4.0
    assert "last_ratio_max" not in improve(FakeLearner(), rollout, config("rloo"), 0)
    critic = config("rloo", minibatches=3, value_only_iterations=1)
    assert "last_ratio_max" not in improve(FakeLearner(), rollout, critic, 0)


def test_lost_simulators_are_counted(rollout):
    assert rollout_figures(rollout)["lost_share"] == 2 / 8


def test_latents_by_hand():
    """First slot (3, 1), (3, -1), (1, 0), (5, 0): around (3, 0) squares of 2 and 8, around 0 of 46."""
    latent = torch.zeros(4, 2, 2)
    latent[:, 0] = torch.tensor([[3.0, 1], [3, -1], [1, 0], [5, 0]])
    latent[:, 1] = torch.randn(4, 2)
    figures = latent_figures(latent)
    assert figures["latent_spread"] == pytest.approx(10 / 46)
    assert figures["latent_rank"] == pytest.approx(100 / (4 + 64))
    assert latent_figures(latent[:, :0]) == {}
    assert latent_figures(torch.ones(4, 2, 2)) == {"latent_spread": 0.0, "latent_rank": 0.0}


class _Player:
    class pool:
        tasks, stored_states = ("a", "b"), 3


@pytest.mark.parametrize("states", ["fresh", "benchmark"])
def test_a_group_shares_its_start(states):
    job = {"train_states": states}
    starts = training_starts(config("grpo", **job), _Player(), 1)
    assert len(starts) == 6
    assert starts[:3] == [starts[0]] * 3
    assert starts[3:] == [starts[3]] * 3
    assert starts[0] != starts[3]


@pytest.mark.parametrize(
    ("lapo", "job", "complaint"),
    [
        ({"advantage": "grpo"}, {"group": 8}, "no critic: set value_weight 0"),
        ({"advantage": "rloo", "value_weight": 0.0}, {}, "set reinforce.group to 2 or more, not 1"),
        ({}, {"group": 3}, "episodes 512 is not a multiple of group 3"),
    ],
)
def test_mistakes(lapo, job, complaint):
    with pytest.raises(ValueError, match=complaint):
        Config(name="t", lapo=LapoConfig(**lapo), reinforce=ReinforceConfig(**job))


def test_groups_of_equal_returns_may_be_left_out(rollout):
    """The other start's three decisions: four are left, a quarter each; of nothing but such, all stay."""
    learner = FakeLearner()
    improve(learner, rollout, config("rloo", skip_uniform_groups=True), 0)
    (batch,) = learner.batches
    assert batch.decisions.instructions == ["0", "1", "2", "3"]
    assert batch.advantage.tolist() == pytest.approx([1.0, -0.5, -0.5, -0.5])
    assert batch.weight.tolist() == pytest.approx([1 / 4] * 4)
    improve(learner, replace(rollout, reward=0 * rollout.reward), config("rloo", skip_uniform_groups=True), 0)
    assert len(learner.batches[1].weight) == 7
