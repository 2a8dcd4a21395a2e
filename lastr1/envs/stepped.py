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

# Most disturbed control steps before a demonstration, and most that go astray after them.
PREFIX, STRAY = 60, 12
LASTS = 0.8  # how much of a push is left after a control step
ASIDE = 0.6  # largest move of an arm that goes astray, controller units
TURNS = ("roll", "pitch", "yaw")
TWIST = 0.2  # how much less rotations are disturbed: a twisted hand grasps nothing


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
    astray: int = 0
    """first control steps, not shown: they leave the arms where a clumsy policy might be"""


class Planner(Protocol):
    """A scripted expert of such an environment."""

    def plan(self, start: Start, *, noise: float = 0.0, seed: int = 0) -> Plan:
        """Play the task's skills undrawn; with `noise`, after a disturbed beginning drawn from `seed`.

        `UserError` when no skill covers the task's goal.
        """

    def record(self, plan: Plan) -> Recording:
        """Replay a plan with the cameras on, at the size the environment was made for.

        `ValueError`: the plan failed.
        """


def plan_episode(
    env: Stepped,
    start: Start,
    skill: Callable[[], Iterator[Floats]],
    *,
    noise: float = 0.0,
    seed: int = 0,
) -> Plan:
    """Play a skill undrawn, to success, its own end or the cap.

    `skill` is called when the scene stands, and with `noise` (standard deviation in controller units) again
    after a disturbed beginning: from there the demonstration shows the way.
    """
    env.reset(start)
    actions: list[Floats] = []
    solved = False

    def play(moves: Iterator[Floats]) -> int:
        nonlocal solved
        for action in moves:
            actions.append(action)
            solved = env.step(action, look=False)
            if solved or len(actions) == env.cap:
                break
        return len(actions)

    astray = play(_disturbed(env, skill(), noise, np.random.default_rng(seed))) if noise else 0
    if solved or astray == env.cap:
        return Plan(start=start, actions=np.stack(actions), success=False)
    play(skill())
    return Plan(start=start, actions=np.stack(actions), success=solved, astray=astray)


def _disturbed(
    env: Stepped, skill: Iterator[Floats], noise: float, rng: np.random.Generator
) -> Iterator[Floats]:
    """The beginning of a skill with pushes that last; then, two times out of three, straight on somewhere.

    As the embedded world's demonstrations begin, but arms have inertia: a new push every control step would
    average out.
    """
    binary = np.array([dim.binary for dim in env.spec.action])
    scale = np.array([TWIST if dim.name.endswith(TURNS) else 1.0 for dim in env.spec.action])
    push = np.zeros(len(scale))
    for action, _ in zip(skill, range(int(rng.integers(PREFIX + 1))), strict=False):
        push = LASTS * push + np.sqrt(1 - LASTS**2) * noise * scale * rng.standard_normal(len(scale))
        yield np.where(binary, action, np.clip(action + push, -1.0, 1.0)).astype(np.float32)
    if rng.random() < 2 / 3:
        course = rng.uniform(-ASIDE, ASIDE, len(scale)) * (scale == 1.0)
        course = np.where(binary, rng.integers(2, size=len(scale)), course).astype(np.float32)
        for _ in range(int(rng.integers(1, STRAY + 1))):
            yield course


def record_plan(env: Stepped, plan: Plan) -> Recording:
    """Replay a plan with the cameras on.  `ValueError`: the plan failed."""
    if not plan.success:
        raise ValueError(f"the plan for {plan.start} failed: there is nothing to demonstrate")
    seen = [env.reset(plan.start)]
    shown = plan.actions[plan.astray :]
    if plan.astray:
        for action in plan.actions[: plan.astray]:
            env.step(action, look=False)
        seen = [env.observe()]
    solved = False
    for action in shown:
        solved = env.step(action, look=True)
        seen.append(env.observe())
    assert solved, f"the replay of {plan.start} differs from its plan"
    return Recording(
        start=plan.start,
        instruction=seen[0].instruction,
        frames={c.name: np.stack([o.images[c.name] for o in seen]) for c in env.spec.cameras},
        states=np.stack([o.state for o in seen]),
        actions=shown,
        success=solved,
    )
