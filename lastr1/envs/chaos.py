"""Faults planted in simulators, to see that a run survives them.  Torch-free.

The dice fall in the pool, not in the worker: a worker that takes the place of a killed one would throw the
same dice again, and die at the same call for ever.  The fault itself happens in the worker.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from lastr1.config import ChaosConfig
from lastr1.envs.base import Start
from lastr1.types import ActionChunk, Observation, Outcome

Fault: TypeAlias = Literal["kill", "hang", "corrupt", "slow"]


@dataclass(frozen=True, kw_only=True)
class Struck:
    """A request that meets a fault."""

    request: Start | ActionChunk
    fault: Fault
    die: int
    """chooses the lie of a `corrupt` answer"""
    delay: float
    """seconds that a `slow` answer takes longer"""


class Chaos:
    """Throws dice for every call of a simulator; the same faults for the same seed and calls."""

    def __init__(self, config: ChaosConfig) -> None:
        chances: dict[Fault, float] = {
            "kill": config.kill,
            "hang": config.hang,
            "corrupt": config.corrupt,
            "slow": config.slow,
        }
        self._config = config
        self._faults = tuple(chances)
        self._bounds = np.cumsum(list(chances.values()))
        self._rng = np.random.default_rng(config.seed)
        self.planted: Counter[Fault] = Counter()
        """fault -> how many so far"""

    def strike(self, request: Start | ActionChunk) -> Start | ActionChunk | Struck:
        """The request, or a fault around it."""
        which = int(np.searchsorted(self._bounds, self._rng.random(), side="right"))
        if which == len(self._faults):
            return request
        fault = self._faults[which]
        self.planted[fault] += 1
        die = int(self._rng.integers(1 << 30))
        return Struck(request=request, fault=fault, die=die, delay=self._config.delay)


def suffer(struck: Struck, work: Callable[[], object]) -> object:
    """In the worker: let the fault happen around `work`, which does what was asked."""
    match struck.fault:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            threading.Event().wait()
        case "slow":
            time.sleep(struck.delay)
    answer = work()
    return _corrupt(answer, struck.die) if struck.fault == "corrupt" else answer


def _corrupt(answer: object, die: int) -> object:
    if isinstance(answer, Observation):
        return _SEEN[die % len(_SEEN)](answer)
    assert isinstance(answer, Outcome)
    which = die % (len(_TOLD) + len(_SEEN))
    if which < len(_TOLD):
        return _TOLD[which](answer)
    return replace(answer, observation=_SEEN[which - len(_TOLD)](answer.observation))


def _first_image(seen: Observation, change: Callable[[np.ndarray], np.ndarray]) -> Observation:
    name = next(iter(seen.images))
    return replace(seen, images={**seen.images, name: change(seen.images[name])})


_SEEN: tuple[Callable[[Observation], Observation], ...] = (
    lambda seen: replace(seen, state=np.full_like(seen.state, np.nan)),
    lambda seen: replace(seen, state=seen.state[:-1]),
    lambda seen: replace(seen, images=dict(list(seen.images.items())[1:])),
    lambda seen: _first_image(seen, lambda image: image[1:]),
    lambda seen: _first_image(seen, lambda image: image / np.float32(255)),
)
_TOLD: tuple[Callable[[Outcome], Outcome], ...] = (
    lambda told: replace(told, reward=float("nan")),
    lambda told: replace(told, steps=0),
    lambda told: replace(told, steps=told.steps + 1_000_000),
    lambda told: replace(told, terminated=True, truncated=True),
)
