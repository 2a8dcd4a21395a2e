"""Losses of reinforcement with interventions, worked by hand."""

import math

import pytest
import torch

from lastr1.algo.interactive import cloning_loss, critic_loss, guided_loss, td_target


def test_target_takes_the_lowest_critic_and_stops_at_the_end():
    # -0.4 + 0.98 * min(4, 1) = 0.58; a terminated chunk is worth its reward
    reward, discount = torch.tensor([10.0, -0.4]), torch.tensor([0.98, 0.98])
    after = torch.tensor([[2.0, 4.0], [3.0, 1.0]])
    found = td_target(reward, discount, torch.tensor([True, False]), after)
    torch.testing.assert_close(found, torch.tensor([10.0, 0.58]))


def test_target_of_a_terminated_chunk_ignores_what_follows():
    after = torch.tensor([[math.nan]])
    assert td_target(torch.ones(1), torch.ones(1), torch.tensor([True]), after).item() == 1


def test_critics_learn_apart():
    # the first is off by 1 and 1, the second by 0 and 1: 1 + 0.5
    value = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    loss = critic_loss(value, torch.tensor([0.0, 1.0]))
    assert loss.item() == pytest.approx(1.5)
    loss.backward()
    # d/dv of (v - y)^2 / 2: v - y, whatever the other critic does
    torch.testing.assert_close(value.grad, torch.tensor([[1.0, 1.0], [0.0, -1.0]]))


def test_cloning_counts_masked_tokens_not_at_all():
    # uniform over 4 bins: ln 4 per valid token, of which there are two
    logits = torch.zeros(2, 2, 4)
    logits[1] = math.nan
    tokens = torch.tensor([[0, 3], [1, 1]])
    mask = torch.tensor([[True, True], [False, False]])
    assert cloning_loss(logits, tokens, mask, 2.0, 0.0).item() == pytest.approx(math.log(4))


def test_cloning_adds_up_over_micro_batches():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 8, generator=generator)
    tokens = torch.randint(8, (4, 3), generator=generator)
    mask = torch.rand(4, 3, generator=generator) < 0.6
    whole = cloning_loss(logits, tokens, mask, float(mask.sum()), 1.0)
    parts = [
        cloning_loss(logits[r], tokens[r], mask[r], float(mask.sum()), 1.0) for r in (slice(1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_without_people_there_is_nothing_to_clone():
    logits = torch.zeros(1, 2, 4, requires_grad=True)
    loss = cloning_loss(logits, torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2).bool(), 0.0, 3.0)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_guidance_prefers_what_the_critics_prefer():
    # 2 bins with odds 3 : 1, 2 tokens; draws (0, 0) and (1, 1): logp 2 ln 0.75, 2 ln 0.25.
    # values 1, 3: mean 2, unbiased std sqrt(2), A = -+0.707107:
    # -(-0.707107 * 2 ln 0.75 + 0.707107 * 2 ln 0.25) / 2 draws / 2 tokens = 0.353553 * ln 3 = 0.388418
    logits = torch.tensor([[[math.log(3), 0.0]] * 2], requires_grad=True)
    tokens = torch.tensor([[[0, 0], [1, 1]]])
    loss = guided_loss(logits, tokens, torch.tensor([[1.0, 3.0]]), 1.0)
    assert loss.item() == pytest.approx(0.388418, abs=1e-6)
    loss.sum().backward()
    # towards bin 1; per token -(A_1 - p_1 (A_1 + A_2)) / 4 = 0.707107 / 4, and the opposite
    torch.testing.assert_close(logits.grad, torch.tensor([[[0.176777, -0.176777]] * 2]), atol=1e-6, rtol=0)


def test_temperature_is_that_of_the_draws():
    logits = torch.tensor([[[2 * math.log(3), 0.0]] * 2])
    loss = guided_loss(logits, torch.tensor([[[0, 0], [1, 1]]]), torch.tensor([[1.0, 3.0]]), 2.0)
    assert loss.item() == pytest.approx(0.388418, abs=1e-6)


def test_equal_values_teach_nothing(generator):
    logits = torch.randn(1, 4, 8, generator=generator(), requires_grad=True)
    tokens = torch.randint(8, (1, 3, 4), generator=generator(1))
    guided_loss(logits, tokens, torch.full((1, 3), 7.0), 1.0).sum().backward()
    assert not logits.grad.any()


def test_draws_of_other_transitions_do_not_matter(generator):
    logits = torch.randn(2, 4, 8, generator=generator())
    tokens = torch.randint(8, (2, 3, 4), generator=generator(1))
    value = torch.tensor([[1.0, 3.0, 2.0], [50.0, -50.0, 0.0]])
    both = guided_loss(logits, tokens, value, 1.0)
    torch.testing.assert_close(both[:1], guided_loss(logits[:1], tokens[:1], value[:1], 1.0))
