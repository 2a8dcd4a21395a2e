"""Environments inside worker processes: the machinery below `pool.EnvPool`.  Torch-free.

What travels through the pipes is pickled between our own processes: an image of 256 px costs 0.3 ms of
processor time to cross, where LIBERO works 150 ms for the next one, so shared memory would gain nothing.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Protocol

from lastr1 import spans
from lastr1.envs.base import Env
from lastr1.envs.host import Answer, Host, Request

START_UP = 60.0
"""Seconds that a new worker gets on top of its first deadline, to import a simulator."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A worker that died, with every slot that lived on it."""

    slots: tuple[int, ...]
    reason: str


def _serve(pipe: Connection, make: Callable[[], Env]) -> None:
    """A worker's life: answer until the parent closes the pipe, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent handles it
    die_with_parent()
    host = Host(make)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            for slot, request in pipe.recv():
                began, clock = time.time(), time.perf_counter()
                answer = host.answer(slot, request)
                pipe.send((slot, answer, began, time.perf_counter() - clock))
    host.close()


def die_with_parent() -> None:
    """Called in a child process: it ends when its parent is gone, however that ended."""
    # The pipe is only read between requests: a simulator that hangs would outlive a killed parent.
    threading.Thread(target=_outlived, daemon=True).start()


def _outlived() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class Backend(Protocol):
    """Where the environments of a pool live."""

    def send(self, requests: Mapping[int, Request]) -> None:
        """Ask environments; none of them may owe an answer."""

    def receive(self, least: int, patience: float) -> tuple[dict[int, Answer], list[Loss]]:
        """Slot -> answer, and the workers that died; what these owed is owed no more.

        Everything that is there, as soon as `least` slots owe less; sooner after `patience` seconds.
        """

    def discard(self, slot: int, why: str) -> Loss:
        """Replace whatever the slot lives on: its answers are not to be trusted."""

    def close(self) -> None:
        """Free every environment."""


class Here:
    """All environments in this process: for debugging and tests."""

    def __init__(self, make: Callable[[], Env]) -> None:
        self._host = Host(make)
        self._asked: dict[int, Request] = {}

    def send(self, requests: Mapping[int, Request]) -> None:
        """Nothing is done before somebody waits for it."""
        self._asked |= requests

    def receive(self, least: int, patience: float) -> tuple[dict[int, Answer], list[Loss]]:  # noqa: ARG002
        """All, one after the other; nothing dies but an exception loses its slot."""
        with spans.span("simulator", f"{len(self._asked)} slots"):
            answers = {slot: self._host.answer(slot, request) for slot, request in self._asked.items()}
        self._asked = {}
        return answers, []

    def discard(self, slot: int, why: str) -> Loss:
        """The slot's environment alone."""
        self._host.discard(slot)
        return Loss(slots=(slot,), reason=f"the environment of slot {slot} {why}")

    def close(self) -> None:
        """Free every environment."""
        self._host.close()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """A spawned worker loads numpy before any code of ours runs, so it must inherit the variable."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


ROOM = 1 << 22
"""Bytes of answers that a worker may leave in its pipe and go on, where the system allows as many."""


class _Worker:
    """One process and our end of its pipe."""

    def __init__(self, make: Callable[[], Env]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of torch's threads
        self.pipe, theirs = context.Pipe()
        with socket.socket(fileno=os.dup(theirs.fileno())) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        self.process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        with _one_thread():
            self.process.start()
        theirs.close()
        self.owed: set[int] = set()
        """slots that it has yet to answer for"""
        self.due = self.heard = 0.0
        self._grace = START_UP

    def send(self, batch: list[tuple[int, Request]], deadline: float) -> None:
        """Send; the first answer is due within `deadline` seconds, and is given longer of a new process."""
        if not self.owed:
            self.heard = time.monotonic()
            self.due = self.heard + deadline + self._grace
            self._grace = 0.0
        self.owed |= {slot for slot, _ in batch}
        with contextlib.suppress(ConnectionError):  # it died since: noticed where its answer is read
            self.pipe.send(batch)

    def receive(self, deadline: float) -> tuple[int, Answer, float, float]:
        """A slot's answer, when it was begun, and the seconds it took.  `EOFError` or `OSError`: it died."""
        found: tuple[int, Answer, float, float] = self.pipe.recv()
        self.owed.remove(found[0])
        self.heard = time.monotonic()
        self.due = self.heard + deadline
        return found

    def stop(self, patience: float) -> int | None:
        """End the process, by force after `patience` seconds, and return its exit code."""
        self.pipe.close()
        self.process.join(patience)
        self.process.kill()
        self.process.join()
        code = self.process.exitcode
        self.process.close()
        return code


class Processes:
    """Environments in worker processes: slot s on worker s % workers."""

    def __init__(self, make: Callable[[], Env], *, slots: int, workers: int, deadline: float) -> None:
        self._make = make
        self._slots = slots
        self._deadline = deadline
        self._workers = [_Worker(make) for _ in range(min(workers, slots))]

    def send(self, requests: Mapping[int, Request]) -> None:
        """All workers at once."""
        batches: dict[int, list[tuple[int, Request]]] = defaultdict(list)
        for slot, request in requests.items():
            batches[slot % len(self._workers)].append((slot, request))
        for w, batch in batches.items():
            self._workers[w].send(batch, self._deadline)

    def receive(self, least: int, patience: float) -> tuple[dict[int, Answer], list[Loss]]:
        """A worker that crashes, or is silent for the deadline, is replaced."""
        answers: dict[int, Answer] = {}
        losses: list[Loss] = []
        until = time.monotonic() + patience
        left = self._owed() - least
        while busy := [worker for worker in self._workers if worker.owed]:
            now = time.monotonic()
            enough = self._owed() <= left or now >= until
            rest = 0.0 if enough else min(until, *(worker.due for worker in busy)) - now
            ready = wait([worker.pipe for worker in busy], max(0.0, rest))
            now = time.monotonic()
            silent = [worker for worker in busy if worker.pipe not in ready and now >= worker.due]
            if enough and not ready and not silent:
                break
            for worker in busy:
                if worker.pipe in ready:
                    self._take(worker, answers, losses)
            for worker in silent:
                worker.stop(patience=0.0)
                losses.append(self._replace(worker, f"was silent for {now - worker.heard:.0f} s"))
        return answers, losses

    def _owed(self) -> int:
        return sum(len(worker.owed) for worker in self._workers)

    def _take(self, worker: _Worker, answers: dict[int, Answer], losses: list[Loss]) -> None:
        try:
            slot, answers[slot], began, seconds = worker.receive(self._deadline)
        except (EOFError, OSError):
            code = worker.stop(patience=5.0)
            losses.append(self._replace(worker, f"crashed (exit code {code})"))
        else:
            spans.note("simulator", f"slot {slot}", began, seconds, self._workers.index(worker))

    def discard(self, slot: int, why: str) -> Loss:
        """The slot's worker, with all that lives on it."""
        worker = self._workers[slot % len(self._workers)]
        worker.stop(patience=0.0)
        return self._replace(worker, why)

    def _replace(self, worker: _Worker, why: str) -> Loss:
        w = self._workers.index(worker)
        self._workers[w] = _Worker(self._make)
        slots = tuple(range(w, self._slots, len(self._workers)))
        return Loss(slots=slots, reason=f"environment worker {w} {why}")

    def close(self) -> None:
        """End every worker, by force after 5 s."""
        for worker in self._workers:
            worker.pipe.close()  # all at once, so that they end side by side
        for worker in self._workers:
            worker.stop(patience=5.0)
        self._workers = []
