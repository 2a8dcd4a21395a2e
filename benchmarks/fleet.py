"""Environment steps per second and bytes moved of `train`, in turn, double-buffered and ahead of the learner.

    python -m benchmarks.fleet                        # local, and 1, 2, 4 collectors (needs Ray)
    python -m benchmarks.fleet --collectors 1 --modes sync ahead

Simulators, policy and learner *sleep*, as simulators that draw on a GPU and networks that compute on one do:
what is measured is who waits for whom, also where cores are few.  Under them are the embedded world and a
policy of one small layer.  A simulator takes `--simulator` seconds per decision, a batch of decisions
`--policy` whatever its size, an update as long as simulators need for an iteration's episodes at best
(`--update` times that): with 1, simulation and update are balanced.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from lastr1.config import BackboneConfig, ChaosConfig, ClusterConfig, Config, EnvConfig
from lastr1.presets import RECIPES

SLOTS, WORKERS = 8, 2
"""of every player; an iteration has as many episodes as there are slots"""
CALLS = 11
"""of a simulator for an episode: a beginning and ten decisions up to the cap, as an untrained policy needs"""
MODES = {"sync": (1, 0), "double": (2, 0), "ahead": (2, 1)}
"""name -> groups, staleness"""


def slow_down(policy: float, step: float) -> None:
    """In this process, a batch of decisions and an optimizer step take so many seconds longer."""
    from lastr1.model.policy import LatentPolicy  # not above: simulator processes import this file
    from lastr1.train.learner import Learner

    LatentPolicy.decide = _late(LatentPolicy.decide, policy)
    Learner._step = _late(Learner._step, step)


def _late(method: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    original = vars(method).get("original", method)

    def late(*arguments: Any, **more: Any) -> Any:
        time.sleep(seconds)
        return original(*arguments, **more)

    late.original = original
    return late


def recipe(simulator: float, collectors: int, mode: str) -> Config:
    """A tiny experiment in the embedded world."""
    groups, staleness = MODES[mode]
    base = RECIPES["tabletop"]
    return replace(
        base,
        base="scratch",
        threads=1,
        processes=1,
        env=EnvConfig(suite="tabletop", image=96, slots=SLOTS, workers=WORKERS, groups=groups),
        chaos=ChaosConfig(slow=1.0, delay=simulator),
        backbone=BackboneConfig(
            hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, mlp=32, patch=16, vision_hidden=16,
            vision_layers=1, vision_heads=2, vision_mlp=16, deepstack=(),
        ),
        warmup=replace(base.warmup, iterations=1, batch=4),
        reinforce=replace(
            base.reinforce,
            iterations=4,
            episodes=SLOTS * max(1, collectors),
            checkpoint_every=100,
            minutes=None,
        ),
        cluster=ClusterConfig(collectors=collectors, staleness=staleness),
    )  # fmt: skip


def ray_for(collectors: int, policy: float, step: float) -> AbstractContextManager[object]:
    """A Ray of our own whose processes are slow."""
    import ray

    def hook() -> None:
        slow_down(policy, step)

    return ray.init(
        address="local", num_cpus=1 + collectors, include_dashboard=False, log_to_driver=False,
        runtime_env={"worker_process_setup_hook": hook},
    )  # fmt: skip


def measure(config: Config, checkpoint: Path, out: Path, policy: float, update: float) -> str:
    """One line; without the first iteration, in which processes start, and the last, with nothing ahead."""
    from lastr1.train.metrics import read_metrics

    collectors = config.cluster.collectors
    ideal = SLOTS * CALLS * config.chaos.delay / WORKERS
    steps = config.reinforce.minibatches * config.reinforce.epochs
    slow_down(policy, update * ideal / steps)
    with ray_for(collectors, policy, update * ideal / steps) if collectors else nullcontext():
        if collectors:
            from lastr1.cluster.job import train
        else:
            from lastr1.train.jobs import train
        train(config, checkpoint, out)
    rows = read_metrics(out / "metrics.jsonl")[1:-1]
    total = {name: sum(row[name] for row in rows) for name in rows[0]}
    wall = total["collect_seconds"] + total["update_seconds"]
    supply = total["simulator_busy"] / len(rows)
    # Ahead of the learner, rollouts last as long as the iteration.
    rollouts = supply if config.cluster.staleness else supply * wall / total["collect_seconds"]
    moved = total["episode_bytes"] + total["weight_bytes"] if collectors else 0.0
    return (
        f"{total['control_steps'] / wall:8.1f} {wall / len(rows):12.1f} {supply:11.0%} {rollouts:12.0%} "
        f"{moved / total['decisions']:15,.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collectors", type=int, nargs="*", default=[0, 1, 2, 4], help="0: without Ray")
    parser.add_argument("--modes", nargs="*", default=list(MODES), choices=list(MODES))
    parser.add_argument("--simulator", type=float, default=0.1, help="seconds per decision")
    parser.add_argument("--policy", type=float, default=0.2, help="seconds per batch of decisions")
    parser.add_argument("--update", type=float, default=1.0, help="times what simulators need at best")
    args = parser.parse_args()
    from lastr1.train import jobs

    print("collectors mode     steps/s  s/iteration  simulators  in rollouts  bytes/decision")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        jobs.warm_up(recipe(args.simulator, 0, "sync"), None, root / "warmup")
        for collectors in args.collectors:
            for mode in args.modes:
                if collectors or mode != "ahead":
                    config = recipe(args.simulator, collectors, mode)
                    out = root / f"{collectors}_{mode}"
                    line = measure(config, root / "warmup" / "last", out, args.policy, args.update)
                    print(f"{collectors:10d} {mode:6s} {line}", flush=True)


if __name__ == "__main__":
    main()
