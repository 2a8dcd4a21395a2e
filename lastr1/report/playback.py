"""An episode of a recording, played open loop in its simulator.

Axes: H control steps, A action size.
"""

from dataclasses import dataclass, replace

import numpy as np

from lastr1.demos.dataset import Demonstration
from lastr1.demos.source import Source
from lastr1.envs.base import Env
from lastr1.spec import RobotSpec
from lastr1.types import ActionChunk, Floats, Observation, Start, UserError

CHUNK = 8
TRIES = 3
"""episodes played before a recording is said not to succeed: one in seven of LIBERO's own does not"""
LOOKED = 10
"""episodes among which those are sought whose gripper opens or closes: others succeed whatever it means"""


@dataclass(frozen=True, kw_only=True)
class Playback:
    """One episode played open loop, looked at between chunks."""

    seen: tuple[tuple[int, Observation], ...]
    """control step and what the environment shows then, from the first"""
    success: bool
    steps: int


def play(env: Env, start: Start, actions: Floats) -> Playback:
    """Play actions [H, A] open loop from a start, up to success or the end."""
    observation, steps = env.reset(start), 0
    seen = [(0, observation)]
    while steps < len(actions):
        outcome = env.play(ActionChunk(actions=actions[steps : steps + CHUNK]))
        steps += outcome.steps
        seen.append((steps, outcome.observation))
        if outcome.terminated or outcome.truncated:
            return Playback(seen=tuple(seen), success=outcome.terminated, steps=steps)
    return Playback(seen=tuple(seen), success=False, steps=steps)


def first_success(
    source: Source, env: Env, matching: dict[int, int], numbers: list[int]
) -> tuple[int, Demonstration, Start | None, Playback]:
    """Number, episode, start and playback of the first one that succeeds, or of the last one tried."""
    known = [i for i in numbers if source.episodes[i].start is not None] or numbers
    telling = [i for i in known[:LOOKED] if _grips(env.spec, next(source.demonstrations([i])))]
    for number in (telling or known)[:TRIES]:
        demo = next(source.demonstrations([number]))
        task = matching[demo.task]
        if demo.start is None:  # only what shows in any scene of the task can be compared
            look = env.reset(Start(task=task, state=0 if env.stored_states else None))
            return number, demo, None, Playback(seen=((0, look),), success=False, steps=0)
        start = replace(demo.start, task=task)
        try:
            played = play(env, start, demo.actions)
        except ValueError as error:
            raise UserError(f"{source.root}: episode {number} does not fit its task: {error}") from error
        if played.success:
            break
    return number, demo, start, played


def _grips(spec: RobotSpec, demo: Demonstration) -> bool:
    return any(dim.binary and np.ptp(demo.actions[:, i]) > 0 for i, dim in enumerate(spec.action))
