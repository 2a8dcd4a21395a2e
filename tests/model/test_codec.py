"""Robot units <-> bins: golden numbers (ALGORITHM.md B.1) and properties.  Axes: A action size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastr1.model.codec import BINS, Codec, decode, encode

CODEC = Codec(q01=(-0.8, 0.1, 0.0), q99=(0.4, 0.3, 1.0), mask=(True, True, False))
UNIT = st.floats(-1, 1)


@pytest.mark.parametrize(
    ("x", "token", "back"),
    [
        (1.0, 0, 0.996078),
        (0.9961, 1, 0.996078),
        (0.5, 64, 0.501961),
        (0.0, 128, 0.0),
        (0.0039, 128, 0.0),
        (-0.004, 129, -0.007843),
        (-0.5, 192, -0.501961),
        (-1.0, 255, -0.996078),
        (1.7, 0, 0.996078),  # outside is clipped
        (-9.0, 255, -0.996078),
    ],
)
def test_golden(x, token, back):
    assert encode(np.array(x)) == token
    assert decode(np.array(token)) == pytest.approx(back, abs=5e-7)


@given(UNIT)
def test_error_is_at_most_half_a_bin(x):
    assert abs(decode(encode(np.array(x))) - x) <= 1 / 255 + 1e-12


@given(UNIT, UNIT)
def test_larger_values_have_smaller_tokens(x, y):
    x, y = min(x, y), max(x, y)
    assert encode(np.array(x)) >= encode(np.array(y))


def test_every_token_returns_but_the_first():
    """Bins 0 and 1 share the highest centre."""
    tokens = np.arange(BINS)
    assert encode(decode(tokens)).tolist() == [1, *range(1, BINS)]
    assert (np.diff(decode(tokens)[1:]) < 0).all()


def test_65_tokens_are_an_open_gripper():
    tokens = np.arange(BINS)
    rows = np.stack([tokens] * 3, -1)
    assert CODEC.decode(rows)[:, 2].tolist() == [1.0] * 65 + [0.0] * 191
    # a demonstrated gripper is encoded raw: open is token 0, closed the middle
    assert CODEC.encode(np.array([[0, 0.2, 1.0], [0, 0.2, 0.0]]))[:, 2].tolist() == [0, 128]


@given(
    st.lists(st.tuples(st.floats(-0.8, 0.4), st.floats(0.1, 0.3), st.sampled_from([0.0, 1.0])), min_size=1)
)
def test_round_trip_in_robot_units(rows):
    """Half a bin of the range [q01, q99] of each dimension; the gripper exactly."""
    actions = np.array(rows)
    back = CODEC.decode(CODEC.encode(actions))
    assert back.dtype == np.float32
    error = np.abs(back - actions)
    assert (error[:, 0] <= 1.2 / 2 / 255 + 1e-6).all()
    assert (error[:, 1] <= 0.2 / 2 / 255 + 1e-6).all()
    assert (error[:, 2] == 0).all()


def test_outside_the_percentiles_is_clipped_to_them():
    low, high = CODEC.decode(CODEC.encode(np.array([[-5.0, -5, 0], [5.0, 5, 1]])))
    assert low[:2] == pytest.approx([-0.8, 0.1], abs=0.003)
    assert high[:2] == pytest.approx([0.4, 0.3], abs=0.003)


def test_a_dimension_that_never_moved():
    """q01 = q99 (a demonstration that holds one joint): decodes to that value, without a division by zero."""
    still = Codec(q01=(0.25,), q99=(0.25,), mask=(True,))
    assert still.decode(still.encode(np.array([[0.25], [3.0]]))).tolist() == [[0.25], [0.25]]


def test_shapes_survive():
    chunk = np.zeros((5, 8, 3))
    assert CODEC.encode(chunk).shape == (5, 8, 3)
    assert CODEC.encode(chunk).dtype == np.int64
    assert CODEC.decode(CODEC.encode(chunk)).shape == (5, 8, 3)
