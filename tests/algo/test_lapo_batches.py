"""LAPO over whole minibatches: micro-batches, order, padding, decisions without a thought.

Axes: B decisions, L latent slots, D latent width.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastr1.algo.lapo import PAPER, RELEASED, PolicyTerms, lapo_loss, merge_parts
from lastr1.algo.logprob import DeterministicLatent, GaussianLatent


def random_batch(seed, size=8, slots=4, width=3):
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return 0.3 * torch.randn(shape, generator=g)

    # some decisions without any used latent
    used = torch.arange(slots)[None] < torch.randint(0, slots + 1, (size, 1), generator=g)

    def some():
        return PolicyTerms(
            token_logp=randn(size, 3),
            stop_logp=randn(size),
            latent=randn(size, slots, width),
            latent_used=used,
            value=randn(size),
        )

    weight = torch.rand(size, generator=g)
    return randn(size, slots, width), some(), some(), 3 * randn(size), randn(size), weight / weight.sum()


def rows(batch, index):
    def pick(x):
        if isinstance(x, PolicyTerms):
            return PolicyTerms(**{k: v[index] for k, v in vars(x).items()})
        return x[index]

    return [pick(x) for x in batch]


def leaves(batch):
    """The batch with gradients on the new terms, and those tensors."""
    z, old, new, *rest = batch
    names = ("token_logp", "stop_logp", "latent", "value")
    grads = {name: vars(new)[name].clone().requires_grad_() for name in names}
    return [z, old, replace(new, **grads), *rest], list(grads.values())


POLICIES = [GaussianLatent(0.7, "dim"), GaussianLatent(0.7, "element"), DeterministicLatent(0.7)]


@settings(derandomize=True, deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 999),
    policy=st.sampled_from(POLICIES),
    config=st.sampled_from([PAPER, RELEASED]),
    pieces=st.sampled_from([1, 2, 4]),
)
def test_micro_batches_add_up(seed, policy, config, pieces):
    """8 / `pieces` micro-batches, or as many ranks: loss, gradient and every figure as from one batch."""
    batch, grads = leaves(random_batch(seed))
    whole = lapo_loss(config, policy, *batch)
    whole_grads = torch.autograd.grad(whole.total, grads, retain_graph=True)
    total, parts = torch.zeros(()), None
    for index in torch.arange(8).split(pieces):
        piece = lapo_loss(config, policy, *rows(batch, index))
        total = total + piece.total
        parts = piece.parts if parts is None else merge_parts(parts, piece.parts)
    torch.testing.assert_close(total, whole.total, atol=1e-6, rtol=1e-5)
    for name, value in whole.parts.items():
        torch.testing.assert_close(parts[name], value, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(total, grads), whole_grads, atol=1e-6, rtol=1e-5)


@settings(derandomize=True, deadline=None, max_examples=10)
@given(seed=st.integers(0, 999), order=st.permutations(range(8)))
def test_order_does_not_matter(seed, order):
    batch = random_batch(seed)
    a, b = (lapo_loss(PAPER, POLICIES[0], *rows(batch, index)) for index in (list(range(8)), order))
    torch.testing.assert_close(a.total, b.total, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(a.parts, b.parts, atol=1e-6, rtol=1e-5)


def test_decisions_of_weight_0_count_nothing():
    *batch, weight = random_batch(3)
    weight = torch.where(torch.arange(8) < 5, weight, 0.0)
    a = lapo_loss(PAPER, POLICIES[0], *batch, weight)
    b = lapo_loss(PAPER, POLICIES[0], *rows([*batch, weight], torch.arange(5)))
    torch.testing.assert_close(a.total, b.total, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(a.parts, b.parts, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("slots", [0, 4])
def test_without_a_thought_only_action_and_value_are_left(slots):
    z, old, new, *rest = random_batch(5, slots=slots)
    none = torch.zeros(8, slots, dtype=torch.bool)
    old, new = replace(old, latent_used=none), replace(new, latent_used=none)
    for policy in POLICIES:
        result = lapo_loss(PAPER, policy, z, old, new, *rest)
        thought = {k: v.item() for k, v in result.parts.items() if k.startswith(("stop", "latent"))}
        assert set(thought.values()) == {0, 1}
        assert {k for k, v in thought.items() if v == 1} == {"stop_ratio_max", "latent_ratio_max"}
        torch.testing.assert_close(result.total, result.parts["action_loss"] + result.parts["value_loss"])


def test_parts_carry_no_gradient():
    batch, _ = leaves(random_batch(1))
    for config in (PAPER, RELEASED):
        result = lapo_loss(config, POLICIES[0], *batch)
        assert result.total.requires_grad
        assert not any(part.requires_grad for part in result.parts.values())
        assert all(part.shape == () for part in result.parts.values())


@pytest.mark.parametrize("norm", ["sum", "dim", "element"])
def test_drawn_latents_have_ratio_1_under_the_policy_that_drew_them(norm):
    z, old, _, *rest = random_batch(7)
    result = lapo_loss(PAPER, GaussianLatent(0.5, norm), z, old, old, *rest)
    assert result.parts["latent_ratio_max"] == 1
    assert result.parts["latent_kl"] == 0
