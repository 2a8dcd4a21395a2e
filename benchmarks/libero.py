"""LIBERO on this machine: our environment against the stock one, and the expert's successes.

    python -m benchmarks.libero speed  --suites libero_object libero_spatial
    python -m benchmarks.libero expert --suites libero_object --states 3
    python -m benchmarks.libero leak   --suites libero_object

`speed` plays the same random actions both ways.  Ours: the scene is kept, one picture per chunk of 8.  Stock:
a new environment per episode, every camera drawn at every control step.  Run it alone on the machine.
"""

import argparse
import contextlib
import io
import statistics
import time
from pathlib import Path

import numpy as np

from lastr1.envs.base import Start
from lastr1.envs.libero import CAPS, SETTLE, LiberoEnv
from lastr1.envs.libero_expert import LiberoExpert
from lastr1.types import ActionChunk, Floats

CHUNK = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "expert", "leak"))
    parser.add_argument("--suites", nargs="+", choices=tuple(CAPS), default=["libero_object"])
    parser.add_argument("--chunks", type=int, default=5, help="chunks of 8 control steps per episode (speed)")
    parser.add_argument("--states", type=int, default=3, help="stored states per task (expert)")
    parser.add_argument("--tasks", type=int, nargs="*", help="only these tasks (expert)")
    asked = parser.parse_args()
    for suite in asked.suites:
        if asked.what == "speed":
            speed(suite, asked.chunks)
        elif asked.what == "expert":
            successes(suite, asked.tasks, asked.states)
        else:
            leak(suite)


def speed(suite: str, chunks: int) -> None:
    draw = np.random.default_rng(0)
    actions = draw.uniform(-1, 1, (chunks * CHUNK, 7)).astype(np.float32)
    env = LiberoEnv(suite)
    begun = time.perf_counter()
    env.reset(Start(task=0, state=0))
    build = time.perf_counter() - begun
    resets, plays = zip(*(_ours(env, actions, state) for state in (1, 2, 3)), strict=True)
    env.close()
    reset, play = statistics.median(resets), statistics.median(plays)
    slow_reset, slow_play = _stock(suite, actions)
    steps = len(actions)
    print(f"\n{suite}")
    print(f"  {'':28}{'ours':>10}{'stock':>10}{'ratio':>8}")
    for label, ours, stock in (
        ("begin an episode (s)", reset, slow_reset),
        (f"{steps} control steps (s)", play, slow_play),
        ("control steps per second", steps / play, steps / slow_play),
        ("same, episode start included", steps / (reset + play), steps / (slow_reset + slow_play)),
    ):
        ratio = ours / stock if "per" in label or "same" in label else stock / ours
        print(f"  {label:28}{ours:10.2f}{stock:10.2f}{ratio:8.1f}")
    print(f"  first reset of a task (builds the scene): {build:.1f} s")


def _ours(env: LiberoEnv, actions: Floats, state: int) -> tuple[float, float]:
    begun = time.perf_counter()
    env.reset(Start(task=0, state=state))
    ready = time.perf_counter()
    for chunk in actions.reshape(-1, CHUNK, 7):
        env.play(ActionChunk(actions=chunk))
    return ready - begun, time.perf_counter() - ready


def _stock(suite: str, actions: Floats) -> tuple[float, float]:
    from libero.libero import benchmark
    from libero.libero.envs import OffScreenRenderEnv

    begun = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        tasks = benchmark.get_benchmark_dict()[suite]()
        env = OffScreenRenderEnv(
            bddl_file_name=tasks.get_task_bddl_file_path(0), camera_heights=256, camera_widths=256
        )
        env.seed(0)
        env.reset()
    env.set_init_state(tasks.get_task_init_states(0)[1])
    for _ in range(SETTLE):
        env.step([0.0] * 6 + [-1.0])
    ready = time.perf_counter()
    for action in actions:
        env.step(action)
    ended = time.perf_counter()
    env.close()
    return ready - begun, ended - ready


def successes(suite: str, tasks: list[int] | None, states: int) -> None:
    env = LiberoEnv(suite)
    expert = LiberoExpert(env)
    won = played = 0
    print(f"\n{suite}: the expert on stored states 0..{states - 1}")
    for task in tasks or range(len(env.tasks)):
        plans = [expert.plan(Start(task=task, state=state)) for state in range(states)]
        lengths = [len(plan.actions) for plan in plans if plan.success]
        won, played = won + len(lengths), played + states
        steps = f"{statistics.median(lengths):5.0f} steps" if lengths else "           "
        print(f"  {task:2} {len(lengths)}/{states} {steps}  {env.tasks[task]}", flush=True)
    print(f"  {won}/{played}")
    env.close()


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
