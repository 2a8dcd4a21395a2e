"""What travels between policy and robot: numpy in msgpack as openpi packs it, and the server's first words.

An array is {b"__ndarray__": True, b"data", b"dtype", b"shape"}, a scalar {b"__npgeneric__": True, b"data",
b"dtype"} (PyPI `openpi-client`, `msgpack_numpy.py`).  Arrays hold numbers or booleans: no pickle, no objects,
no text (that travels as text).  Torch-free.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from lastr1.knobs import from_dict, to_dict
from lastr1.spec import RobotSpec, mismatches
from lastr1.types import UserError

PROTOCOL = "lastr1/1"
"""how our servers introduce themselves"""
MOST_ITEMS = 1024
"""entries of one list or map: msgpack makes room for what a header claims before it reads on"""
MOST_PARTS = 512
"""lists and maps in one frame: an empty one is a byte on the wire and 64 in memory"""
MOST_AXES = 8
_DTYPE = re.compile(r"\|b1|[<>|][iu]1|[<>][iu][248]|[<>]f[248]")
"""what `dtype.str` may say: `np.dtype` itself would take objects and records"""


class WireError(ValueError):
    """A frame that cannot be read, or a value that cannot be sent: one line."""


def pack(value: object) -> bytes:
    """A frame.  `WireError` names a dtype that does not travel."""
    try:
        frame: bytes = msgpack.packb(value, default=_packed)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"cannot be sent: {error}") from None
    return frame


def _packed(value: object) -> dict[bytes, object]:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"{type(value).__name__} does not travel")
    if not _DTYPE.fullmatch(value.dtype.str):
        raise TypeError(f"arrays of {value.dtype} do not travel")
    if isinstance(value, np.ndarray):
        content = {b"data": value.tobytes(), b"shape": value.shape}
        return {b"__ndarray__": True, b"dtype": value.dtype.str, **content}
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


def unpack(frame: bytes) -> Any:
    """What a frame holds: plain values and arrays, which are read-only views of it.

    `WireError` when it is damaged, claims more than it holds, or holds what does not travel.
    """
    parts = 0

    def counted(value: Any) -> Any:
        nonlocal parts
        parts += 1
        if parts > MOST_PARTS:
            raise WireError(f"more than {MOST_PARTS} lists and maps")
        return _unpacked(value) if isinstance(value, dict) else value

    try:
        return msgpack.unpackb(
            frame,
            object_hook=counted,
            list_hook=counted,
            max_array_len=MOST_ITEMS,
            max_map_len=MOST_ITEMS,
            max_ext_len=0,
        )
    except WireError:
        raise
    except (TypeError, ValueError, OverflowError, msgpack.UnpackException) as error:
        raise WireError(f"not msgpack: {error}") from None


def _unpacked(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        data, shape = _field(value, b"data", bytes), _field(value, b"shape", list)
        dtype = _dtype(value)
        if len(shape) > MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
            raise WireError(f"no array has the shape {shape[:MOST_AXES]}")
        if math.prod(shape) * dtype.itemsize != len(data):
            raise WireError(f"{len(data)} bytes are not an array of {dtype} of shape {shape}")
        return np.ndarray(buffer=data, dtype=dtype, shape=shape)
    if b"__npgeneric__" in value:
        number = value.get(b"data")
        if not isinstance(number, bool | int | float):
            raise WireError(f"{type(number).__name__} is not a number")
        return _dtype(value).type(number)
    return value


def _field(value: dict[Any, Any], key: bytes, kind: type) -> Any:
    if not isinstance(value.get(key), kind):
        raise WireError(f"an array without {key.decode()}")
    return value[key]


def _dtype(value: dict[Any, Any]) -> "np.dtype[Any]":
    name = _field(value, b"dtype", str)
    if not _DTYPE.fullmatch(name):
        raise WireError(f"arrays of {name[:20]!r} do not travel")
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """The server's first frame."""

    robot: RobotSpec
    """what its policy was taught to drive"""
    chunk: int
    """C: control steps of a decision"""
    groups: int
    """groups a thought may have here"""
    latents_per_group: int
    deadline_ms: float
    """what a request without a deadline of its own should take"""


def greet(greeting: Greeting) -> bytes:
    """The first frame; openpi's clients keep it as `get_server_metadata()`."""
    return pack({"protocol": PROTOCOL, **to_dict(greeting)})


def understand(frame: bytes) -> Greeting:
    """The server's first frame.  `WireError` when another kind of server sent it."""
    facts = unpack(frame)
    if not isinstance(facts, dict) or facts.pop("protocol", None) != PROTOCOL:
        raise WireError(f"the server does not speak {PROTOCOL}: is it `lastr1 serve`?")
    try:
        greeting: Greeting = from_dict(Greeting, facts)
    except (AttributeError, TypeError, ValueError) as error:
        raise WireError(f"the server's greeting cannot be read: {error}") from None
    return greeting


def agree(policy: RobotSpec, robot: RobotSpec) -> None:
    """`UserError` names every camera, state, action and rate in which the served policy's robot differs."""
    wrong = mismatches(policy, robot)
    if wrong:
        raise UserError(f"the served policy drives {policy.name}, not {robot.name}: {'; '.join(wrong)}")
