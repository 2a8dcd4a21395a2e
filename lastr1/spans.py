"""What the processes of a run did, and when: for `train --profile`, and for the shares in its metrics.

Every process keeps its own spans and hands them over with its answers, to be kept where these arrive.
Torch-free.
"""

import os
import socket
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Kind = Literal["simulator", "policy", "learner", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """One piece of work."""

    kind: Kind
    """who worked"""
    what: str
    machine: str
    process: int
    number: int
    """which of several of a kind in one process"""
    began: float
    """seconds since 1970: clocks of several machines must agree for their spans to stand side by side"""
    seconds: float


_MACHINE = socket.gethostname()
_kept: deque[Span] = deque(maxlen=50_000)  # in a process that nobody asks, the oldest go


def note(kind: Kind, what: str, began: float, seconds: float, number: int = 0) -> None:
    """Keep a span of this process; `began` in seconds since 1970."""
    _kept.append(
        Span(
            kind=kind,
            what=what,
            machine=_MACHINE,
            process=os.getpid(),
            number=number,
            began=began,
            seconds=seconds,
        )
    )


@contextmanager
def span(kind: Kind, what: str) -> Iterator[None]:
    """Keep how long a `with` block took."""
    began, clock = time.time(), time.perf_counter()
    try:
        yield
    finally:
        note(kind, what, began, time.perf_counter() - clock)


def keep(spans: Iterable[Span]) -> None:
    """Keep what another process did."""
    _kept.extend(spans)


def taken() -> list[Span]:
    """Everything kept since the last call."""
    found = list(_kept)
    _kept.clear()
    return found


def busy(spans: Iterable[Span], seconds: float) -> dict[str, float]:
    """`simulator_busy`, `policy_busy`, `learner_busy`: share of `seconds` that each kind's members worked.

    What was played ahead counts where it is handed over: one iteration may then pass 1, a mean over several
    does not.
    """
    spent: dict[Kind, float] = defaultdict(float)
    members: dict[Kind, set[tuple[str, int, int]]] = defaultdict(set)
    for one in spans:
        spent[one.kind] += one.seconds
        members[one.kind].add((one.machine, one.process, one.number))
    return {
        f"{kind}_busy": spent[kind] / (len(members[kind]) * seconds)
        for kind in ("simulator", "policy", "learner")
        if members[kind]
    }
