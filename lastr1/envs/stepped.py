"""Simulators that are played one control step at a time: what LIBERO and the dual-arm tasks share.

Axes: C control steps per chunk, H of an episode, A action size, S state size.

An expert's episode is first planned undrawn (a control step costs a tenth of a picture) and, if it succeeded,
replayed action by action with the cameras on: the environments are deterministic, so the replay succeeds too,
and a failure costs no drawing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lastr1.envs.base import Env, Recording, Start
from lastr1.types import ActionChunk, Floats, Observation, Outcome


class Stepped(Env, Protocol):
    """An environment with the single control step under its chunks."""

    suite: str

    def step(self, action: Floats, *, look: bool) -> bool:
        """One control step [A]; True when the task is solved.  The cameras are drawn only if `look`.

        `RuntimeError`: the episode is over.
        """

    def observe(self) -> Observation:
        """What the policy sees now."""


def check_start(env: Stepped, start: Start) -> None:
    """`ValueError` names a task or stored state that does not exist."""
    if not 0 <= start.task < len(env.tasks):
        raise ValueError(f"task {start.task} of {env.suite}: there are {len(env.tasks)}, from 0")
    if start.state is not None and not 0 <= start.state < env.stored_states:
        raise ValueError(f"state {start.state} of {env.suite}: there are {env.stored_states}, from 0")


def play_chunk(env: Stepped, chunk: ActionChunk, left: int) -> Outcome:
    """Play up to C control steps open loop, no more than the `left` ones of the episode; look at the end.

    `ValueError`: actions that are not finite [C, A]; `RuntimeError`: the episode is over.
    """
    actions, size = np.asarray(chunk.actions), len(env.spec.action)
    fits = actions.ndim == 2 and len(actions) > 0 and actions.shape[1] == size
    if not fits or not np.isfinite(actions).all():
        raise ValueError(f"a chunk holds [C, {size}] finite actions, not {actions.shape}: {actions}")
    actions = actions[: max(left, 1)]
    played, solved = 0, False
    for action in actions:
        played += 1
        solved = env.step(action, look=played == len(actions))
        if solved:
            break
    return Outcome(
        observation=env.observe(),
        reward=float(solved),
        terminated=solved,
        truncated=not solved and played >= left,
        steps=played,
    )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an expert did in one episode, not yet seen by a camera."""

    start: Start
    actions: Floats
    """[H, A]"""
    success: bool


class Planner(Protocol):
    """A scripted expert of such an environment."""

    def plan(self, start: Start) -> Plan:
        """Play the task's skills without drawing.  `UserError` when no skill covers the task's goal."""

    def record(self, plan: Plan) -> Recording:
        """Replay a plan with the cameras on, at the size the environment was made for.

        `ValueError`: the plan failed.
        """


def plan_episode(env: Stepped, start: Start, skill: Callable[[], Iterator[Floats]]) -> Plan:
    """Play a skill undrawn, to success, its own end or the cap; `skill` is called once the scene stands."""
    env.reset(start)
    actions: list[Floats] = []
    solved = False
    for action in skill():
        actions.append(action)
        solved = env.step(action, look=False)
        if solved or len(actions) == env.cap:
            break
    return Plan(start=start, actions=np.stack(actions), success=solved)


def record_plan(env: Stepped, plan: Plan) -> Recording:
    """Replay a plan with the cameras on.  `ValueError`: the plan failed."""
    if not plan.success:
        raise ValueError(f"the plan for {plan.start} failed: there is nothing to demonstrate")
    seen = [env.reset(plan.start)]
    solved = False
    for action in plan.actions:
        solved = env.step(action, look=True)
        seen.append(env.observe())
    assert solved, f"the replay of {plan.start} differs from its plan"
    return Recording(
        start=plan.start,
        instruction=seen[0].instruction,
        frames={c.name: np.stack([o.images[c.name] for o in seen]) for c in env.spec.cameras},
        states=np.stack([o.state for o in seen]),
        actions=plan.actions,
        success=solved,
    )
