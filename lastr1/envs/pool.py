"""Many environments in several processes behind one batched interface.  Torch-free.

A worker that crashes, hangs or lies (answers what its robot's spec or the contract of `Env` rules out) is
replaced; the episodes it was playing are reported as `EnvLost`, so that whoever started them can start them
again.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType

from lastr1.config import ChaosConfig
from lastr1.envs.base import Env, Setup, Start
from lastr1.envs.chaos import Chaos, Fault, Struck
from lastr1.envs.check import observation_flaw, outcome_flaw
from lastr1.envs.host import Answer, EnvLost, Request
from lastr1.envs.worker import Backend, Here, Loss, Processes
from lastr1.spec import RobotSpec
from lastr1.types import ActionChunk, Observation, Outcome, UserError

__all__ = ["EnvLost", "EnvPool"]

CALM = ChaosConfig()
"""no faults"""


class EnvPool:
    """`slots` environments, each playing one episode at a time, in `workers` processes.

    0 workers: all in this process; -1: as many as this process may use cores, but no more than slots.
    `make` builds one environment and must be picklable.  An environment that takes longer than `deadline`
    seconds for one call counts as hung.  After more than `restarts` losses in a row, with no episode that
    ended in between, `UserError` names the last one.  Errors of the user (`UserError`) raised in a worker are
    raised here.  `chaos` plants faults.  Not for several threads at once.
    """

    def __init__(
        self,
        make: Callable[[], Env],
        *,
        slots: int,
        workers: int,
        deadline: float = 120.0,
        restarts: int = 20,
        chaos: ChaosConfig = CALM,
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
        self._restarts, self._in_a_row = restarts, 0
        self._chaos = Chaos(chaos)
        self._running: set[int] = set()
        self._asked: dict[int, Request] = {}  # slots that have not answered
        self._lost: dict[int, EnvLost] = {}  # episodes lost while nothing was asked of their slots
        self._told: dict[int, EnvLost] = {}  # those of them that were asked to go on
        try:
            self._send({0: None})
            facts = self._receive(1, math.inf)[0]
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

    @property
    def planted(self) -> Counter[Fault]:
        """Faults of `chaos` so far."""
        return self._chaos.planted

    def reset(self, starts: Mapping[int, Start]) -> dict[int, Observation | EnvLost]:
        """Begin an episode in each given slot."""
        self.send(starts)
        seen = self.receive(len(starts))
        return {slot: seen[slot] for slot in starts}

    def play(self, chunks: Mapping[int, ActionChunk]) -> dict[int, Outcome | EnvLost]:
        """Play one chunk in each given slot, side by side.  After `EnvLost` the slot needs a reset."""
        self.send(chunks)
        outcomes = self.receive(len(chunks))
        return {slot: outcomes[slot] for slot in chunks}

    def send(self, requests: Mapping[int, Start | ActionChunk]) -> None:
        """Have slots begin an episode or play a chunk; `receive` gives their answers."""
        for slot, request in requests.items():
            self._check(slot, request)
            if isinstance(request, Start):
                self._running.discard(slot)
                self._lost.pop(slot, None)
        self._told |= {slot: self._lost.pop(slot) for slot in requests if slot in self._lost}
        self._send({s: self._chaos.strike(r) for s, r in requests.items() if s not in self._told})

    def _check(self, slot: int, request: Start | ActionChunk) -> None:
        if not 0 <= slot < self._slots:
            raise ValueError(f"slot {slot} does not exist: the pool has slots 0..{self._slots - 1}")
        if isinstance(request, ActionChunk) and slot not in self._running | self._lost.keys():
            raise ValueError(f"slot {slot} plays no episode; reset it first")

    def receive(self, least: int, patience: float = math.inf) -> dict[int, Answer]:
        """What slots answer to `send`, as soon as `least` have; fewer when `patience` seconds pass.

        Observations of episodes that begin, `Outcome` of chunks, `EnvLost` of either.
        """
        answers: dict[int, Answer] = {**self._told}
        self._told = {}
        return answers | self._receive(least - len(answers), patience)

    def _send(self, requests: Mapping[int, Request]) -> None:
        assert not requests.keys() & self._asked.keys(), "a slot was asked before it answered"
        self._asked |= requests
        self._backend.send(requests)

    def _receive(self, least: int, patience: float) -> dict[int, Answer]:
        """Hear the environments; account for what was lost, and raise what must not be survived."""
        answers, losses = self._backend.receive(least, patience)
        self._find_lies(answers, losses)
        self._account_for(losses, answers)
        for slot, answer in answers.items():
            del self._asked[slot]
            if isinstance(answer, Observation):
                self._running.add(slot)
            if _ended(answer):
                self._running.discard(slot)
        for answer in answers.values():
            if isinstance(answer, UserError | ValueError):
                raise answer
        return answers

    def _account_for(self, losses: list[Loss], answers: dict[int, Answer]) -> None:
        """Say `EnvLost` for whatever lived on the lost workers; end the run when there were too many."""
        for loss in losses:
            for slot in loss.slots:
                if slot in self._asked and not _ended(answers.get(slot)):
                    answers[slot] = EnvLost(reason=loss.reason)
                elif slot in self._running:
                    self._lost[slot] = EnvLost(reason=loss.reason)
                    self._running.discard(slot)
        reasons = [loss.reason for loss in losses]
        affected = {slot for loss in losses for slot in loss.slots}
        reasons += [
            a.reason for slot, a in answers.items() if isinstance(a, EnvLost) and slot not in affected
        ]
        self._count(reasons, ended=any(_ended(a) and not isinstance(a, EnvLost) for a in answers.values()))

    def _find_lies(self, answers: dict[int, Answer], losses: list[Loss]) -> None:
        """Add to `losses` the workers that lie; what a liar says of an episode's end does not count."""
        for slot, answer in answers.items():
            flaw = self._flaw(self._asked[slot], answer)
            if flaw:
                answers[slot] = EnvLost(reason=f"it lied: {flaw}")
                if not any(slot in loss.slots for loss in losses):
                    losses.append(self._backend.discard(slot, f"lied: {flaw}"))

    def _flaw(self, request: Request, answer: Answer) -> str:
        if isinstance(answer, EnvLost | UserError | ValueError):
            return ""
        match request.request if isinstance(request, Struck) else request:
            case Start():
                return observation_flaw(answer, self.spec)
            case ActionChunk(actions=actions):
                return outcome_flaw(answer, self.spec, len(actions))
            case None:
                return ""

    def _count(self, reasons: list[str], *, ended: bool) -> None:
        """Raise `UserError` when there were too many losses; what is lost together counts once."""
        self._in_a_row = (1 if reasons else 0) + (0 if ended else self._in_a_row)
        if self._in_a_row > self._restarts:
            self.close()
            raise UserError(
                f"simulators were lost {self._in_a_row} times while no episode ended, lastly: {reasons[-1]}; "
                f"repair that, give them more memory (fewer --env.slots) or time (--env.deadline), or "
                f"raise --env.restarts (now {self._restarts})"
            )

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
