"""Latent policies.  Axes: B decisions, L latent slots, D latent width."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastr1.algo.lapo import PAPER, PolicyTerms, lapo_loss
from lastr1.algo.logprob import DeterministicLatent, GaussianLatent

t = torch.tensor


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def used_of(*counts, slots):
    return torch.arange(slots)[None] < t(counts)[:, None]


@pytest.mark.parametrize(("squared", "ratio"), [(50.0, 0.778801), (100.0, 0.606531), (44.6287, 0.8)])
def test_deterministic_ratio_by_hand(squared, ratio):
    # exp(-squared / 200), spread over two latents of width 2
    old = torch.zeros(1, 2, 2)
    new = torch.full((1, 2, 2), math.sqrt(squared / 4))
    policy, used = DeterministicLatent(10.0), used_of(2, slots=2)
    assert abs(policy.log_ratio(old, old, new, used).exp() - ratio) < 1e-6
    assert abs(policy.kl(old, new, used) - squared / 200) < 1e-6


@pytest.mark.parametrize(("norm", "ratio"), [("sum", 1.454991), ("dim", 1.206230), ("element", 1.206230)])
def test_gaussian_ratio_by_hand(norm, ratio):
    # <(0.05, 0), (0.1, -0.2) - (0.025, 0)> / 0.01 = 0.05 * 0.075 / 0.01 = 0.375; e^0.375, and e^(0.375 / 2)
    old, new, z = t([[[0.0, 0.0]]]), t([[[0.05, 0.0]]]), t([[[0.1, -0.2]]])
    policy = GaussianLatent(0.1, norm)
    assert abs(policy.log_ratio(z, old, new, used_of(1, slots=1)).exp() - ratio) < 1e-6
    # 0.05^2 / (2 * 0.01) = 0.125 nats
    assert abs(policy.kl(old, new, used_of(1, slots=1)) - 0.125) < 1e-7


def test_norms_divide_by_1_by_width_and_by_what_is_used():
    z, old, new = randn(2, 4, 3), randn(2, 4, 3, seed=1), randn(2, 4, 3, seed=2)
    used = used_of(2, 4, slots=4)
    total = GaussianLatent(0.5, "sum").log_ratio(z, old, new, used)
    torch.testing.assert_close(GaussianLatent(0.5, "dim").log_ratio(z, old, new, used), total / 3)
    expected = total / t([6.0, 12.0])
    torch.testing.assert_close(GaussianLatent(0.5, "element").log_ratio(z, old, new, used), expected)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(seed=st.integers(0, 99), sigma=st.floats(0.1, 3), count=st.integers(0, 3))
def test_gaussian_equals_the_difference_of_two_normal_densities(seed, sigma, count):
    z, old, new = (randn(1, 3, 4, seed=3 * seed + i, dtype=torch.float64) for i in range(3))
    used = used_of(count, slots=3)

    def density(mean):
        logp = torch.distributions.Normal(mean, sigma).log_prob(z)
        return torch.where(used[..., None], logp, 0.0).sum((-2, -1))

    ratio = GaussianLatent(sigma, "sum").log_ratio(z, old, new, used)
    torch.testing.assert_close(ratio, density(new) - density(old), atol=1e-9, rtol=1e-9)


def test_expected_gaussian_ratio_is_1():
    # sd of the ratio is sqrt(exp(2 KL) - 1), here 2 KL = 3 * 0.2^2 / 0.5^2 = 0.48
    n = 200_000
    old, new = torch.zeros(n, 1, 3), torch.full((n, 1, 3), 0.2)
    policy, used = GaussianLatent(0.5, "sum"), torch.ones(n, 1, dtype=torch.bool)
    z = policy.sample(old, randn(n, 1, 3))
    ratio = policy.log_ratio(z, old, new, used).exp()
    assert abs(ratio.mean() - 1) < 4 * math.sqrt(math.exp(0.48) - 1) / math.sqrt(n)


@pytest.mark.parametrize("norm", ["sum", "dim", "element"])
def test_gaussian_at_identity_has_ratio_1_and_the_score_as_gradient(norm):
    eps, old = randn(2, 4, 3), randn(2, 4, 3, seed=1)
    used = used_of(2, 4, slots=4)
    policy = GaussianLatent(0.5, norm)
    z, new = policy.sample(old, eps), old.clone().requires_grad_()
    log_ratio = policy.log_ratio(z, old, new, used)
    assert log_ratio.tolist() == [0, 0]
    divisor = {"sum": t([1.0, 1.0]), "dim": t([3.0, 3.0]), "element": t([6.0, 12.0])}[norm]
    expected = torch.where(used[..., None], eps, 0.0) / (0.5 * divisor[:, None, None])
    grad = torch.autograd.grad(log_ratio.sum(), new)[0]
    torch.testing.assert_close(grad, expected, atol=1e-5, rtol=1e-5)


def test_deterministic_at_identity_teaches_nothing_and_never_exceeds_1():
    old = randn(3, 4, 3)
    used, policy = used_of(1, 2, 4, slots=4), DeterministicLatent(10.0)
    new = old.clone().requires_grad_()
    log_ratio = policy.log_ratio(old, old, new, used)
    assert log_ratio.tolist() == [0, 0, 0]
    assert (torch.autograd.grad(log_ratio.sum(), new)[0] == 0).all()
    assert (policy.log_ratio(old, old, old + randn(3, 4, 3, seed=5), used) < 0).all()


@pytest.mark.parametrize("policy", [GaussianLatent(0.5, "element"), DeterministicLatent(10.0)])
def test_unused_latents_count_nothing_whatever_they_hold(policy):
    z, old, new = randn(2, 4, 3), randn(2, 4, 3, seed=1), randn(2, 4, 3, seed=2)
    used = used_of(1, 3, slots=4)
    dirty = [torch.where(used[..., None], x, float("nan")) for x in (z, old, new)]
    assert (policy.log_ratio(*dirty, used) == policy.log_ratio(z, old, new, used)).all()
    assert (policy.kl(*dirty[1:], used) == policy.kl(old, new, used)).all()
    leaf = new.clone().requires_grad_()
    grad = torch.autograd.grad(policy.log_ratio(z, old, leaf, used).sum(), leaf)[0]
    assert (grad[~used] == 0).all()
    assert (grad[used] != 0).any()


def test_samples_keep_the_model_dtype():
    mean = randn(5, 8).bfloat16()
    z = GaussianLatent(0.05, "dim").sample(mean, randn(5, 8, seed=1))
    assert z.dtype == torch.bfloat16
    # rounded once, from fp32
    assert (z == (mean.float() + 0.05 * randn(5, 8, seed=1)).bfloat16()).all()
    assert DeterministicLatent(10.0).sample(mean, randn(5, 8, seed=1)) is mean
    old = randn(2, 1, 3).bfloat16()
    one = used_of(1, 1, slots=1)
    for policy in (GaussianLatent(0.05, "dim"), DeterministicLatent(10.0)):
        assert policy.log_ratio(old, old, old, one).dtype == torch.float32


def bandit_step(policy, mean, direction, seed):
    """One LAPO update on 256 one-latent thoughts that are paid for pointing along `direction`."""
    n, width = 256, len(direction)
    old = mean.detach().expand(n, 1, width)
    z = policy.sample(old, randn(n, 1, width, seed=seed))
    reward = (z[:, 0] @ direction > 0).float()
    advantage = (reward - reward.mean()) / (reward.std() + 1e-8)
    zero, used = torch.zeros(n), torch.ones(n, 1, dtype=torch.bool)

    def terms(latent):
        return PolicyTerms(
            token_logp=zero[:, None], stop_logp=zero, latent=latent, latent_used=used, value=zero
        )

    new = terms(mean.expand(n, 1, width))
    loss = lapo_loss(PAPER, policy, z, terms(old), new, advantage, zero, torch.full((n,), 1 / n))
    return torch.autograd.grad(loss.total, mean)[0]


def test_bandit_is_learned_by_gaussian_latents_only():
    direction = t([0.6, -0.8, 0.0, 0.0])
    gaussian, deterministic = GaussianLatent(1.0, "dim"), DeterministicLatent(10.0)
    start = torch.zeros(4, requires_grad=True)
    first = bandit_step(gaussian, start, direction, 0)
    # descending raises the mean along the paid direction, from the first step on
    assert torch.cosine_similarity(-first, direction, dim=0) > 0.95
    assert (bandit_step(deterministic, start, direction, 0) == 0).all()
    mean = start
    for step in range(40):
        mean = (mean - 2.0 * bandit_step(gaussian, mean, direction, step)).detach().requires_grad_()
    paid = gaussian.sample(mean.detach().expand(1000, 4), randn(1000, 4, seed=99)) @ direction > 0
    assert paid.float().mean() > 0.9
