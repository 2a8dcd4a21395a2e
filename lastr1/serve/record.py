"""What was driven, as a LeRobotDataset v3 and as a log of everything that was not done as wanted.

Axes: H control steps of an episode, A action size.
"""

import json
from pathlib import Path

import numpy as np

from lastr1.demos.dataset import Demonstration
from lastr1.serve.runtime import ControlStep
from lastr1.types import Floats, Observation


class Recorder:
    """One episode: what was seen, and the actions that were executed (not those that were wanted)."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        """before every control step so far; empty as long as a camera was dark from the beginning"""
        self._actions: list[Floats] = []

    def hear(self, step: ControlStep) -> None:
        """A control step; where a camera was dark, the last view stands (before the first: nothing)."""
        if step.observation is None and not self.seen:
            return
        self.seen.append(step.observation or self.seen[-1])
        self._actions.append(step.executed.action)

    def demonstration(self, last: Observation | None, *, instruction: str, success: bool) -> Demonstration:
        """The episode; `last` is what was seen after its last control step (None: a camera was dark)."""
        seen = [*self.seen, last or self.seen[-1]]
        return Demonstration(
            task=0,
            instruction=instruction,
            frames={camera: np.stack([o.images[camera] for o in seen]) for camera in seen[0].images},
            states=np.stack([o.state for o in seen]),
            actions=np.stack(self._actions),
            success=success,
        )


class Log:
    """One JSON line for every control step in which the robot held, or did something else than was wanted."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._step = 0

    def hear(self, step: ControlStep) -> None:
        """A control step."""
        if step.wanted is None or step.executed.clipped:
            line = {
                "step": self._step,
                "why": step.why,
                "clipped": step.executed.clipped,
                "wanted": None
                if step.wanted is None
                else [float(x) if np.isfinite(x) else str(x) for x in step.wanted],
                "executed": [round(float(x), 6) for x in step.executed.action],
            }
            self._file.write(json.dumps(line) + "\n")
        self._step += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()
