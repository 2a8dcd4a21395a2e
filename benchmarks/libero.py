"""LIBERO on this machine: our environment against the stock one, and what it keeps in memory.

    python -m benchmarks.libero speed  --suites libero_object libero_spatial
    python -m benchmarks.libero leak   --suites libero_object

`speed` plays the same random actions both ways, per second of one processor.  Ours: the scene is kept, one
picture per chunk of 8.  Naive, as the released code does: a new environment per episode, both cameras drawn
at every control step.
"""

import argparse
import contextlib
import gc
import io
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lastr1.envs.base import Start
from lastr1.envs.libero import CAPS, IDLE, SETTLE, LiberoEnv
from lastr1.types import ActionChunk, Floats

CHUNK = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "leak"))
    parser.add_argument("--suites", nargs="+", choices=tuple(CAPS), default=["libero_object"])
    parser.add_argument(
        "--chunks", type=int, default=15, help="chunks of 8 control steps per episode (speed)"
    )
    parser.add_argument("--episodes", type=int, default=1, help="episodes each way, their median (speed)")
    parser.add_argument("--render", choices=("full", "no_reflections", "coarse"), default="full")
    asked = parser.parse_args()
    for suite in asked.suites:
        if asked.what == "speed":
            speed(suite, asked.chunks, asked.render, asked.episodes)
        else:
            leak(suite)


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Processor seconds (all threads, the software renderer's too) and wall seconds of one episode."""

    start: float
    play: float
    wall: float


def speed(suite: str, chunks: int, render: str, episodes: int) -> None:
    """One table: naive against ours, per second of one processor, which other work hardly disturbs."""
    draw = np.random.default_rng(0)
    actions = draw.uniform(-1, 1, (chunks * CHUNK, 7)).astype(np.float32)
    env = LiberoEnv(suite, render=render)
    begun = time.process_time()
    env.reset(Start(task=0, state=0))
    first = time.process_time() - begun
    ours = [_ours(env, actions, state) for state in range(1, 1 + episodes)]
    env.close()
    naive = [_naive(suite, actions, state) for state in range(1, 1 + episodes)]
    steps = len(actions)
    print(f"\n{suite}, {steps} control steps per episode, drawn {render}; first scene {first:.1f} s")
    print(f"  {'':34}{'naive':>10}{'ours':>10}{'ratio':>8}")
    rows = [
        ("begin an episode (s)", lambda e: e.start, False),
        ("control steps/s, playing", lambda e: steps / e.play, True),
        ("control steps/s, start included", lambda e: steps / (e.start + e.play), True),
        ("decisions/s, start included", lambda e: chunks / (e.start + e.play), True),
        ("control steps/s of wall time", lambda e: steps / e.wall, True),
    ]
    for label, value, more in rows:
        a, b = (statistics.median(map(value, spent)) for spent in (naive, ours))
        print(f"  {label:34}{a:10.2f}{b:10.2f}{b / a if more else a / b:8.1f}", flush=True)


def _ours(env: LiberoEnv, actions: Floats, state: int) -> Spent:
    wall, begun = time.perf_counter(), time.process_time()
    env.reset(Start(task=0, state=state))
    ready = time.process_time()
    for chunk in actions.reshape(-1, CHUNK, 7):
        env.play(ActionChunk(actions=chunk))
    return Spent(start=ready - begun, play=time.process_time() - ready, wall=time.perf_counter() - wall)


def _naive(suite: str, actions: Floats, state: int) -> Spent:
    """A new environment for the episode, both of its cameras drawn at every control step."""
    from libero.libero import benchmark
    from libero.libero.envs import OffScreenRenderEnv

    wall, begun = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        tasks = benchmark.get_benchmark_dict()[suite]()
        env = OffScreenRenderEnv(
            bddl_file_name=tasks.get_task_bddl_file_path(0), camera_heights=256, camera_widths=256
        )
        env.seed(0)
        env.reset()
    env.set_init_state(tasks.get_task_init_states(0)[state])
    for _ in range(SETTLE):
        env.step(IDLE)
    ready = time.process_time()
    for action in actions:
        env.step(action)
    over = time.process_time()
    env.close()
    gc.collect()
    return Spent(start=ready - begun, play=over - ready, wall=time.perf_counter() - wall)


def leak(suite: str) -> None:
    """Resident memory over changes of the task, each of which closes one scene and builds another."""
    env = LiberoEnv(suite)
    for change in range(9):
        env.reset(Start(task=change % 3, state=0))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        print(f"  {suite} after {change + 1} scenes: {pages * 4096 / 2**20:.0f} MiB", flush=True)
    env.close()


if __name__ == "__main__":
    main()
