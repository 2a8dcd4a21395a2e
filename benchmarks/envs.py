"""How fast the embedded world runs in one process: `python benchmarks/envs.py --suite tabletop`."""

import argparse
import time
from collections.abc import Callable

import numpy as np

from lastr1.envs.base import Start
from lastr1.envs.tabletop import TabletopEnv
from lastr1.envs.tabletop_tasks import SUITES, scene
from lastr1.types import ActionChunk


def rate(work: Callable[[], int], seconds: float) -> float:
    """Units of work per second of processor time, over at least `seconds`."""
    work()
    done, begin = 0, time.process_time()
    while time.process_time() - begin < seconds:
        done += work()
    return done / (time.process_time() - begin)


def control_steps(env: TabletopEnv, task: int, rng: np.random.Generator) -> int:
    world = scene(env.kinds[task], Start(task=task, seed=int(rng.integers(1 << 30))))
    actions = rng.uniform(-1, 1, (env.cap, len(env.spec.action))).tolist()
    for action in actions:
        world.step(action)
    return len(actions)


def decisions(env: TabletopEnv, task: int, rng: np.random.Generator, chunk: int) -> int:
    env.reset(Start(task=task, seed=int(rng.integers(1 << 30))))
    for count in range(1, env.cap):
        actions = rng.uniform(-1, 1, (chunk, len(env.spec.action))).astype(np.float32)
        outcome = env.play(ActionChunk(actions=actions))
        if outcome.terminated or outcome.truncated:
            return count
    raise AssertionError("the episode outlived its cap")


def images(env: TabletopEnv, size: int) -> int:
    env.frame(size)
    return 1


def measure(suite: str, task: int, size: int, chunk: int, seconds: float) -> tuple[float, float, float]:
    """Control steps, images and decisions (with image) per second; self-contained, for any process."""
    env, rng = TabletopEnv(suite, size), np.random.default_rng(0)
    env.reset(Start(task=task))
    return (
        rate(lambda: control_steps(env, task, rng), seconds),
        rate(lambda: images(env, size), seconds),
        rate(lambda: decisions(env, task, rng, chunk), seconds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", choices=[*SUITES, "all"], default="all")
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--chunk", type=int, default=8, help="control steps per decision")
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement")
    args = parser.parse_args()
    print(f"{'suite':16s} {'kind':10s} {'control steps/s':>16s} {'images/s':>10s} {'decisions/s':>12s}")
    for suite in ("tabletop", "tabletop_dual") if args.suite == "all" else (args.suite,):
        seen = {task.kind: index for index, task in reversed(list(enumerate(SUITES[suite])))}
        for kind, task in reversed(seen.items()):
            steps, pictures, choices = measure(suite, task, args.size, args.chunk, args.seconds)
            print(f"{suite:16s} {kind:10s} {steps:16,.0f} {pictures:10,.0f} {choices:12,.0f}")


if __name__ == "__main__":
    main()
