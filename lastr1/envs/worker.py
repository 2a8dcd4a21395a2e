"""Environments inside worker processes: the machinery below `pool.EnvPool`.  Torch-free.

What travels through the pipes is pickled between our own processes: an image of 256 px costs 0.3 ms of
processor time to cross, where LIBERO works 150 ms for the next one, so shared memory would gain nothing.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeAlias

from lastr1.envs.base import Env, Setup, Start
from lastr1.envs.chaos import Struck, suffer
from lastr1.spec import RobotSpec
from lastr1.types import ActionChunk, UserError

START_UP = 60.0
"""Seconds that a new worker gets on top of its first deadline, to import a simulator."""


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


# reset, play, either with a fault planted in it, frame of that size, facts
Request: TypeAlias = Start | ActionChunk | Struck | int | None
Answer: TypeAlias = (
    Any  # Observation, Outcome, Image or Facts in the same order; EnvLost; or an error to raise
)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A worker that died, with every slot that lived on it."""

    slots: tuple[int, ...]
    reason: str


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
            case int():
                return env.frame(request)
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


def _serve(pipe: Connection, make: Callable[[], Env]) -> None:
    """A worker's life: answer until the parent closes the pipe, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent handles it
    die_with_parent()
    host = Host(make)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            for slot, request in pipe.recv():
                pipe.send((slot, host.answer(slot, request)))
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

    def ask(self, requests: Mapping[int, Request]) -> tuple[dict[int, Answer], list[Loss]]:
        """Slot -> answer, and the workers that died; slots of those may be missing among the answers."""

    def discard(self, slot: int, why: str) -> Loss:
        """Replace whatever the slot lives on: its answers are not to be trusted."""

    def close(self) -> None:
        """Free every environment."""


class Here:
    """All environments in this process: for debugging and tests."""

    def __init__(self, make: Callable[[], Env]) -> None:
        self._host = Host(make)

    def ask(self, requests: Mapping[int, Request]) -> tuple[dict[int, Answer], list[Loss]]:
        """One after the other; nothing dies but an exception loses its slot."""
        return {slot: self._host.answer(slot, request) for slot, request in requests.items()}, []

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


class _Worker:
    """One process and our end of its pipe."""

    def __init__(self, make: Callable[[], Env]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of torch's threads
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        with _one_thread():
            self.process.start()
        theirs.close()
        self.grace = START_UP

    def send(self, batch: list[tuple[int, Request]]) -> float:
        """Send, and return the seconds that the first answer may take beyond the deadline."""
        with contextlib.suppress(ConnectionError):  # it died since: noticed where its answer is read
            self.pipe.send(batch)
        grace, self.grace = self.grace, 0.0
        return grace

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

    def ask(self, requests: Mapping[int, Request]) -> tuple[dict[int, Answer], list[Loss]]:
        """All workers at once; one that crashes, or is silent for the deadline, is replaced."""
        batches: dict[int, list[tuple[int, Request]]] = defaultdict(list)
        for slot, request in requests.items():
            batches[slot % len(self._workers)].append((slot, request))
        now = time.monotonic()
        due = {w: now + self._deadline + self._workers[w].send(batch) for w, batch in batches.items()}
        heard = dict.fromkeys(due, now)
        left = {w: len(batch) for w, batch in batches.items()}
        answers: dict[int, Answer] = {}
        losses = []
        while left:
            ready = wait([self._workers[w].pipe for w in left], max(0.0, min(due[w] for w in left) - now))
            now = time.monotonic()
            for w in tuple(left):
                if self._workers[w].pipe in ready:
                    try:
                        slot, answers[slot] = self._workers[w].pipe.recv()
                        left[w], due[w], heard[w] = left[w] - 1, now + self._deadline, now
                    except (EOFError, OSError):
                        code = self._workers[w].stop(patience=5.0)
                        losses.append(self._replace(w, f"crashed (exit code {code})"))
                        left[w] = 0
                elif now >= due[w]:
                    self._workers[w].stop(patience=0.0)
                    losses.append(self._replace(w, f"was silent for {now - heard[w]:.0f} s"))
                    left[w] = 0
            left = {w: count for w, count in left.items() if count}
        return answers, losses

    def discard(self, slot: int, why: str) -> Loss:
        """The slot's worker, with all that lives on it."""
        w = slot % len(self._workers)
        self._workers[w].stop(patience=0.0)
        return self._replace(w, why)

    def _replace(self, w: int, why: str) -> Loss:
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
