"""Names of a request's entries: ours, and those that openpi's LIBERO and DROID clients send.  Torch-free.

Axes: H image rows, W image columns, S state size, C control steps, A action size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lastr1.serve.wire import WireError
from lastr1.spec import Dim, RobotSpec
from lastr1.types import ActionChunk, Array, Floats, Image, Observation

PROMPT = "prompt"
DEADLINE = "deadline_ms"
LARGEST = 4096
"""pixels per image edge"""
LONGEST = 1000
"""characters of an instruction"""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How one kind of client calls things."""

    name: str
    images: tuple[str, ...]
    """keys of images [H, W, 3], in the order of `RobotSpec.cameras`; those beyond our cameras are not read"""
    state: tuple[str, ...]
    """keys whose vectors, one after the other, are the state"""
    closed: float
    """what this client calls a closed gripper, in state and action; we say 0"""
    open: float
    """and an open one; we say 1"""


LIBERO = Naming(
    name="LIBERO",
    images=("observation/image", "observation/wrist_image"),
    state=("observation/state",),
    closed=1.0,
    open=-1.0,
)
"""images turned by 180 degrees and states as our own LIBERO has them (its fingers are in m, not fractions)"""
DROID = Naming(
    name="DROID",
    images=(
        "observation/exterior_image_1_left",
        "observation/wrist_image_left",
        "observation/exterior_image_2_left",
    ),
    state=("observation/joint_position", "observation/gripper_position"),
    closed=1.0,
    open=0.0,
)
_OURS = "observation/images/"


def naming_of(message: Mapping[str, object], spec: RobotSpec) -> Naming:
    """Which naming a request follows, by its first image.  `WireError` when by none."""
    ours = Naming(
        name="lastr1",
        images=tuple(_OURS + camera.name for camera in spec.cameras),
        state=("observation/state",),
        closed=0.0,
        open=1.0,
    )
    for naming in (ours, LIBERO, DROID):
        if naming.images[0] in message:
            return naming
    wanted = ", ".join(repr(n.images[0]) for n in (ours, LIBERO, DROID))
    raise WireError(f"no image: send {wanted}")


def request_of(observation: Observation, deadline_ms: float) -> dict[str, object]:
    """An observation under our own names."""
    images = {_OURS + camera: image for camera, image in observation.images.items()}
    words = {PROMPT: observation.instruction, DEADLINE: deadline_ms}
    return {**images, "observation/state": observation.state, **words}


def observation_of(message: Mapping[str, Any], naming: Naming, spec: RobotSpec) -> Observation:
    """What the policy looks at.  `WireError` names all that is missing or does not fit, in one line."""
    wrong: list[str] = []
    keys = naming.images[: len(spec.cameras)]
    if len(keys) < len(spec.cameras):
        wrong.append(f"{naming.name} clients have {len(keys)} cameras, {spec.name} has {len(spec.cameras)}")
    images = [_image(message.get(key), key, wrong) for key in keys]
    state = _state(message, naming, spec, wrong)
    words = _words(message.get(PROMPT), wrong)
    if wrong:
        raise WireError("; ".join(wrong))
    names = [camera.name for camera in spec.cameras]
    return Observation(images=dict(zip(names, images, strict=True)), state=state, instruction=words)


def _image(value: object, key: str, wrong: list[str]) -> Image:
    fits = (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.ndim == 3
        and value.shape[2] == 3
        and min(value.shape) > 0
        and max(value.shape) <= LARGEST
    )
    if not fits:
        wrong.append(f"{key}: send uint8 [H, W, 3], up to {LARGEST} pixels an edge, not {_said(value)}")
        return np.zeros((1, 1, 3), np.uint8)
    assert isinstance(value, np.ndarray)
    return value


def _state(message: Mapping[str, Any], naming: Naming, spec: RobotSpec, wrong: list[str]) -> Floats:
    parts = [_vector(message.get(key), key, wrong) for key in naming.state]
    state = np.concatenate(parts)
    if not wrong and len(state) != len(spec.state):
        names = ", ".join(f"{dim.name} ({dim.unit})" for dim in spec.state)
        wrong.append(f"{' + '.join(naming.state)}: {len(state)} numbers, {spec.name} has {names}")
    if wrong:
        return state
    opened = (state - naming.closed) / (naming.open - naming.closed)
    return np.where(_grippers(spec.state), opened, state).astype(np.float32)


def _vector(value: object, key: str, wrong: list[str]) -> Floats:
    numbers = value if isinstance(value, np.ndarray) else np.zeros(0)
    if isinstance(value, float | int | np.number):
        numbers = np.array([value], np.float64)
    elif isinstance(value, list) and all(isinstance(x, float | int) for x in value):
        numbers = np.array(value, np.float64)
    if numbers.dtype.kind not in "iuf" or numbers.size == 0 or numbers.size > LARGEST:
        wrong.append(f"{key}: send numbers, not {_said(value)}")
        return np.zeros(0, np.float32)
    if not np.isfinite(numbers).all():
        wrong.append(f"{key}: not all numbers are finite")
    return numbers.reshape(-1).astype(np.float32)


def _words(value: object, wrong: list[str]) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST:
        wrong.append(f"{PROMPT}: send 1..{LONGEST} characters, not {_said(value)}")
        return ""
    return value


def _said(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__


def deadline_of(message: Mapping[str, Any]) -> float | None:
    """Milliseconds from its arrival after which a request wants no answer any more; None: it does not say."""
    value = message.get(DEADLINE)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, float | int) or not 0 < value < 1e9:
        raise WireError(f"{DEADLINE}: send positive milliseconds, not {value!r:.40}")
    return float(value)


def actions_for(chunk: ActionChunk, naming: Naming, spec: RobotSpec) -> Floats:
    """[C, A] as the client's environment takes it: grippers in its own words."""
    gripper = naming.closed + (naming.open - naming.closed) * chunk.actions
    return np.where(_grippers(spec.action), gripper, chunk.actions).astype(np.float32)


def _grippers(dims: Sequence[Dim]) -> Array:
    return np.array([dim.unit == "open fraction" for dim in dims])
