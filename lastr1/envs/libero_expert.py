"""Scripted experts for LIBERO, from privileged state, for demonstrations.

What the skills cover, and how often they succeed, is in `libero_skills`.
"""

from lastr1.envs.base import Recording, Start
from lastr1.envs.libero import LiberoEnv
from lastr1.envs.libero_geometry import Scene
from lastr1.envs.libero_skills import solve
from lastr1.envs.stepped import Plan as Plan  # what this expert makes
from lastr1.envs.stepped import plan_episode, record_plan


class LiberoExpert:
    """Plans and records demonstrations on one LIBERO environment."""

    def __init__(self, env: LiberoEnv) -> None:
        self._env = env

    def plan(self, start: Start, *, noise: float = 0.0, seed: int = 0) -> Plan:
        """Play the task's skills without drawing.  `UserError` when no skill covers the task's goal."""
        env = self._env
        return plan_episode(
            env, start, lambda: solve(Scene(env.simulation), env.goal), noise=noise, seed=seed
        )

    def record(self, plan: Plan) -> Recording:
        """Replay a plan with the camera on.  `ValueError`: the plan failed."""
        return record_plan(self._env, plan)
