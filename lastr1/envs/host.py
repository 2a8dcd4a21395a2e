"""The environments of one process.  Torch-free."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from lastr1.envs.base import Env, Setup, Start
from lastr1.envs.chaos import Struck, suffer
from lastr1.spec import RobotSpec
from lastr1.types import ActionChunk, UserError


@dataclass(frozen=True, kw_only=True)
class EnvLost:
    """The episode of a slot is gone and has to be started again."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an environment says about itself."""

    spec: RobotSpec
    tasks: tuple[str, ...]
    stored_states: int
    cap: int
    setup: Setup


# reset, play, either with a fault planted in it, facts
Request: TypeAlias = Start | ActionChunk | Struck | None
Answer: TypeAlias = Any  # Observation, Outcome or Facts in the same order; EnvLost; or an error to raise


class Host:
    """The environments of one process, one per slot, each made when it is first needed."""

    def __init__(self, make: Callable[[], Env]) -> None:
        self._make = make
        self._envs: dict[int, Env] = {}

    def answer(self, slot: int, request: Request) -> Answer:
        """What the environment returns; `EnvLost` when it fails; an error of the user to be raised above."""
        try:
            return self._run(slot, request)
        except UserError as error:
            return error
        except Exception as error:  # a simulator may raise anything: the episode is lost, the run goes on
            if isinstance(request, Start) and isinstance(error, ValueError):
                return error  # the contract of `Env.reset`: no such task or stored state
            self.discard(slot)
            return EnvLost(reason=f"{type(error).__name__}: {error}")

    def _run(self, slot: int, request: Request) -> Answer:
        if slot not in self._envs:
            self._envs[slot] = self._make()
        env = self._envs[slot]
        match request:
            case Start():
                return env.reset(request)
            case ActionChunk():
                return env.play(request)
            case Struck():
                return suffer(request, lambda: self._run(slot, request.request))
            case None:
                return Facts(
                    spec=env.spec,
                    tasks=env.tasks,
                    stored_states=env.stored_states,
                    cap=env.cap,
                    setup=env.describe(),
                )

    def discard(self, slot: int) -> None:
        """Close the environment of a slot; the next request builds another."""
        if slot in self._envs:
            with contextlib.suppress(Exception):  # it is broken already
                self._envs.pop(slot).close()

    def close(self) -> None:
        """Free every environment."""
        for slot in tuple(self._envs):
            self.discard(slot)
