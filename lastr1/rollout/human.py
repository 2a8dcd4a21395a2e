"""A person beside the robot: takes the controls, gives them back, and says how an episode ended.  Torch-free.

Axes: A action size.
"""

from typing import Literal, Protocol

from lastr1.envs.base import Env
from lastr1.envs.expert import TabletopExpert
from lastr1.envs.tabletop import TabletopEnv
from lastr1.envs.tabletop_tasks import solved
from lastr1.types import Floats, Observation, Outcome, UserError

Verdict = Literal["success", "failure", "discard"]


class Intervention(Protocol):
    """Any device (or script) through which a person intervenes; asked before and after every control step."""

    def begin(self) -> None:
        """An episode begins."""

    def act(self, observation: Observation, proposed: Floats) -> Floats | None:
        """The person's action [A], or None: `proposed` [A] is played.

        While a person has the controls the policy is not asked, and `proposed` is the hold action.
        """

    def judge(self, outcome: Outcome) -> Verdict | None:
        """How the episode ended, or None: it goes on (after the step cap: it is cut off, without a verdict).

        A reward is given for a confirmed success and for nothing else.
        """

    def close(self) -> None:
        """Let go of the device."""


class Nobody:
    """No person: the simulator's own success counts."""

    def begin(self) -> None:
        """Nothing."""

    def act(self, observation: Observation, proposed: Floats) -> Floats | None:  # noqa: ARG002
        """Never takes over."""
        return None

    def judge(self, outcome: Outcome) -> Verdict | None:
        """Success where the simulator says so."""
        return "success" if outcome.terminated else None

    def close(self) -> None:
        """Nothing."""


class ScriptedHuman(Nobody):
    """Takes over when the policy wastes time, by the scripted expert of the embedded world.

    It knows from every state how many control steps the expert would still need.  The policy may waste
    `patience` of them since the controls were last its own; then the expert plays `help` control steps and
    lets go, as somebody does who leads an arm back onto its way rather than finishing the task.
    """

    LOOK = 4  # control steps between two looks: foreseeing costs some 10 ms

    def __init__(self, env: TabletopEnv, *, patience: int, help_steps: int) -> None:
        self._env, self._patience, self._help_steps = env, patience, help_steps
        self._expert = TabletopExpert()
        self._shadow = TabletopEnv(env.suite, size=16)
        self._left, self._played, self._due = 0, 0, 0.0

    def begin(self) -> None:
        """The policy starts with its patience."""
        self._left, self._played = 0, 0

    def act(self, observation: Observation, proposed: Floats) -> Floats | None:  # noqa: ARG002
        """The expert's action while it helps."""
        if self._left == 0 and self._played % self.LOOK == 0 and self._wasted() > self._patience:
            self._left = self._help_steps
        if self._left == 0:
            self._played += 1
            return None
        self._left, self._played = self._left - 1, 0
        return self._expert.act(self._env)

    def _wasted(self) -> float:
        """Control steps that the policy played in vain since the controls were last its own."""
        remaining = self.remaining()
        if self._played == 0:
            self._due = remaining
        # An expert that is lost from here on must not be compared with one that was lost before.
        return self._played + remaining - self._due if self._due < float("inf") else float("inf")

    def remaining(self) -> float:
        """Control steps that the expert needs from here; inf if it cannot within the step cap."""
        shadow = self._shadow
        shadow.restore(self._env.snapshot())
        for steps in range(shadow.cap):
            if solved(shadow.task, shadow.world):
                return float(steps)
            shadow.world.step(self._expert.act(shadow).tolist())
        return float("inf")


def scripted(env: Env, *, patience: int, help_steps: int) -> Intervention:
    """`UserError` for suites without an expert that takes over from any state."""
    if not isinstance(env, TabletopEnv):
        raise UserError(
            f"interactive.human scripted knows the embedded world alone, not {env.describe().suite}: "
            f"use keyboard, spacemouse, gamepad or none"
        )
    return ScriptedHuman(env, patience=patience, help_steps=help_steps)
