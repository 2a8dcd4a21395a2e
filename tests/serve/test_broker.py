"""Which action of which chunk is played: receding, ahead of time, blended."""

import numpy as np
import pytest

from lastr1.serve.broker import Broker


def chunk(first, length=4):
    return np.stack([np.arange(first, first + length), np.arange(length) % 2], axis=1).astype(np.float32)


def broker(**knobs):
    return Broker(**{"play": 4, "ahead": 2, "blend": "none", "binary": (False, True), **knobs})


def halfway(**knobs):
    """Two actions of the first chunk are played, and the next one is asked for."""
    it = broker(**knobs)
    it.asked()
    it.take(chunk(0))
    assert [it.next()[0], it.next()[0]] == [0, 1]
    assert it.wants
    it.asked()
    return it


def test_what_was_played_while_thinking_is_skipped():
    it = halfway()
    assert it.next()[0] == 2
    it.take(chunk(100))
    assert [it.next()[0] for _ in range(3)] == [101, 102, 103]
    assert it.empty


def test_blending_by_hand():
    """Old 2, 3 against new 100, 101: weights of the old 2/3, 1/3; the gripper is the new one's at once."""
    it = halfway(blend="linear")
    it.take(chunk(100))
    played = np.array([it.next() for _ in range(4)])
    np.testing.assert_allclose(played[:, 0], [2 * 2 / 3 + 100 / 3, 3 / 3 + 101 * 2 / 3, 102, 103], rtol=1e-6)
    np.testing.assert_array_equal(played[:, 1], [0, 1, 0, 1])


def test_the_soft_mask_by_hand():
    """c = 2/3, 1/3: c (e^c - 1) / (e - 1) = 0.367706, 0.076746."""
    it = halfway(blend="soft")
    it.take(chunk(100))
    assert it.next()[0] == pytest.approx(100 - 98 * 0.367706, rel=1e-5)
    assert it.next()[0] == pytest.approx(101 - 98 * 0.076746, rel=1e-5)


def test_nothing_is_played_twice_and_nothing_after_a_drop():
    it = broker(play=3, ahead=0)
    assert it.empty
    assert it.wants
    it.asked()
    it.take(chunk(0))
    assert not it.wants
    assert [it.next()[0] for _ in range(3)] == [0, 1, 2]
    assert it.empty  # the fourth is left
    it.take(chunk(10))
    it.drop()
    assert it.empty
