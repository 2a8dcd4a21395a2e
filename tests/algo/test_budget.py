"""What latents cost, by hand.  Axes: E episodes, T decisions per episode (padded at the end)."""

import pytest
import torch

from lastr1.algo.budget import charged, next_price

REWARD = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
LATENTS = torch.tensor([[2.0, 8.0, 0.0], [4.0, 6.0, 2.0]])


def test_every_decision_pays_for_its_own_thought():
    # 0 - 0.05 * 2 = -0.1; 1 - 0.05 * 8 = 0.6; padding 0; -0.2, -0.3, -0.1
    found = charged(REWARD, LATENTS, 0.05)
    torch.testing.assert_close(found, torch.tensor([[-0.1, 0.6, 0.0], [-0.2, -0.3, -0.1]]))


def test_free_thoughts_change_nothing():
    found = charged(REWARD, LATENTS, 0.0)
    assert torch.equal(found, REWARD)
    assert not torch.signbit(found).any()  # not even the sign of a zero


def test_the_price_by_hand():
    # 5 latents, 3 wanted: 0.01 + 0.002 * 2 = 0.014; 2.5: 0.01 - 0.002 * 0.5 = 0.009; on target it stays
    assert next_price(0.01, 5.0, 3.0, 0.002) == pytest.approx(0.014)
    assert next_price(0.01, 2.5, 3.0, 0.002) == pytest.approx(0.009)
    assert next_price(0.01, 3.0, 3.0, 0.002) == 0.01


def test_short_thoughts_are_never_paid_for():
    # 0.001 - 0.002 * 1 < 0
    assert next_price(0.001, 2.0, 3.0, 0.002) == 0.0


def test_the_price_settles_where_thoughts_are_as_long_as_they_should_be():
    """A policy that thinks 8 - 100 * price latents meets 3 at price 0.05; each step closes 0.002 * 100."""
    price = 0.0
    for _ in range(60):
        price = next_price(price, 8 - 100 * price, 3.0, 0.002)
    assert price == pytest.approx(0.05 * (1 - 0.8**60), abs=1e-12)
