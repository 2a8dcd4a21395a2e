"""How fast the simulators run.

python -m benchmarks.envs                                   # the embedded world, per second of one processor
python -m benchmarks.envs --pool --suite libero_object      # any suite through the pool, 1 and 2 processes
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from lastr1.config import EnvConfig
from lastr1.envs import make_env
from lastr1.envs.base import Start
from lastr1.envs.pool import EnvLost, EnvPool
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


def pool_rate(config: EnvConfig, chunk: int, seconds: float) -> tuple[float, float]:
    """Control steps and decisions per second of wall time, random actions, episodes begun anew as they end.

    Building the simulators and the first scenes is not counted.
    """
    rng, slots = np.random.default_rng(0), range(config.slots)
    with EnvPool(partial(make_env, config), slots=config.slots, workers=config.workers) as pool:
        span = len(pool.spec.action)
        pool.reset({slot: Start(task=0, seed=slot) for slot in slots})
        steps = count = 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            actions = rng.uniform(-0.3, 0.3, (len(slots), chunk, span)).astype(np.float32)
            outcomes = pool.play({slot: ActionChunk(actions=actions[i]) for i, slot in enumerate(slots)})
            again = {}
            for slot, outcome in outcomes.items():
                if isinstance(outcome, EnvLost):
                    raise RuntimeError(outcome.reason)
                steps, count = steps + outcome.steps, count + 1
                if outcome.terminated or outcome.truncated:
                    again[slot] = Start(task=0, seed=slot)
            if again:
                pool.reset(again)
        spent = time.perf_counter() - began
    return steps / spent, count / spent


def through_pool(suite: str, size: int, chunk: int, seconds: float) -> None:
    """One line for one and for two simulator processes."""
    slots = 2 if suite.startswith("libero") else 16
    print(f"{'suite':16s} {'processes':>9s} {'control steps/s':>16s} {'decisions/s':>12s}")
    for workers in (1, 2):
        config = EnvConfig(suite=suite, image=size, slots=slots, workers=workers)
        steps, choices = pool_rate(config, chunk, seconds)
        print(f"{suite:16s} {workers:9d} {steps:16,.1f} {choices:12,.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="all")
    parser.add_argument("--pool", action="store_true", help="through the pool, with 1 and 2 processes")
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--chunk", type=int, default=8, help="control steps per decision")
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement")
    args = parser.parse_args()
    if args.pool:
        through_pool("tabletop" if args.suite == "all" else args.suite, args.size, args.chunk, args.seconds)
        return
    print(f"{'suite':16s} {'kind':10s} {'control steps/s':>16s} {'images/s':>10s} {'decisions/s':>12s}")
    for suite in ("tabletop", "tabletop_dual") if args.suite == "all" else (args.suite,):
        seen = {task.kind: index for index, task in reversed(list(enumerate(SUITES[suite])))}
        for kind, task in reversed(seen.items()):
            steps, pictures, choices = measure(suite, task, args.size, args.chunk, args.seconds)
            print(f"{suite:16s} {kind:10s} {steps:16,.0f} {pictures:10,.0f} {choices:12,.0f}")


if __name__ == "__main__":
    main()
