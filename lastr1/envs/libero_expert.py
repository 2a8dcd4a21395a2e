"""Scripted experts for LIBERO, from privileged state, for demonstrations.

Axes: H control steps of an episode, S state size (8), A action size (7).  m, rad.

An episode is first planned unrendered (a control step costs a tenth of a picture) and, if it succeeded,
replayed action by action with the camera on: the environment is deterministic, so the replay succeeds too,
and a failure costs no drawing.  What the skills cover, and how often they succeed, is in `libero_skills`.
"""

from dataclasses import dataclass

import numpy as np

from lastr1.envs.base import Recording, Start
from lastr1.envs.libero import LiberoEnv
from lastr1.envs.libero_geometry import Scene
from lastr1.envs.libero_skills import solve
from lastr1.types import Floats


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the expert did in one episode, not yet seen by a camera."""

    start: Start
    actions: Floats
    """[H, A]"""
    success: bool


class LiberoExpert:
    """Plans and records demonstrations on one LIBERO environment."""

    def __init__(self, env: LiberoEnv) -> None:
        self._env = env

    def plan(self, start: Start) -> Plan:
        """Play the task's skills without drawing.  `UserError` when no skill covers the task's goal."""
        self._env.reset(start)
        actions: list[Floats] = []
        solved = False
        for action in solve(Scene(self._env.simulation), self._env.goal):
            actions.append(action)
            solved = self._env.step(action, look=False)
            if solved or len(actions) == self._env.cap:
                break
        return Plan(start=start, actions=np.stack(actions), success=solved)

    def record(self, plan: Plan) -> Recording:
        """Replay a plan with the camera on, at the size the environment was made for.

        `ValueError`: the plan failed.
        """
        if not plan.success:
            raise ValueError(f"the plan for {plan.start} failed: there is nothing to demonstrate")
        seen = [self._env.reset(plan.start)]
        solved = False
        for action in plan.actions:
            solved = self._env.step(action, look=True)
            seen.append(self._env.observe())
        assert solved, f"the replay of {plan.start} differs from its plan"
        return Recording(
            start=plan.start,
            instruction=seen[0].instruction,
            frames={c.name: np.stack([o.images[c.name] for o in seen]) for c in self._env.spec.cameras},
            states=np.stack([o.state for o in seen]),
            actions=plan.actions,
            success=solved,
        )
