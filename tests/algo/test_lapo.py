"""Axes: B decisions, L latent slots, D latent width, E episodes, T decisions per episode."""

import math
from dataclasses import replace

import pytest
import torch

from lastr1.algo.lapo import PAPER, RELEASED, PolicyTerms, decision_weights, lapo_loss
from lastr1.algo.logprob import DeterministicLatent, GaussianLatent
from lastr1.config import LapoConfig

t = torch.tensor
EVEN = t([0.5, 0.5])
DETERMINISTIC = DeterministicLatent(10.0)


def terms(action=(0.0, 0.0), stop=(0.0, 0.0), latent=(0.0, 0.0), value=(0.0, 0.0)):
    """Decisions with one latent of width 1, used."""
    return PolicyTerms(
        token_logp=t(action)[:, None],
        stop_logp=t(stop),
        latent=t(latent)[:, None, None],
        latent_used=torch.ones(len(action), 1, dtype=torch.bool),
        value=t(value),
    )


def loss_of(config, old, new, advantage=(2.0, -1.0), target=(0.0, 0.0), weight=EVEN):
    return lapo_loss(config, DETERMINISTIC, old.latent, old, new, t(advantage), t(target), weight)


# ---------------------------------------------------------------------------------------- golden numbers


def golden(config):
    root = (math.sqrt(20.0), math.sqrt(60.0))
    old = terms(value=(0.9, 1.1))
    new = terms(action=(0.1, -0.1), stop=(0.3, -0.3), latent=root, value=(1.0, 1.5))
    return loss_of(config, old, new, target=(2.0, 1.0))


def test_parts_by_hand():
    parts = golden(PAPER).parts
    # ratios e^0.1 = 1.105171, e^-0.1 = 0.904837 in range: -(1.105171 * 2 - 0.904837) / 2
    assert abs(parts["action_loss"] + 0.652752) < 1e-6
    assert parts["action_clipped"] == 0
    # 1.349859 with adv 2 -> 1.28 * 2; 0.740818 with adv -1 -> -0.8; -(2.56 - 0.8) / 2
    assert abs(parts["stop_loss"] + 0.88) < 1e-6
    assert parts["stop_clipped"] == 1
    # e^-0.1 = 0.904837 with adv 2; e^-0.3 = 0.740818 with adv -1 -> -0.8; -(1.809675 - 0.8) / 2
    assert abs(parts["latent_loss"] + 0.504837) < 1e-6
    assert parts["latent_clipped"] == 0.5
    # (1 - 2)^2 = 1, (1.5 - 1)^2 = 0.25, mean 0.625
    assert abs(parts["value_loss"] - 0.625) < 1e-6
    # mean of e^l - 1 - l: (0.0051709 + 0.0048374) / 2 and (0.0498588 + 0.0408182) / 2
    assert abs(parts["action_approx_kl"] - 0.0050042) < 1e-6
    assert abs(parts["stop_approx_kl"] - 0.0453385) < 1e-6
    # 1.105171 is the largest of ratio and 1 / ratio (1 / 0.904837 is the same number); stop: 1 / 0.740818
    assert abs(parts["action_ratio_max"] - 1.105171) < 1e-6
    assert abs(parts["stop_ratio_max"] - 1.349859) < 1e-6
    # (20 + 60) / 200 / 2 = 0.2 nats; moves of sqrt 20 / 10 and sqrt 60 / 10 sigmas, mean 0.610905
    assert abs(parts["latent_kl"] - 0.2) < 1e-6
    assert abs(parts["latent_rho"] - 0.610905) < 1e-6


def test_paper_total_by_hand():
    # -0.652752 + 0.1 * -0.88 + 0.1 * -0.504837 + 0.625 = -0.166236
    assert abs(golden(PAPER).total + 0.166236) < 1e-6


def test_released_total_by_hand():
    # value 1 is within 0.2 of 0.9: (1 - 2)^2 = 1;  1.5 is held at 1.3: the larger of 0.25 and 0.09 is 0.25
    # value loss 1/2 * (1 + 0.25) / 2 = 0.3125
    # (56 * -0.652752 - 0.88) / 57 + 0.1 * -0.504837 + 0.3125 = -0.394723
    result = golden(RELEASED)
    assert abs(result.parts["value_loss"] - 0.3125) < 1e-6
    assert abs(result.total + 0.394723) < 1e-6


def test_every_weight_reaches_its_own_term():
    nothing = {"action_weight": 0.0, "stop_weight": 0.0, "latent_weight": 0.0, "value_weight": 0.0}
    for name in ("action", "stop", "latent", "value"):
        result = golden(LapoConfig(**(nothing | {f"{name}_weight": 3.0})))
        torch.testing.assert_close(result.total, 3 * result.parts[f"{name}_loss"])


# ------------------------------------------------------------------------------------- clipped surrogate


@pytest.mark.parametrize("term", ["action", "stop"])
@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        # below the range: a good decision is still pulled up, a bad one has been pushed far enough
        (0.5, 2.0, -1.0, -1.0),
        (0.5, -2.0, 1.6, 0.0),
        # inside
        (1.1, 2.0, -2.2, -2.2),
        (1.1, -2.0, 2.2, 2.2),
        # above the range, the other way round
        (1.5, 2.0, -2.56, 0.0),
        (1.5, -2.0, 3.0, 3.0),
        # a decision that made no difference teaches nothing
        (1.1, 0.0, 0.0, 0.0),
    ],
)
def test_surrogate_truth_table(term, ratio, advantage, loss, gradient):
    # gradient with respect to the log-probability: -ratio * advantage where free, 0 where clipped
    logp = t([math.log(ratio)], requires_grad=True)
    zero, one = torch.zeros(1), torch.ones(1)
    old = terms((0.0,), (0.0,), (0.0,), (0.0,))
    new = replace(old, stop_logp=logp) if term == "stop" else replace(old, token_logp=logp[:, None])
    config = LapoConfig(**{f"{term}_weight": 1.0})
    result = lapo_loss(config, DETERMINISTIC, old.latent, old, new, t([advantage]), zero, one)
    assert abs(result.parts[f"{term}_loss"] - loss) < 1e-6
    assert abs(torch.autograd.grad(result.total, logp)[0] - gradient) < 1e-6
    assert result.parts[f"{term}_clipped"] == float(gradient == 0.0 and advantage != 0.0)


def test_the_same_policy_has_ratio_1_and_moves_by_its_advantage():
    old = terms((-250.3, -31.7), (-1.3, -0.2), (0.4, -3.0))
    result = loss_of(PAPER, old, old)
    for name in ("action", "stop", "latent"):
        assert result.parts[f"{name}_ratio_max"] == 1
        assert result.parts[f"{name}_approx_kl"] == 0
        assert result.parts[f"{name}_loss"] == -0.5
    assert abs(result.parts["latent_cosine"] - 1) < 1e-6


def test_gaussian_latent_term_by_hand():
    # the ratio 1.206230 of test_latent.py (width 2, sigma 0.1) inside the range, advantage 2
    one, used = torch.ones(1), torch.ones(1, 1, dtype=torch.bool)

    def at(*mean):
        return PolicyTerms(
            token_logp=one[:, None], stop_logp=one, latent=t([[mean]]), latent_used=used, value=one
        )

    policy, z = GaussianLatent(0.1, "dim"), t([[[0.1, -0.2]]])
    result = lapo_loss(PAPER, policy, z, at(0.0, 0.0), at(0.05, 0.0), 2 * one, one, one)
    assert abs(result.parts["latent_loss"] + 2 * 1.206230) < 1e-6
    assert abs(result.parts["latent_kl"] - 0.125) < 1e-6


def test_tokens_are_clipped_one_by_one():
    # decision 1, adv 2: ratios e^0.5 clipped to 1.28, e^-0.1 = 0.904837: 2 (1.28 + 0.904837) / 2 = 2.184837
    # decision 2, adv -1: e^0.5 = 1.648721 is not, e^-0.5 clipped to 0.8: -(1.648721 + 0.8) / 2 = -1.224361
    # -(2.184837 - 1.224361) / 2 = -0.480238; two of four are clipped.  Whole chunks: e^0.4 -> 1.28, and e^0
    old = replace(terms(), token_logp=torch.zeros(2, 2))
    new = replace(old, token_logp=t([[0.5, -0.1], [0.5, -0.5]]))
    parts = loss_of(replace(PAPER, clip_scope="token"), old, new).parts
    assert abs(parts["action_loss"] + 0.480238) < 1e-6
    assert parts["action_clipped"] == 0.5
    assert abs(parts["action_ratio_max"] - math.exp(0.5)) < 1e-6
    assert abs(loss_of(PAPER, old, new).parts["action_loss"] + (2 * 1.28 - 1) / 2) < 1e-6


def test_huge_log_ratios_stay_finite():
    logp = t([500.0, -500.0], requires_grad=True)
    old = terms()
    result = loss_of(PAPER, old, replace(old, token_logp=logp[:, None]), advantage=(-1.0, 1.0))
    # e^20 with adv -1, e^-20 with adv 1: (e^20 - e^-20) / 2
    assert abs(result.parts["action_loss"] / (math.exp(20.0) / 2) - 1) < 1e-6
    assert torch.isfinite(torch.autograd.grad(result.total, logp)[0]).all()


def test_raising_the_mean_towards_what_paid_lowers_the_loss():
    old = terms((0.0,), (0.0,), (0.0,), (0.0,))
    policy, z, one = GaussianLatent(0.1, "dim"), t([[[0.1]]]), torch.ones(1)

    def latent_loss(mean):
        new = replace(old, latent=t([[[mean]]]))
        return lapo_loss(PAPER, policy, z, old, new, one, one, one).parts["latent_loss"]

    assert latent_loss(0.01) < latent_loss(0.0) < latent_loss(-0.01)


# ------------------------------------------------------------------------------------------------- value


@pytest.mark.parametrize(
    ("value", "target", "loss", "gradient"),
    [
        # moved up by 0.5 past the target 0: 1.5^2 = 2.25 beats 1.2^2 -> 1.125, gradient v - target
        (1.5, 0.0, 1.125, 1.5),
        # moved up towards 2, more than 0.2: (1.2 - 2)^2 = 0.64 beats 0.25 -> 0.32, no gradient
        (1.5, 2.0, 0.32, 0.0),
        # moved down away from 2: 2.25 beats 1.44
        (0.5, 2.0, 1.125, -1.5),
        # moved down towards 0, more than 0.2: 0.8^2 beats 0.25
        (0.5, 0.0, 0.32, 0.0),
        # within 0.2: plain half squared error
        (1.1, 2.0, 0.405, -0.9),
    ],
)
def test_value_clip_on_both_sides_of_1(value, target, loss, gradient):
    leaf = t([value], requires_grad=True)
    old = terms((0.0,), (0.0,), (0.0,), (1.0,))
    new = replace(old, value=leaf)
    one = torch.ones(1)
    result = lapo_loss(RELEASED, DETERMINISTIC, old.latent, old, new, torch.zeros(1), t([target]), one)
    assert abs(result.parts["value_loss"] - loss) < 1e-6
    assert abs(torch.autograd.grad(result.total, leaf)[0] - gradient) < 1e-6
    assert result.parts["value_clipped"] == float(gradient == 0.0)


# ----------------------------------------------------------------------------------------------- weights


VALID = t([[True, True, True, False], [True, False, False, False]])


def test_weights_by_hand():
    # four decisions: 1/4 each; by episode: 1/2 * 1/3 and 1/2 * 1
    assert decision_weights(VALID, "decision").tolist() == [[0.25, 0.25, 0.25, 0], [0.25, 0, 0, 0]]
    sixth = t(1 / 6).item()
    assert decision_weights(VALID, "episode").tolist() == [[sixth, sixth, sixth, 0], [0.5, 0, 0, 0]]
    for average in ("decision", "episode"):
        assert (decision_weights(torch.zeros(2, 3, dtype=torch.bool), average) == 0).all()


def test_empty_episodes_do_not_count():
    padded = torch.cat([VALID, torch.zeros(1, 4, dtype=torch.bool)])
    for average in ("decision", "episode"):
        assert (decision_weights(padded, average)[:2] == decision_weights(VALID, average)).all()


def test_averages_differ_on_episodes_of_unequal_length():
    # values 0, targets (1, 1, 1 | 3): squared errors 1, 1, 1 | 9
    # by decision: (3 + 9) / 4 = 3;  by episode: (1 + 9) / 2 = 5
    old = terms(*[(0.0,) * 4] * 4)
    for average, expected in (("decision", 3.0), ("episode", 5.0)):
        weight = decision_weights(VALID, average)[VALID]
        result = loss_of(PAPER, old, old, (0.0,) * 4, (1.0, 1.0, 1.0, 3.0), weight)
        assert abs(result.parts["value_loss"] - expected) < 1e-6
