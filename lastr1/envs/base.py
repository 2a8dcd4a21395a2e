"""The contract of every simulator.  Torch-free."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lastr1.spec import RobotSpec
from lastr1.types import ActionChunk, Floats, Image, Observation, Outcome
from lastr1.types import Start as Start  # part of the contract


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What has to be known to repeat an evaluation; goes into its result."""

    suite: str
    cap: int
    """control steps"""
    settle: int
    """control steps before the first decision, not counted"""
    camera: str
    image: int
    """pixels"""
    render: str
    """how: as `EnvConfig.render` says"""
    renderer: str
    """backend and driver, for example `egl: llvmpipe`"""
    patches: tuple[str, ...]
    """what differs from the published initial states"""
    packages: dict[str, str]
    """package -> version"""


class Env(Protocol):
    """One simulated scene: any task of a suite, one episode at a time."""

    spec: RobotSpec
    tasks: tuple[str, ...]
    """Instruction of each task."""
    stored_states: int
    """Number of stored initial states per task (0: only fresh scenes)."""
    cap: int
    """Control steps after which an episode is truncated."""

    def reset(self, start: Start) -> Observation:
        """Begin an episode.  `ValueError` names a task or stored state that does not exist."""

    def play(self, chunk: ActionChunk) -> Outcome:
        """Play the chunk open loop, no further than success or the step cap; look once, at the end."""

    def frame(self, size: int) -> Image:
        """The scene now, [size, size, 3], for videos (the policy never sees it)."""

    def describe(self) -> Setup:
        """How this environment is set up; cheap, also before the first `reset`."""

    def close(self) -> None:
        """Free the simulator."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One episode of a scripted expert, seen at every control step: what a demonstration is made of.

    Axes: H control steps, S state size, A action size.
    """

    start: Start
    instruction: str
    frames: dict[str, NDArray[np.uint8]]
    """Camera -> o_0..o_H, [H + 1, height, width, 3] RGB."""
    states: Floats
    """[H + 1, S] in the units of `RobotSpec.state`."""
    actions: Floats
    """[H, A] in the units of `RobotSpec.action`."""
    success: bool
