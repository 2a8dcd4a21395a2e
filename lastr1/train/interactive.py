"""Job: reinforcement with human interventions (ALGORITHM.md 9); an asynchronous actor and learner.

The learner runs here (`guided.py`) and the actor (`actor.py`) in a process beside it; between them lie files:
transitions one way (`buffers.py`), weights the other.
"""

import multiprocessing
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np

from lastr1.config import Config, InteractiveConfig
from lastr1.envs import make_env
from lastr1.model import manifest
from lastr1.train import run
from lastr1.train.actor import Shared, act, due, publish
from lastr1.train.buffers import DEMONSTRATIONS, FOLDER, Buffers, Transition, read_all
from lastr1.train.checkpoint import Store, load_step
from lastr1.train.demonstrated import write_demonstrations
from lastr1.train.device import device_of
from lastr1.train.guided import InteractiveLearner
from lastr1.train.metrics import MetricsLog
from lastr1.train.progress import Track, track
from lastr1.types import UserError

RECENT = 20
"""episodes over which success and interventions are averaged"""
POLL = 0.05
"""seconds between two looks for new transitions while there is nothing to do"""


@dataclass(frozen=True, kw_only=True)
class Interacted:
    """How a run ended."""

    transitions: int
    updates: int
    episodes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.transitions} transitions of {self.episodes} episodes, {self.updates} updates, "
            f"{self.seconds:.0f} s"
        )


def interact(
    config: Config, checkpoint: Path, out: Path, demos: Path | None = None, *, resume: bool = False
) -> Interacted:
    """Improve a warmed-up policy beside a person; `out/last` is the policy, `out/metrics.jsonl` its history.

    Every transition is below `out/transitions` before the next one is played.  `resume` goes on from the
    newest checkpoint with all of them.  `demos`: a recording in place of the scripted expert's.
    """
    run.begin(config)
    run.check_adapter(config.adapter, freeze_vision=config.optimizer.freeze_vision)
    out = run.resumed_directory(out, config) if resume else run.new_directory(out, config)
    store = Store(directory=out)
    found = store.newest() if resume else None
    start = run.start_of(out, checkpoint) if resume else checkpoint
    manifest.check(found or start, manifest.QUICK)
    env = make_env(config.env)
    bundle = run.load_policy(found or start, env.spec, device_of(config), config.policy, config.adapter)
    tasks = env.tasks
    env.close()
    if config.interactive.demonstrations and not (out / FOLDER / DEMONSTRATIONS).exists():
        write_demonstrations(
            out, bundle, config, run.load_demonstrations(_unthinned(config), demos, bundle.spec, tasks)
        )
    learner = InteractiveLearner(bundle, config)
    first = 0
    if found is not None:
        first = load_step(found)
        learner.recall(found)
    run.note_start(out, start)
    publish(bundle.policy, out, first)
    buffers = Buffers(out)
    buffers.refresh()
    with _acting(config, start, out, len(buffers), first) as robot:
        return _learn(config, learner, Buffers(out), robot, store, first)


def _unthinned(config: Config) -> Config:
    """Every frame of a demonstration may begin a transition."""
    return replace(config, warmup=replace(config.warmup, frame_stride=1))


class Robot:
    """The actor's process, as the learner sees it."""

    def __init__(self, process: SpawnProcess, shared: Shared, complaints: Connection) -> None:
        self._process, self.shared, self._complaints = process, shared, complaints

    def playing(self) -> bool:
        """Whether more transitions may come.  Raises what went wrong there."""
        if self._process.is_alive():
            return True
        with suppress(EOFError):  # it had nothing to say
            raise UserError(self._complaints.recv())
        if self._process.exitcode:
            raise RuntimeError(
                f"the actor died (exit code {self._process.exitcode}); every transition is on disk: "
                f"go on with --resume"
            )
        return False


@contextmanager
def _acting(config: Config, start: Path, out: Path, count: int, first: int) -> Iterator[Robot]:
    context = multiprocessing.get_context("spawn")
    shared = Shared(updates=context.Value("q", first), stop=context.Event())
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=act, args=(config, start, out, count, shared, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Robot(process, shared, ours)
    finally:
        shared.stop.set()
        process.join(10.0)
        process.kill()
        process.join()


def _learn(
    config: Config, learner: InteractiveLearner, buffers: Buffers, robot: Robot, store: Store, first: int
) -> Interacted:
    job, root = config.interactive, store.directory
    began, step, saved, tally = time.perf_counter(), first, first, Tally()

    def save() -> None:
        store.save(learner.bundle, learner.optimizer, config, step, learner.memory())

    with track("interact", job.transitions) as bar, MetricsLog(root, first=first) as log:
        while True:
            playing = robot.playing()  # before the look: what a finished actor wrote last is seen
            _look(buffers, tally, bar)
            if not may_update(job, len(buffers), step, playing=playing):
                if not playing:
                    break
                time.sleep(POLL)
                continue
            figures = learner.update(buffers, step)
            step += 1
            robot.shared.updates.value = step
            log.write(step - 1, {**figures, **tally.figures(), "transitions": float(len(buffers))})
            if step % job.publish_every == 0:
                publish(learner.policy, root, step)
            if step % job.checkpoint_every == 0:
                log.sync()
                save()
                saved = step
    if saved != step or step == 0:
        save()
    return Interacted(
        transitions=len(buffers),
        updates=step,
        episodes=tally.episodes,
        seconds=time.perf_counter() - began,
    )


def _look(buffers: Buffers, tally: "Tally", bar: Track) -> None:
    rows = read_all(buffers.refresh())
    tally.note(rows)
    for _ in rows:
        bar.advance(tally.line())


def may_update(job: InteractiveConfig, count: int, step: int, *, playing: bool) -> bool:
    """Without a ratio: as long as the robot plays; with one: as many as the transitions are worth."""
    if count < max(1, job.start_after):
        return False
    return step < due(job, count) if job.updates_per_transition else playing


class Tally:
    """How the run's episodes went, from the transitions themselves."""

    def __init__(self) -> None:
        self._episode, self._steps, self._helped, self._takeovers = -1, 0, 0, 0
        self._done: deque[tuple[bool, int, float]] = deque(maxlen=RECENT)
        self.episodes = 0

    def note(self, rows: list[tuple[int, Transition]]) -> None:
        """Take in transitions, in the order they were played."""
        for episode, row in rows:
            if episode != self._episode:  # the one before was discarded or broken off, if it has no end
                self._episode, self._steps, self._helped, self._takeovers = episode, 0, 0, 0
            self._steps += row.steps
            self._helped += row.steps * row.is_intervention
            self._takeovers += row.takeover
            if row.terminated or row.truncated:
                self._done.append((row.success, self._takeovers, self._helped / self._steps))
                self.episodes += 1

    def figures(self) -> dict[str, float]:
        """Over the latest `RECENT` episodes."""
        if not self._done:
            return {}
        success, takeovers, share = (
            np.array(column, dtype=float) for column in zip(*self._done, strict=True)
        )
        return {
            "success": float(success.mean()),
            "success_alone": float((success * (takeovers == 0)).mean()),
            "interventions": float(takeovers.mean()),
            "intervened_share": float(share.mean()),
            "episodes": float(self.episodes),
        }

    def line(self) -> str:
        """For a progress bar."""
        if not self._done:
            return ""
        now = self.figures()
        return f"success {now['success']:.2f}, {now['interventions']:.2f} interventions per episode"
