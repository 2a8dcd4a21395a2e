"""What crosses processes, wires and robots: numpy only.

Axes: H image rows, W image columns, S state size, C control steps per chunk, A action size.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]  # [H, W, 3] RGB, row 0 at the top
Floats: TypeAlias = NDArray[np.float32]
Array: TypeAlias = NDArray[Any]


class UserError(Exception):
    """A mistake of the user (or of a file they gave us): one line that names the value and the fix.

    The command line prints it and exits with code 2; nothing inside the package catches it.
    """


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where an episode begins: a task and how its scene is laid out."""

    task: int
    """Index into `Env.tasks`."""
    state: int | None = None
    """Index of a stored initial state (0..`Env.stored_states` - 1); None draws a fresh scene from `seed`."""
    seed: int = 0
    placed: tuple[float, ...] = ()
    """The simulator's own state vector, in place of `state` and `seed` (LIBERO's demonstrations have it)."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the policy may look at before a decision."""

    images: dict[str, Image]
    """Camera name -> image [H, W, 3], in the order of `RobotSpec.cameras`."""
    state: Floats
    """Proprioception [S] in the order and units of `RobotSpec.state`."""
    instruction: str


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """Control steps to be played open loop."""

    actions: Floats
    """[C, A] in the order and units of `RobotSpec.action`."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What happened while a chunk was played."""

    observation: Observation
    """After the last control step that was played."""
    reward: float
    """Sum over the control steps played; 1.0 on success, otherwise 0."""
    terminated: bool
    """The task was solved (also when the cap was reached in the same control step)."""
    truncated: bool
    """The step cap was reached without success; never together with `terminated`."""
    steps: int
    """Control steps played, 1..C: success or the cap may end a chunk early."""
