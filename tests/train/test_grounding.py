"""Losses of seeing and pointing, worked by hand on a toy of two image tokens and two things.

Axes: B pictures, W things, V image tokens of a picture.
"""

import math

import numpy as np
import pytest
import torch

from lastr1.config import GroundingConfig
from lastr1.envs.annotated import THINGS, Annotated
from lastr1.train.grounding import Found, Grounding, Truth, grounding_loss

LN = math.log


@pytest.fixture
def toy():
    """Thing 0 is in token 0 (score ln 3 against 0), thing 1 is absent; the instruction is about thing 0."""
    where = torch.zeros(1, 2, 2, 3)
    where[0, 0, 0] = torch.tensor([0.6, 0.0, -0.02])  # read off the token that holds it
    where[0, 1] = 99.0  # read off another token: nobody looks
    where[0, 0, 1] = 99.0  # of a thing that is not there
    named = torch.zeros(1, 3, 3)
    named[..., 0] = 0.5
    named[0, 1, 1] = 0.1
    found = Found(
        token=torch.tensor([[[LN(3), 0.0], [0.0, 0.0]]]),
        where=where,
        pointer=torch.tensor([[[LN(3), 0.0], [LN(2), 0.0], [0.0, LN(3)]]]),
        named=named,
    )
    truth = Truth(
        cell=torch.tensor([[0, 1]]),
        where=torch.tensor([[[0.5, 0.0, 0.0], [7.0, 7.0, 7.0]]]),
        present=torch.tensor([[True, False]]),
        named=torch.tensor([[0, 0, 0]]),
    )
    return found, truth


def test_losses_by_hand(toy):
    """token: softmax 3/4.  presence: one positive of weight 4, three negatives at score 0, times 10.

    where: errors 0.1, 0, 0.02 beside a knee of 0.05: 0.1 - 0.025, 0, 0.02^2 / 2 / 0.05 = 0.004; mean, times
    10.  pointer: softmax 3/4, 2/3, 1/4.  named: one error of 0.1 among nine numbers.
    """
    total, figures = grounding_loss(*toy)
    expected = {
        "token_loss": LN(4 / 3),
        "presence_loss": 10 * (4 * LN(4 / 3) + 3 * LN(2)) / 4,
        "where_loss": 10 * 0.079 / 3,
        "pointer_loss": (LN(4 / 3) + LN(3 / 2) + LN(4)) / 3,
        "named_loss": 10 * 0.075 / 9,
    }
    found = {name: figures[name].item() for name in expected}
    assert found == pytest.approx(expected, rel=1e-5)
    assert total.item() == pytest.approx(sum(expected.values()), rel=1e-5)


def test_figures_by_hand(toy):
    """Gripper and object are pointed at, the goal is not; 0.1 of 0.25 m is 25 mm."""
    figures = grounding_loss(*toy)[1]
    pointed = [figures[f"{name}_pointed"].item() for name in ("gripper", "object", "goal")]
    missed = [figures[f"{name}_miss_mm"].item() for name in ("gripper", "object", "goal")]
    assert pointed == [1.0, 1.0, 0.0]
    assert missed == pytest.approx([0.0, 25.0, 0.0], abs=1e-4)


@pytest.fixture
def pictures():
    """Six pictures; the gripper, one block and one bin in places of their own."""
    rng = np.random.default_rng(0)
    count, things = 6, len(THINGS)
    present = np.zeros((count, things), bool)
    present[:, [0, 1, -1]] = True
    return Annotated(
        frames=rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8),
        instructions=("put the red block in the box",) * count,
        where=rng.uniform(-0.2, 0.2, (count, things, 3)).astype(np.float32),
        present=present,
        pixels=rng.uniform(0, 1, (count, things, 2)).astype(np.float32),
        named=np.tile([0, 1, things - 1], (count, 1)),
    )


def test_truth_of_a_picture(tiny, pictures):
    """Token grid of 2 x 2 (64 pixels, patches of 16, merged 2 x 2): (column, row) (0.9, 0.1) is token 1.

    Pixels outside the picture count for its edge.
    """
    grounding = Grounding(tiny(), pictures, GroundingConfig(batch=2), seed=0)
    pictures.pixels[3, 0] = (0.9, 0.1)
    pictures.pixels[3, 1] = (0.1, 0.9)
    pictures.pixels[3, 2] = (1.7, -0.3)
    truth = grounding._truth(np.array([3]), 4)
    assert truth.cell[0, :3].tolist() == [1, 2, 1]
    assert truth.where[0, 0].tolist() == pytest.approx((pictures.where[3, 0] / 0.25).tolist())
    assert torch.equal(truth.present[0], torch.from_numpy(pictures.present[3]))


def test_a_few_steps_lower_the_loss(tiny, pictures):
    config = GroundingConfig(iterations=12, batch=6, lr=3e-2)
    bundle = tiny()
    grounding = Grounding(bundle, pictures, config, seed=0)
    head = bundle.policy.value_head[0].weight.detach().clone()
    figures = [figure for _, figure in grounding.steps()]
    assert len(figures) == 12
    assert figures[-1]["loss"] < 0.8 * figures[0]["loss"]
    assert torch.equal(bundle.policy.value_head[0].weight, head)


def test_same_seed_same_lessons(tiny, pictures):
    def losses(seed):
        grounding = Grounding(tiny(), pictures, GroundingConfig(iterations=2, batch=2), seed)
        return [figure["loss"] for _, figure in grounding.steps()]

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)
