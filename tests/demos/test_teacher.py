"""Thumbnails as targets: worked by hand."""

import numpy as np
import pytest

from lastr1.demos.teacher import Targets, ThumbnailTeacher, make_targets
from lastr1.types import UserError


def test_thumbnail_by_hand():
    """A 4 x 4 frame at side 2: means of 2 x 2 blocks, 0 -> -1, 127.5 -> 0, 255 -> 1; row by row, RGB last."""
    frame = np.zeros((1, 4, 4, 3), np.uint8)
    frame[0, :2, 2:, 0] = 255  # top right: red everywhere
    frame[0, 2:, :2, 1] = [[255, 0], [0, 255]]  # bottom left: green in half of it
    frame[0, 3, 3, 2] = 51  # bottom right: a quarter of it blue, 51 / 4 / 127.5 = 0.1
    found = ThumbnailTeacher(side=2).embed(frame)
    assert found.shape == (1, 12)
    assert found.dtype == np.float32
    assert found[0].tolist() == pytest.approx([-1, -1, -1, 1, -1, -1, -1, 0, -1, -1, -1, -0.9], abs=1e-6)


def test_frames_that_cannot_be_averaged():
    with pytest.raises(UserError, match=r"^frames of 12 x 9 pixels cannot be averaged to 8 x 8: choose ano"):
        ThumbnailTeacher().embed(np.zeros((1, 12, 9, 3), np.uint8))


class Table:
    """A teacher that knows its answers: one row per frame, looked up by the frame's first pixel."""

    def __init__(self, rows):
        self.rows = np.array(rows, np.float32)

    def embed(self, frames):
        return self.rows[frames[:, 0, 0, 0]]


def frames(count):
    pictures = np.zeros((count, 1, 1, 3), np.uint8)
    pictures[:, 0, 0, 0] = np.arange(count)
    return pictures


def test_constant_cosine_by_hand():
    """Targets (1, 0) and (0, 1): their mean is (0.5, 0.5), the cosine with each is 1 / sqrt(2)."""
    found = make_targets(Table([[1, 0], [0, 1]]), frames(2), 2, center=False)
    assert found.constant_cosine == pytest.approx(2**-0.5, abs=1e-6)
    # Three times as many of one kind: mean (0.75, 0.25), norm sqrt(0.625); (3 * 0.75 + 0.25) / 4 / norm.
    found = make_targets(Table([[1, 0], [2, 0], [3, 0], [0, 2]]), frames(4), 2, center=False)
    mean = np.array([1.5, 0.5])
    assert found.constant_cosine == pytest.approx((3 * 1.5 + 0.5) / 4 / np.hypot(*mean), abs=1e-6)


def test_centred_targets_have_no_mean():
    found = make_targets(Table([[3, 1], [5, 2], [10, 0]]), frames(3), 2, center=True)
    assert found.vectors.tolist() == pytest.approx(np.array([[-3, 0], [-1, 1], [4, -1]]))
    assert found.constant_cosine == pytest.approx(0, abs=1e-6)


def test_the_loudest_channels_are_kept_in_ascending_order():
    """Mean magnitudes 1, 4, 0.5, 3: channels 1 and 3."""
    rows = [[1, -5, 0, 3], [-1, 3, 1, 3]]
    found = make_targets(Table(rows), frames(2), 2, center=False)
    assert found.channels == (1, 3)
    assert found.vectors.tolist() == [[-5, 3], [3, 3]]


def test_given_channels_are_obeyed():
    """A policy that was taught some channels keeps them, whatever is loudest in new data."""
    found = make_targets(Table([[1, -5, 0, 3]]), frames(1), 2, center=False, channels=(0, 2))
    assert isinstance(found, Targets)
    assert found.channels == (0, 2)
    assert found.vectors.tolist() == [[1, 0]]


def test_a_teacher_that_is_too_narrow():
    with pytest.raises(
        UserError,
        match=r"teacher's 2 channels are fewer than the model's width 3: .* --warmup\.target average_pool$",
    ):
        make_targets(Table([[1, 2]]), frames(1), 3, center=False)


def test_many_frames_are_embedded_in_order():
    """More than one batch of the teacher."""
    count = 1500
    pictures = np.zeros((count, 8, 8, 3), np.uint8)
    pictures[..., 0] = (np.arange(count) % 256)[:, None, None]
    found = make_targets(ThumbnailTeacher(side=1), pictures, 3, center=False)
    assert found.vectors[:, 0] == pytest.approx(np.arange(count) % 256 / 127.5 - 1, abs=1e-5)
