"""Demonstrations as transitions, for the stream that is cloned."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from lastr1.config import Config
from lastr1.demos.dataset import DemonstrationSet
from lastr1.model.hub import replacing
from lastr1.model.weights import Bundle
from lastr1.train.actor import make_transition, reward
from lastr1.train.buffers import DEMONSTRATIONS, FOLDER, Place, write_into
from lastr1.types import Observation


def write_demonstrations(root: Path, bundle: Bundle, config: Config, data: DemonstrationSet) -> None:
    """One transition from every fourth part of a chunk on, all of them or none.

    They overlap: a policy decides wherever its last chunk happened to end.  The last one of a successful
    demonstration is shorter than a chunk and earns the prize.
    """
    job, size = config.interactive, bundle.policy.config.chunk
    frames, actions = 0, 0
    with replacing(root / FOLDER / DEMONSTRATIONS) as new:
        for episode, (steps, text) in enumerate(zip(data.steps.tolist(), data.instructions, strict=True)):
            seen = [
                Observation(
                    images={camera: rows[frames + i] for camera, rows in data.frames.items()},
                    state=data.states[frames + i],
                    instruction=text,
                )
                for i in range(steps + 1)
            ]
            for first in range(0, steps, max(1, size // 4)):
                end = min(first + size, steps)
                played = data.actions[actions + first : actions + end]
                chunk = np.zeros((size, played.shape[1]), dtype=np.float32)
                chunk[: len(played)] = played
                row = replace(
                    make_transition(bundle, job, seen[first], seen[end], chunk),
                    task=int(data.tasks[episode]),
                    steps=len(played),
                    reward=reward(job, len(played), success=end == steps),
                    terminated=end == steps,
                    success=end == steps,
                    is_intervention=True,
                    teleop_action=chunk,
                )
                write_into(new, Place(episode=episode, index=first), row)
            frames, actions = frames + steps + 1, actions + steps
