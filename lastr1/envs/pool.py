"""Many environments in several processes behind one batched interface.  Torch-free.

A worker that crashes or hangs is replaced; the episodes it was playing are reported as `EnvLost`, so that
whoever started them can start them again.
"""

import os
from collections.abc import Callable, Mapping
from types import TracebackType

import numpy as np

from lastr1.envs.base import Env, Setup, Start
from lastr1.envs.worker import Answer, Backend, EnvLost, Here, Processes, Request
from lastr1.spec import RobotSpec
from lastr1.types import ActionChunk, Image, Observation, Outcome, UserError

__all__ = ["EnvLost", "EnvPool"]


class EnvPool:
    """`slots` environments, each playing one episode at a time, in `workers` processes.

    0 workers: all in this process; -1: as many as this process may use cores, but no more than slots.
    `make` builds one environment and must be picklable.  An environment that takes longer than `deadline`
    seconds for one call counts as hung.  After more than `restarts` losses `RuntimeError` names the last.
    Errors of the user (`UserError`) raised in a worker are raised here.  Not for several threads at once.
    """

    def __init__(
        self,
        make: Callable[[], Env],
        *,
        slots: int,
        workers: int,
        deadline: float = 120.0,
        restarts: int = 20,
    ) -> None:
        if slots < 1 or workers < -1 or deadline <= 0:
            raise ValueError(
                f"slots {slots} >= 1, workers {workers} >= -1, deadline {deadline} > 0 are needed"
            )
        if workers == -1:
            workers = len(os.sched_getaffinity(0))
        self._backend: Backend = (
            Processes(make, slots=slots, workers=workers, deadline=deadline) if workers else Here(make)
        )
        self._slots = slots
        self._restarts_left = restarts
        self._running: set[int] = set()
        self._lost: dict[int, EnvLost] = {}  # episodes lost beside a call about other slots
        try:
            facts = self._ask({0: None})[0]
            if isinstance(facts, EnvLost):
                raise RuntimeError(f"the first environment could not be built: {facts.reason}")
        except BaseException:
            self.close()
            raise
        self.spec: RobotSpec = facts.spec
        self.tasks: tuple[str, ...] = facts.tasks
        self.stored_states: int = facts.stored_states
        self.cap: int = facts.cap
        self.setup: Setup = facts.setup

    def reset(self, starts: Mapping[int, Start]) -> dict[int, Observation]:
        """Begin an episode in each given slot.  A slot whose worker is lost meanwhile is tried again."""
        for slot in starts:
            if not 0 <= slot < self._slots:
                raise ValueError(f"slot {slot} does not exist: the pool has slots 0..{self._slots - 1}")
            self._running.discard(slot)
            self._lost.pop(slot, None)
        observations: dict[int, Observation] = {}
        while missing := {slot: start for slot, start in starts.items() if slot not in observations}:
            for slot, answer in self._ask(missing).items():
                if not isinstance(answer, EnvLost):
                    observations[slot] = answer
                    self._running.add(slot)
        return {slot: observations[slot] for slot in starts}

    def play(self, chunks: Mapping[int, ActionChunk]) -> dict[int, Outcome | EnvLost]:
        """Play one chunk in each given slot, side by side.  After `EnvLost` the slot needs a reset."""
        outcomes: dict[int, Outcome | EnvLost] = {s: self._lost.pop(s) for s in chunks if s in self._lost}
        for slot in chunks:
            if slot not in self._running and slot not in outcomes:
                raise ValueError(f"slot {slot} plays no episode; reset it first")
        outcomes |= self._ask({slot: chunk for slot, chunk in chunks.items() if slot not in outcomes})
        for slot, outcome in outcomes.items():
            if _ended(outcome):
                self._running.discard(slot)
        return {slot: outcomes[slot] for slot in chunks}

    def frame(self, slot: int, size: int) -> Image:
        """The scene of a slot now, [size, size, 3]; black when it is lost, which the next `play` reports."""
        answer = np.zeros((size, size, 3), np.uint8)
        if slot not in self._lost:
            got = self._ask({slot: size})[slot]
            if isinstance(got, EnvLost):
                self._lost[slot] = got
            else:
                answer = got
        return answer

    def _ask(self, requests: Mapping[int, Request]) -> dict[int, Answer]:
        """Ask the environments; account for what was lost, and raise what must not be survived."""
        answers, losses = self._backend.ask(requests)
        for loss in losses:
            for slot in loss.slots:
                if slot in requests and not _ended(answers.get(slot)):
                    answers[slot] = EnvLost(reason=loss.reason)
                elif slot in self._running:
                    self._lost[slot] = EnvLost(reason=loss.reason)
                    self._running.discard(slot)
        for answer in answers.values():
            if isinstance(answer, UserError | ValueError):
                raise answer
        reasons = [loss.reason for loss in losses]
        affected = {slot for loss in losses for slot in loss.slots}
        reasons += [
            a.reason for slot, a in answers.items() if isinstance(a, EnvLost) and slot not in affected
        ]
        self._restarts_left -= len(reasons)
        if self._restarts_left < 0:
            self.close()
            raise RuntimeError(f"environments were lost too often; the last time: {reasons[-1]}")
        return answers

    def close(self) -> None:
        """End all workers."""
        self._backend.close()

    def __enter__(self) -> "EnvPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ended(answer: Answer) -> bool:
    if isinstance(answer, Outcome):
        return answer.terminated or answer.truncated
    return isinstance(answer, EnvLost)
