"""Numpy in msgpack: bit for bit, openpi's own bytes, and nothing that could hurt."""

import contextlib
import pickle
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lastr1.serve.wire import Greeting, WireError, agree, greet, pack, understand, unpack
from lastr1.types import UserError

NUMBERS = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
)


@settings(max_examples=40)
@given(hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
def test_an_array_comes_back_bit_for_bit(array):
    found = unpack(pack({"a": array}))["a"]
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


@settings(max_examples=40)
@given(NUMBERS.flatmap(lambda d: hnp.arrays(d, ())))
def test_a_scalar_comes_back(array):
    scalar = array[()]
    found = unpack(pack({"a": scalar}))["a"]
    assert found == scalar or (found != found and scalar != scalar)
    # a float64 is a plain number to msgpack, as it is for openpi
    assert np.dtype(type(found)) == scalar.dtype.newbyteorder("=")


def test_an_array_that_is_not_contiguous():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[::-1, ::-1]
    assert np.array_equal(unpack(pack(image)), image)


def test_the_bytes_are_openpi_s():
    """By hand: a map of 4; bin keys (c4 length); 2 uint8 (7, 9) of shape [2]; True is c3; '|u1' is a3."""
    wanted = (
        b"\x84"
        + b"\xc4\x0b__ndarray__\xc3"
        + b"\xc4\x05dtype\xa3|u1"
        + b"\xc4\x04data\xc4\x02\x07\x09"
        + b"\xc4\x05shape\x91\x02"
    )
    assert pack(np.array([7, 9], np.uint8)) == wanted
    assert np.array_equal(unpack(wanted), [7, 9])


@pytest.mark.parametrize(
    "value",
    [
        np.array([None]),
        np.array([1j]),
        np.zeros(1, "i4,f4"),
        np.zeros(1, "M8[s]"),
        np.zeros(1, "V3"),
        np.array([b"x"]),
        np.array(["x"]),
        {1, 2},
        np.complex64(1),
    ],
    ids=repr,
)
def test_what_does_not_travel(value):
    with pytest.raises(WireError, match=r"travel"):
        pack({"a": value})


def array(**fields):
    content = {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<f4", "shape": [2], **fields}
    return msgpack.packb({k.encode(): v for k, v in content.items() if v is not None})


def scalar(data, dtype):
    return msgpack.packb({b"__npgeneric__": True, b"data": data, b"dtype": dtype})


HOSTILE = {
    "an object": array(dtype="|O"),
    "a pickle": pickle.dumps(np.zeros(3)),
    "a record": array(dtype="i4,f4"),
    "a dtype with code": array(dtype="__import__('os')"),
    "a void": array(dtype="|V8"),
    "text beyond Unicode": array(data=b"\xff\xff\xff\x7f" * 2, dtype="<U1"),
    "a date": array(dtype="<M8[s]"),
    "too few bytes": array(shape=[3]),
    "too many bytes": array(shape=[1]),
    "negative": array(shape=[-2]),
    "half a shape": array(shape=[2.0]),
    "a true shape": array(shape=[True, 2]),
    "nothing of a lot": array(data=b"", shape=[0, 2**62, 2**62]),
    "many axes": array(shape=[2] + [1] * 40),
    "no data": array(data=None),
    "text for data": array(data="x" * 8),
    "no dtype": array(dtype=None),
    "no shape": array(shape=None),
    "300 in a byte": scalar(300, "|u1"),
    "words for a number": scalar("abc", "<f4"),
    "an object scalar": scalar(1, "|O"),
    "a list for a number": scalar([1], "<f4"),
    "an extension": msgpack.packb(msgpack.ExtType(5, b"x" * 100)),
    "cut off": pack({"a": np.zeros(9)})[:-3],
    "more behind": pack({"a": 1}) + b"\0",
    "empty": b"",
    "never used": b"\xc1",
    "room for 2^32": b"\xdd\xff\xff\xff\xff",
    "lists in lists": b"\x91" * 100_000 + b"\x90",
    "many maps": b"\xdc\x04\x00" + b"\x80" * 1024,
    "broken text": b"\xa2\xff\xff",
    "a number for a key": msgpack.packb({5: 1}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_frame_is_one_line(case):
    with pytest.raises(WireError) as found:
        unpack(HOSTILE[case])
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 300


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(frame):
    with contextlib.suppress(WireError):
        unpack(frame)


@pytest.fixture
def greeting(robot):
    return Greeting(robot=robot(2), chunk=8, groups=4, latents_per_group=2, deadline_ms=500.0)


def test_the_greeting_comes_back(greeting):
    assert understand(greet(greeting)) == greeting


def test_another_server_is_noticed(greeting):
    for frame in (
        pack({}),
        pack([1]),
        pack({"protocol": "lastr1/1"}),
        pack({**unpack(greet(greeting)), "x": 1}),
    ):
        with pytest.raises(WireError, match="server"):
            understand(frame)


def test_every_difference_between_robots_is_named(robot):
    mine = robot(2)
    swapped = (mine.action[1], mine.action[0], *mine.action[2:])
    other = replace(
        mine,
        cameras=(mine.cameras[0], replace(mine.cameras[1], name="wrist")),
        state=(replace(mine.state[0], unit="rad"),),
        action=swapped,
        rate=10.0,
    )
    agree(mine, replace(mine, name="another arm of the same kind"))
    with pytest.raises(UserError) as found:
        agree(mine, other)
    line = str(found.value)
    wanted = ("cameras[1]", "wrist", "state[0]", "rad", "action[0]", "action[1]", "rate: 20.0 against 10.0")
    assert [word for word in wanted if word not in line] == []
    assert "action[2]" not in line
