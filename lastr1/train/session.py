"""A reinforcement run from its start, or from where it was resumed, to its end; whoever plays and learns."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lastr1 import spans
from lastr1.config import Config, PolicyConfig
from lastr1.knobs import to_dict
from lastr1.model import manifest, weights
from lastr1.train import run
from lastr1.train.checkpoint import Store, load_step
from lastr1.train.metrics import MetricsLog
from lastr1.train.price import LatentPrice
from lastr1.train.progress import track
from lastr1.train.reinforce import Fleet, TaskSuccess, reinforce, trained_tasks
from lastr1.train.standing import Standing
from lastr1.train.timeline import Timeline
from lastr1.train.watch import Watch
from lastr1.types import UserError


@dataclass(frozen=True, kw_only=True)
class Session:
    """A run directory that is ready, and what its weights begin from."""

    config: Config
    store: Store
    start: Path
    """the policy to load"""
    found: Path | None
    """the checkpoint that is resumed from (None: the run begins)"""
    profile: bool = False
    """write a timeline of the run"""

    @property
    def first(self) -> int:
        """The first iteration."""
        return 0 if self.found is None else load_step(self.found)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        job = self.config.reinforce
        return job.iterations * job.epochs * job.minibatches

    def begin(self, tasks: int) -> Standing:
        """Where a run on a suite of `tasks` stands; call it when the policy is loaded."""
        standing = Standing(TaskSuccess(trained_tasks(self.config, tasks)), LatentPrice(self.config.thinking))
        if self.found is None:
            run.note_start(self.store.directory, self.start)
        else:
            standing.recall(self.found)
        return standing


def open_session(
    config: Config, checkpoint: Path, out: Path, *, resume: bool, profile: bool = False
) -> Session:
    """Prepare `out`, or find where it stopped.  `UserError` when either cannot be."""
    run.begin(config)
    run.check_adapter(config.adapter, freeze_vision=config.optimizer.freeze_vision)
    out = run.resumed_directory(out, config) if resume else run.new_directory(out, config)
    job = config.reinforce
    store = Store(directory=out, keep_last=job.keep_last, keep_every=job.keep_every)
    found = store.newest() if resume else None
    start = found or (run.start_of(out, checkpoint) if resume else checkpoint)
    if found is None:
        manifest.check(start, manifest.QUICK)
    return Session(config=config, store=store, start=start, found=found, profile=profile)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How a reinforcement run ended."""

    iterations: int
    episodes: int
    seconds: float
    health: tuple[str, ...]
    """what the dead-run detector found, one line each"""


def iterate(session: Session, fleet: Fleet, standing: Standing, save: Callable[[int], None]) -> Trained:
    """The session's iterations; `save` writes a checkpoint of that many."""
    config, job, first = session.config, session.config.reinforce, session.first
    directory = session.store.directory
    watch = Watch(config.health, directory, first)
    began = time.perf_counter()
    deadline = began + 60 * job.minutes if job.minutes is not None else float("inf")
    iteration, episodes, saved = first - 1, 0, first or None
    timeline = (
        Timeline(directory / f"trace_{first:06d}.json") if session.profile else contextlib.nullcontext()
    )
    with (
        track("train", job.iterations - first) as bar,
        MetricsLog(directory, first=first) as log,
        timeline as trace,
    ):
        spans.taken()
        since = time.perf_counter()
        for iteration, figures in reinforce(fleet, job, first, deadline, standing.price):
            worked, now = spans.taken(), time.perf_counter()
            if trace is not None:
                trace.write(worked)
            figures, since = {**figures, **spans.busy(worked, now - since)}, now
            log.write(iteration, {**figures, "health": watch.look(iteration, figures)})
            standing.note(figures["success"])
            episodes += int(figures["episodes"])
            latents = config.policy.latents_per_group * figures["mean_groups"]
            bar.advance(f"success {figures['success']:.2f}, {latents:.1f} latents")
            if (iteration + 1) % job.checkpoint_every == 0:
                log.sync()
                save(iteration + 1)
                saved = iteration + 1
            if watch.end is not None:
                break
    if saved != iteration + 1:
        save(iteration + 1)
    watch.conclude()
    return Trained(
        iterations=iteration + 1,
        episodes=episodes,
        seconds=time.perf_counter() - began,
        health=watch.summary(),
    )


def check_shape(checkpoint: Path, wanted: PolicyConfig) -> None:
    """What a thought and a chunk are was taught; `UserError` when it is to change before reinforcement."""
    taught, asked = to_dict(weights.stored_policy(checkpoint)), to_dict(wanted)
    for name in ("stop_candidates", "latents_per_group", "chunk", "image", "crop"):
        if taught[name] != asked[name]:
            raise UserError(
                f"{checkpoint} was taught with policy.{name} {taught[name]}, the recipe says {asked[name]}: "
                f"use the recipe of the warm-up"
            )
