"""Advantages without a critic, by hand.  Axes: E episodes."""

import math

import pytest
import torch

from lastr1.algo.baselines import grpo, mixed, rloo

RETURNS = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0])
"""two groups of four: (1, 0, 0, 1) and (1, 1, 0, 1)"""


def test_grpo_by_hand():
    # group 1: mean 1/2, squares 4 x 1/4 = 1, unbiased variance 1/3; +-0.5 / sqrt(1/3) = +-sqrt(3)/2
    # group 2: mean 3/4, squares 3 x 1/16 + 9/16 = 3/4, variance 1/4; 0.25 / 0.5 = 0.5, -0.75 / 0.5 = -1.5
    half = math.sqrt(3) / 2
    expected = [half, -half, -half, half, 0.5, 0.5, -1.5, 0.5]
    assert grpo(RETURNS, 4).tolist() == pytest.approx(expected, abs=1e-5)


def test_rloo_by_hand():
    # group 1: 1 - 1/3 = 2/3, 0 - 2/3; group 2: 1 - 2/3 = 1/3, 0 - 1
    expected = [2 / 3, -2 / 3, -2 / 3, 2 / 3, 1 / 3, 1 / 3, -1.0, 1 / 3]
    assert rloo(RETURNS, 4).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("compare", [grpo, rloo])
def test_equal_returns_teach_nothing(compare):
    assert compare(torch.tensor([1.0, 1.0, 0.0, 0.0]), 2).tolist() == [0.0] * 4


@pytest.mark.parametrize("compare", [grpo, rloo])
def test_groups_do_not_see_each_other(compare):
    whole = compare(RETURNS, 4)
    assert torch.equal(whole[:4], compare(RETURNS[:4], 4))
    assert torch.allclose(whole.reshape(2, 4).sum(1), torch.zeros(2), atol=1e-5)


def test_groups_of_equal_returns_are_told_from_the_others():
    # (1, 0, 0, 1) and (1, 1, 0, 1) differ; (1, 1, 1, 1) and (0, 0, 0, 0) do not
    returns = torch.cat([RETURNS, torch.ones(4), torch.zeros(4)])
    assert mixed(returns, 4).tolist() == [True] * 8 + [False] * 8
    assert mixed(RETURNS, 2).tolist() == [True] * 4 + [False] * 2 + [True] * 2
