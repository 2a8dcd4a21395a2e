"""Requests of many clients in one forward pass, with thoughts short enough for their deadlines.  Torch-free.

While one batch is decided the next one gathers; then there is a moment for those who were just answered to
ask again, or two halves of the clients would take turns for ever.  A batch thinks as long as its most urgent
request allows; what it costs to think is what it cost lately.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from lastr1.types import ActionChunk, Observation

RECENT = 32
"""batches that say how slow the machine is at present"""
PRUDENCE = 0.9
"""quantile of them that is reckoned with"""
MOMENT = 0.1
"""share of the shortest decision's time that a batch waits for clients who have not asked"""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a forward pass decided."""

    chunks: tuple[ActionChunk, ...]
    groups: tuple[int, ...]
    """of each thought"""
    ran: int
    """groups that were computed: the longest thought of the batch, or all of them"""


class Thinker(Protocol):
    """A policy that decides; blocks, and is called by one thread at a time."""

    @property
    def groups(self) -> int:
        """K: groups a thought may have; 0 without thoughts."""

    def decide(self, observations: Sequence[Observation], cap: int) -> Batch:
        """Think at most `cap` groups (1..K; K = 0: 0), act."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds of a forward pass on a quiet machine: alone, and for each further request."""

    alone: float
    further: float


class Costs:
    """How long a batch will take, from what was measured at the start and what the last batches took."""

    def __init__(self, quiet: Mapping[int, Cost]) -> None:
        """`quiet`: groups -> cost."""
        self._quiet = dict(quiet)
        self._ratios: deque[float] = deque(maxlen=RECENT)
        self._trust = 1.0

    def seconds(self, groups: int, batch: int) -> float:
        """A prudent estimate for thoughts of `groups` groups."""
        ratios = sorted(self._ratios)
        slowness = ratios[int(PRUDENCE * len(ratios))] if ratios else 1.0
        return slowness * self._reckoned(groups, batch)

    def note(self, groups: int, batch: int, seconds: float) -> None:
        """A batch took so long."""
        self._ratios.append(seconds / self._reckoned(groups, batch))
        self._trust = 1.0

    def cap(self, left: float, batch: int) -> int:
        """The longest thought that `left` seconds are enough for; the shortest if none is."""
        fitting = [k for k in self._quiet if self.seconds(k, batch) <= left]
        return max(fitting, default=min(self._quiet))

    def shortest(self, batch: int) -> float:
        """A prudent estimate for the shortest thoughts."""
        return self.seconds(min(self._quiet), batch)

    def hopeless(self) -> float:
        """Seconds below which trying is of no use: the shortest thought, alone, at the best speed of late."""
        return self._trust * min(self._ratios, default=1.0) * self._reckoned(min(self._quiet), 1)

    def doubt(self) -> None:
        """Requests were turned away without a try: believe half of `hopeless` until one was made."""
        self._trust /= 2

    def _reckoned(self, groups: int, batch: int) -> float:
        cost = self._quiet[groups]
        return cost.alone + cost.further * (batch - 1)


class Late(Exception):
    """A deadline that cannot be met any more: one line."""


class Failed(Exception):
    """The forward pass failed: one line."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One decision and how it came about."""

    chunk: ActionChunk
    groups: int
    cap: int
    batch: int
    queue_s: float
    infer_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Waiting:
    observation: Observation
    deadline: float
    """`time.perf_counter` at which the answer is due"""
    firm: bool
    """a late answer is worth nothing"""
    answer: asyncio.Future[Answer]
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """Gathers requests; `run` decides them until it is cancelled."""

    def __init__(self, thinker: Thinker, costs: Costs, largest: int) -> None:
        self._thinker, self._costs, self._largest = thinker, costs, largest
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self.clients = 0
        """who may ask, one thing at a time each"""

    async def decide(self, observation: Observation, deadline: float, *, firm: bool) -> Answer:
        """Wait for a decision that is due at `deadline` (`time.perf_counter`).

        `Late` instead of a decision when a `firm` deadline cannot be met; `Failed` when the forward pass
        breaks.  Cancelling withdraws the request.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(observation=observation, deadline=deadline, firm=firm, answer=answer)
        self._waiting.append(waiting)
        self._arrived.set()
        return await answer

    async def run(self) -> None:
        """Decide whatever waits, batch after batch."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "thinker") as thread:
            while True:
                await self._arrived.wait()
                await self._gather()
                batch, cap = self._next()
                if not batch:
                    continue
                began = time.perf_counter()
                observations = [w.observation for w in batch]
                try:
                    decided = await loop.run_in_executor(thread, self._thinker.decide, observations, cap)
                except RuntimeError as error:  # torch: out of memory, most likely; the next batch may fit
                    for waiting in batch:
                        _fail(waiting, Failed(f"the policy failed: {str(error).partition(chr(10))[0]:.200}"))
                    continue
                seconds = time.perf_counter() - began
                self._costs.note(decided.ran, len(batch), seconds)
                _hand_out(batch, decided, cap, began, seconds)

    async def _gather(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOMENT * self._costs.shortest(1)):
                while len(self._waiting) < min(self.clients, self._largest):
                    self._arrived.clear()
                    await self._arrived.wait()

    def _next(self) -> tuple[list[_Waiting], int]:
        """The most urgent requests, as many as can be decided in time, and the groups they leave room for."""
        now = time.perf_counter()
        ordered = sorted((w for w in self._waiting if not w.answer.done()), key=lambda w: w.deadline)
        hopeless = self._costs.hopeless()
        late = [w for w in ordered if w.firm and w.deadline - now < hopeless]
        for waiting in late:
            left = 1000 * (waiting.deadline - now)
            _fail(waiting, Late(f"late: a decision takes {1000 * hopeless:.0f} ms, {left:.0f} ms are left"))
        ordered = [w for w in ordered if not w.answer.done()]
        batch = ordered[: self._largest]
        while len(batch) > 1 and self._costs.shortest(len(batch)) > _firm(batch) - now:
            batch.pop()
        self._waiting = ordered[len(batch) :]
        if self._waiting:
            self._arrived.set()
        else:
            self._arrived.clear()
        if batch:
            return batch, self._costs.cap(batch[0].deadline - now, len(batch))
        if late:
            self._costs.doubt()
        return [], 0


def _firm(batch: list[_Waiting]) -> float:
    return min((w.deadline for w in batch if w.firm), default=math.inf)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)


def _hand_out(batch: list[_Waiting], decided: Batch, cap: int, began: float, seconds: float) -> None:
    for waiting, chunk, groups in zip(batch, decided.chunks, decided.groups, strict=True):
        if waiting.answer.done():  # withdrawn meanwhile
            continue
        waiting.answer.set_result(
            Answer(
                chunk=chunk,
                groups=groups,
                cap=cap,
                batch=len(batch),
                queue_s=began - waiting.since,
                infer_s=seconds,
            )
        )
