"""bf16 compute around fp32 weights and fp32 log-probabilities, and what each of them is for (5.7)."""

import pytest
import torch

import lastr1.model.policy as policy_module
from lastr1.config import Config, LapoConfig, OptimizerConfig, ReinforceConfig
from lastr1.envs.base import Start
from lastr1.model.heads import head_logits
from lastr1.rollout.batch import Episode, Step, make_rollout
from lastr1.train.learner import Learner
from lastr1.train.reinforce import improve

TOLERANCE = 1e-4
"""how far a guard lets first ratios be from 1"""


@pytest.fixture
def first_ratio(tiny, played):
    """`first_ratio(old_side)`: of an iteration under autocast; `old_side` is called before its update."""

    def measure(before_update=lambda: None):
        steps = tuple(Step(decided=row, reward=0.0, steps=3) for row in played(tiny(), 6))
        episode = Episode(start=Start(task=0), steps=steps, success=True, after=None, seconds=1.0, version=0)
        learner = Learner(tiny(), LapoConfig(), OptimizerConfig(autocast=True))
        update = learner.update

        def noting(batch, **how):
            before_update()
            return update(batch, **how)

        learner.update = noting
        config = Config(name="test", reinforce=ReinforceConfig(episodes=1, minibatches=1, recompute_old=True))
        return improve(learner, make_rollout([episode]), config, 0)["first_ratio_max"]

    return measure


def rounded(state, rows):
    """The head as autocast would compute it."""
    with torch.autocast("cpu", torch.bfloat16):
        return (state @ rows.T).float()


def test_first_ratios_are_one_in_bf16(first_ratio):
    assert first_ratio() - 1 < TOLERANCE


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_bf16_head_on_one_side_is_seen(first_ratio, monkeypatch, side):
    """The release's defect: its ratios leave the clip range before anything was learnt."""
    if side == "new":
        ratio = first_ratio(lambda: monkeypatch.setattr(policy_module, "head_logits", rounded))
    else:
        monkeypatch.setattr(policy_module, "head_logits", rounded)
        ratio = first_ratio(lambda: monkeypatch.setattr(policy_module, "head_logits", head_logits))
    assert ratio - 1 > 100 * TOLERANCE


@pytest.mark.parametrize(("dtype", "moves"), [(torch.float32, True), (torch.bfloat16, False)])
def test_a_gain_of_one_needs_fp32_weights(dtype, moves):
    """200 consistent steps of 3e-5 from 1.0: below half a step of bf16 each, they are lost one by one."""
    gain = torch.nn.Parameter(torch.ones(8, dtype=dtype))
    optimizer = torch.optim.AdamW([gain], lr=3e-5, weight_decay=0.0)
    for _ in range(200):
        gain.grad = torch.full_like(gain, 0.01)
        optimizer.step()
    assert bool((gain != 1.0).all()) is moves
    if moves:
        torch.testing.assert_close(gain.detach(), torch.full((8,), 1 - 200 * 3e-5), atol=1e-5, rtol=0)
    else:
        assert bool((gain == 1.0).all())


def test_weights_and_moments_stay_fp32_under_autocast(tiny, played):
    """And the gradient is that of bf16 compute: close to fp32's, not equal."""
    grads = []
    for autocast in (False, True):
        steps = tuple(Step(decided=row, reward=0.0, steps=3) for row in played(tiny(), 4))
        episode = Episode(start=Start(task=0), steps=steps, success=True, after=None, seconds=1.0, version=0)
        learner = Learner(tiny(), LapoConfig(), OptimizerConfig(autocast=autocast))
        config = Config(name="test", reinforce=ReinforceConfig(episodes=1, minibatches=1))
        improve(learner, make_rollout([episode]), config, 0)
        state = [x for row in learner.optimizer.state.values() for x in row.values()]
        assert {x.dtype for x in (*learner.policy.parameters(), *state)} == {torch.float32}
        grads.append(torch.cat([p.grad.flatten() for p in learner.policy.parameters() if p.grad is not None]))
    distance = float((grads[1] - grads[0]).norm() / grads[0].norm())
    assert 1e-4 < distance < 0.2
