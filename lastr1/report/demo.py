"""Job: the whole loop: one demonstration per task -> warm-up -> LAPO -> evaluation -> report."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import torch

import lastr1
from lastr1.config import Config
from lastr1.envs.base import Start
from lastr1.knobs import to_dict
from lastr1.report.page import DemoReport, Stage, Video, write_page
from lastr1.train import jobs, run
from lastr1.train.device import device_of
from lastr1.train.evaluate import Evaluation, starts_of, table
from lastr1.train.metrics import read_metrics
from lastr1.train.progress import say
from lastr1.train.team import open_team
from lastr1.types import UserError


def demo(config: Config, out: Path) -> str:
    """Run everything into `out` and return the final table.

    Both evaluations play the same stored initial states, which no training episode ever starts from.
    """
    if config.reinforce.train_states != "fresh":
        raise UserError("demo trains on fresh scenes only, so that its evaluation states stay unseen")
    run.begin(config)
    run.new_directory(out, config)
    clock = Clock()
    with clock.stage("demonstrations"):
        jobs.collect(config, out / "demonstrations")
    with clock.stage("warm-up"):
        jobs.warm_up(config, out / "demonstrations", out / "warmup")
    with clock.stage("evaluation before"):
        before = _measure(config, out / "warmup" / "last")
        say(f"after the warm-up\n{table(before)}")
    with clock.stage("LAPO"):
        trained = jobs.train(config, out / "warmup" / "last", out / "train")
    with clock.stage("evaluation after"):
        after = _measure(config, out / "train" / "last")
    with clock.stage("videos"):
        videos = _film(config, before, after, out)
    _write(config, out, before, after, clock.seconds)
    page = write_page(
        out,
        DemoReport(
            title=f"lastr1 demo: {config.name}",
            summary="One demonstration per task, then reinforcement of thought, thinking time and action.",
            before=before,
            after=after,
            metrics=read_metrics(out / "train" / "metrics.jsonl"),
            stages=tuple(clock.stages),
            videos=videos,
            config=config,
            command=f"lastr1 demo {config.name} --seed {config.seed}",
            versions={
                "lastr1": lastr1.__version__,
                "torch": torch.__version__,
                "numpy": numpy.__version__,
                "python": platform.python_version(),
                "machine": f"{platform.machine()}, {config.threads} threads",
            },
        ),
    )
    return (
        f"after the warm-up\n{table(before)}\n\nafter {trained.episodes} episodes of LAPO\n{table(after)}\n\n"
        f"{clock.seconds:.0f} s; report: {page}"
    )


class Clock:
    """How long each stage took."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage and time it."""
        say(f"== {name}")
        began = time.perf_counter()
        yield
        self.stages.append(Stage(name=name, seconds=time.perf_counter() - began))

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(stage.seconds for stage in self.stages)


def _measure(config: Config, checkpoint: Path) -> Evaluation:
    with open_team(config, checkpoint) as team:
        return jobs.measure(config, team).evaluation


def _film(config: Config, before: Evaluation, after: Evaluation, out: Path) -> tuple[Video, ...]:
    """One scene twice: a state that only the final policy solves, if there is one."""
    pairs = list(zip(before.rows, after.rows, strict=True))
    learnt = [i for i, (old, new) in enumerate(pairs) if new["success"] and not old["success"]]
    chosen = max(learnt or range(len(pairs)), key=lambda i: pairs[i][1]["control_steps"])
    videos = []
    with run.open_pool(config) as pool:
        spec, names = pool.spec, pool.tasks
        starts = starts_of(config.env, config.evaluate, len(pool.tasks), pool.stored_states, config.seed)
    start: Start = starts[chosen]
    for policy, folder in (("warm-up", "warmup"), ("final", "train")):
        bundle = run.load_policy(out / folder / "last", spec, device_of(config))
        path, success = jobs.film(config, bundle, start, out / f"{folder}.mp4")
        videos.append(Video(path=path, policy=policy, instruction=names[start.task], success=success))
    return tuple(videos)


def _write(config: Config, out: Path, before: Evaluation, after: Evaluation, seconds: float) -> None:
    run.write_json(out / "evaluation_warmup.json", to_dict(before))
    run.write_json(out / "evaluation_final.json", to_dict(after))
    run.write_json(
        out / "result.json",
        {
            "warmup": to_dict(before.total),
            "final": to_dict(after.total),
            "mean_latents": {"warmup": before.mean_latents, "final": after.mean_latents},
            "seconds": seconds,
            "seed": config.seed,
            "recipe": config.name,
            "tasks": {"warmup": to_dict(before)["tasks"], "final": to_dict(after)["tasks"]},
        },
    )
