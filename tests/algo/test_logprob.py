"""Action bins and stop.  Axes: B decisions, N action tokens, V bins, K stop candidates."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastr1.algo.logprob import (
    ConsistentStop,
    ReleasedStop,
    action_entropy,
    draw_actions,
    draw_stop,
    evaluation_stop,
    stop_entropy,
    token_logp,
)

t = torch.tensor
BETA = 1.6
STOP = t([[2.0, 1.0, 0.0, -1.0]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def near(actual, expected, atol=1e-6):
    torch.testing.assert_close(actual, t(expected), atol=atol, rtol=0)


# ------------------------------------------------------------------------------------------------ actions


def test_token_logp_by_hand():
    # two tokens of two bins, temperature 2: (2 ln 3, 0) / 2 -> 3/4, 1/4;  (0, 0) / 2 -> 1/2, 1/2
    # bins (0, 1): ln 3/4 + ln 1/2 = ln 3/8 = -0.980829
    logits = t([[[2 * math.log(3), 0.0], [0.0, 0.0]]])
    logp = token_logp(logits, t([[0, 1]]), 2.0)
    near(logp, [[-0.287682, -0.693147]])
    near(logp.sum(-1), [-0.980829])


def test_action_entropy_by_hand():
    # (3/4, 1/4): 0.75 * 0.287682 + 0.25 * 1.386294 = 0.562335; (1/2, 1/2): 0.693147; mean 0.627741
    logits = t([[[2 * math.log(3), 0.0], [0.0, 0.0]]])
    near(action_entropy(logits, 2.0), [0.627741])
    assert action_entropy(t([[[0.0, -float("inf")]]]), 1.0) == 0


def test_bf16_logits_are_raised_before_the_softmax():
    # bf16 has a step of 2 near the sum of 56 log-probabilities, about -290: summed in bf16 as in the release,
    # most ratios leave [0.8, 1.28] at identical logits (ALGORITHM.md 5.7)
    logits = (1.5 * torch.randn(64, 56, 256, generator=seeded())).bfloat16()
    tokens = draw_actions(logits, BETA, torch.rand(64, 56, generator=seeded(1)))
    recorded = token_logp(logits.float(), tokens, BETA).sum(-1)
    updated = token_logp(logits, tokens, BETA).sum(-1)
    assert updated.dtype == torch.float32
    assert (updated == recorded).all()
    rough = torch.log_softmax(logits / BETA, -1).gather(-1, tokens[..., None]).sum((-2, -1))
    ratio = (rough.float() - recorded).exp()
    assert ((ratio < 0.8) | (ratio > 1.28)).float().mean() > 0.5


def test_draw_actions_by_hand():
    # probabilities 1/4, 1/4, 1/2 (temperature 2): edges 0.25 and 0.5
    logits = 2 * t([0.25, 0.25, 0.5]).log().expand(1, 6, 3)
    uniform = t([[0.0, 0.24, 0.26, 0.49, 0.51, 1 - 2**-24]])
    assert draw_actions(logits, 2.0, uniform).tolist() == [[0, 0, 1, 1, 2, 2]]


def test_draws_never_hit_impossible_bins():
    impossible = -float("inf")
    logits = t([[[impossible, 0.0, impossible, 0.0, impossible]]])
    for u in (0.0, 0.25, 0.5, 0.75, 1 - 2**-24):
        assert draw_actions(logits, 1.0, t([[u]])).item() in (1, 3)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(seed=st.integers(0, 999), scale=st.floats(0, 60), u=st.floats(0, 1, exclude_max=True, width=32))
def test_draws_stay_in_range_and_follow_the_distribution_function(seed, scale, u):
    logits = scale * torch.randn(1, 1, 256, generator=seeded(seed))
    k = draw_actions(logits, BETA, t([[u]])).item()
    assert 0 <= k <= 255
    cdf = torch.softmax(logits[0, 0].double() / BETA, -1).cumsum(-1)
    assert (cdf[k - 1] if k else 0.0) <= u + 1e-9
    assert u <= cdf[k] + 1e-9


def test_action_frequencies():
    logits = t([1.0, 0.0, -1.0])
    draws = draw_actions(logits.expand(1, 100_000, 3), BETA, torch.rand(1, 100_000, generator=seeded()))
    p = torch.softmax(logits / BETA, -1)
    share = torch.bincount(draws[0], minlength=3) / 100_000
    assert ((share - p).abs() < 4 * (p * (1 - p) / 100_000).sqrt()).all()


# --------------------------------------------------------------------------------------------------- stop


def consistent(logits, temperature):
    """log q at every candidate of one row."""
    groups = torch.arange(1, logits.shape[1] + 1)
    tiled = logits.expand(len(groups), -1)
    return ConsistentStop(temperature).logp(tiled, torch.zeros_like(tiled), groups)


def test_consistent_by_hand():
    # l / 1.6 = (1.25, 0.625, 0, -0.625); exp: 3.490343, 1.868246, 1, 0.535261; sum 6.893850, ln 1.930630
    near(consistent(STOP, BETA), [-0.680630, -1.305630, -1.930630, -2.555630], 2e-6)
    near(consistent(STOP, BETA).exp(), [0.506298, 0.271002, 0.145057, 0.077643], 1e-6)
    near(consistent(STOP, 1.0).exp(), [0.643914, 0.236883, 0.087144, 0.032059], 1e-6)


def test_released_by_hand():
    # l / 1.6 - logsumexp: 1.25 - 3 = -1.75 for one group, -0.625 - 0.5 = -1.125 for four
    lse = t([[3.0, 9.0, 9.0, 0.5]])
    near(ReleasedStop(BETA).logp(STOP, lse, t([1])), [-1.75])
    near(ReleasedStop(BETA).logp(STOP, lse, t([4])), [-1.125])


@settings(derandomize=True, deadline=None, max_examples=30)
@given(k=st.integers(1, 8), shift=st.floats(-50, 50), seed=st.integers(0, 99))
def test_consistent_is_a_distribution_and_ignores_a_common_shift(k, shift, seed):
    logits = 3 * torch.randn(1, k, generator=seeded(seed))
    logq = consistent(logits, BETA)
    assert abs(logq.exp().sum() - 1) < 1e-5
    torch.testing.assert_close(consistent(logits + shift, BETA), logq, atol=1e-4, rtol=0)


def test_one_candidate_has_logp_0_and_no_candidate_too():
    one = t([[7.0], [-3.0]], requires_grad=True)
    logp = ConsistentStop(BETA).logp(one, torch.zeros(2, 1), t([1, 1]))
    assert logp.tolist() == [0, 0]
    assert torch.autograd.grad(logp.sum(), one)[0].tolist() == [[0], [0]]
    assert draw_stop(one, BETA, t([0.0, 0.99])).tolist() == [1, 1]
    none = torch.zeros(2, 0)
    for stop in (ConsistentStop(BETA), ReleasedStop(BETA)):
        assert stop.logp(none, none, t([0, 0])).tolist() == [0, 0]


def test_gradient_of_the_two_likelihoods():
    # consistent: (one-hot - q) / beta, so every candidate learns and the sum is 0; released: only the chosen
    logits = STOP.clone().requires_grad_()
    lse = torch.ones(1, 4, requires_grad=True)
    grad = torch.autograd.grad(ConsistentStop(BETA).logp(logits, lse, t([2])).sum(), logits)[0]
    expected = (t([0.0, 1.0, 0.0, 0.0]) - t([0.506298, 0.271002, 0.145057, 0.077643])) / BETA
    torch.testing.assert_close(grad[0], expected, atol=1e-6, rtol=0)
    assert abs(grad.sum()) < 1e-6
    grad, lse_grad = torch.autograd.grad(ReleasedStop(BETA).logp(logits, lse, t([2])).sum(), (logits, lse))
    assert grad.tolist() == [[0, 0.625, 0, 0]]
    assert lse_grad.tolist() == [[0, -1, 0, 0]]


def test_stop_is_drawn_from_the_recorded_distribution():
    n = 100_000
    groups = draw_stop(STOP.expand(n, 4), BETA, torch.rand(n, generator=seeded()))
    q = consistent(STOP, BETA).exp()
    share = torch.bincount(groups, minlength=5)[1:] / n
    assert ((share - q).abs() < 4 * (q * (1 - q) / n).sqrt()).all()


def test_draw_stop_by_hand():
    # cumulative q: 0.506298, 0.777300, 0.922357, 1
    uniform = t([0.0, 0.50, 0.51, 0.77, 0.78, 0.92, 0.93, 1 - 2**-24])
    assert draw_stop(STOP.expand(8, 4), BETA, uniform).tolist() == [1, 1, 2, 2, 3, 3, 4, 4]


def test_stop_entropy_by_hand():
    # sum of -q log q with the numbers above: 0.344602 + 0.353828 + 0.280052 + 0.198427 = 1.176909
    near(stop_entropy(STOP, BETA), [1.176909], 2e-6)
    near(stop_entropy(torch.zeros(1, 4), BETA), [math.log(4)])


@pytest.mark.parametrize(
    ("rule", "p", "groups"),
    [
        ("first", (0.2, 0.992, 0.999, 0.5), 2),  # reached twice: the smaller
        ("first", (0.2, 0.7, 0.98, 0.5), 3),  # never reached: the largest
        ("max", (0.2, 0.992, 0.999, 0.5), 3),
        ("mode", (0.2, 0.992, 0.999, 0.5), 4),  # the logits below decide
    ],
)
def test_evaluation_rules(rule, p, groups):
    logits = t([[0.0, 1.0, 2.0, 3.0]])
    assert evaluation_stop(rule, logits, t([p]).log(), 0.99).tolist() == [groups]


def test_threshold_is_reached_when_met_exactly():
    assert evaluation_stop("first", torch.zeros(1, 2), t([[0.5, 0.9]]).log(), 0.5).tolist() == [1]
