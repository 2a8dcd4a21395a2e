"""Job: the whole loop on the embedded world: one demonstration per task -> warm-up -> LAPO -> evaluation -> report."""

import time
from dataclasses import replace
from pathlib import Path

from lastr1.config import Config
from lastr1.train import jobs, run
from lastr1.train.evaluate import Evaluation, starts_of, table
from lastr1.train.progress import say
from lastr1.types import UserError


def demo(config: Config, out: Path) -> str:
    """Runs everything into `out` and returns the final table.

    Both evaluations play the same stored initial states, which no training episode ever starts from.
    """
    if config.reinforce.train_states != "fresh":
        raise UserError("demo trains on fresh scenes only, so that its evaluation states stay unseen")
    began = time.perf_counter()
    run.new_directory(out, config)
    say(f"1/5 one demonstration per task -> {out / 'demonstrations'}")
    jobs.collect(config, out / "demonstrations")
    say("2/5 warm-up")
    bundle = jobs.warm_up(config, out / "demonstrations", out / "warmup")
    with run.open_pool(config) as pool:
        before = jobs.measure(config, bundle, pool)
    say(table(before))
    say("3/5 LAPO")
    trained = jobs.train(config, out / "warmup" / "last", out / "train")
    say("4/5 evaluation on the same states")
    with run.open_pool(config) as pool:
        after = jobs.measure(config, trained.bundle, pool)
        starts = starts_of(config.env, config.evaluate, len(pool.tasks), pool.stored_states, config.seed)
    say("5/5 report")
    videos = jobs.film(config, trained.bundle, _two(starts), out)
    seconds = time.perf_counter() - began
    _write(config, out, before, after, seconds)
    return f"warm-up\n{table(before)}\n\nafter {trained.episodes} episodes of LAPO\n{table(after)}\n\nreport: {out / 'index.html'} ({len(videos)} videos, {seconds:.0f} s)"


def _two(starts: list) -> list:
    return [starts[2], starts[3]]


def _write(config: Config, out: Path, before: Evaluation, after: Evaluation, seconds: float) -> None:
    run.write_json(
        out / "result.json",
        {
            "warmup": run.as_json(before.total),
            "final": run.as_json(after.total),
            "mean_latents": {"warmup": before.mean_latents, "final": after.mean_latents},
            "seconds": seconds,
            "seed": config.seed,
            "recipe": config.name,
            "tasks": {"warmup": run.as_json(before)["tasks"], "final": run.as_json(after)["tasks"]},
            "latents": {"warmup": before.latents, "final": after.latents},
        },
    )
    run.write_json(out / "evaluation_warmup.json", run.as_json(before))
    run.write_json(out / "evaluation_final.json", run.as_json(after))
