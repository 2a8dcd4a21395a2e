"""How often the scripted experts succeed, task by task: the tables of docs/EXPERTS.md.

    python -m benchmarks.experts --suites libero_goal --states 10

Stored initial states, evenly spread over the 50 of each task.  Nothing is drawn but the picture that begins
an episode: the experts look at the physics.  Lengths are control steps of the successes.
"""

import argparse
import statistics
import time
from dataclasses import dataclass

from lastr1.envs import planner_of
from lastr1.envs.base import Start
from lastr1.envs.dualarm import SUITE as DUALARM
from lastr1.envs.dualarm import DualArmEnv
from lastr1.envs.libero import CAPS, LiberoEnv
from lastr1.train.evaluate import wilson

PAPER = {"libero_spatial": 109, "libero_object": 137, "libero_goal": 106, "libero_10": 205}
"""Mean length of the human demonstrations, control steps (LaST-R1, Figure 10)."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What the expert did with one task."""

    task: str
    played: int
    lengths: tuple[int, ...]
    """control steps of each success"""
    failed: tuple[int, ...]
    """stored states"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suites", nargs="+", choices=(*CAPS, DUALARM), default=list(PAPER))
    parser.add_argument("--tasks", type=int, nargs="*", help="only these tasks")
    parser.add_argument("--states", type=int, default=10, help="stored states per task")
    asked = parser.parse_args()
    for suite in asked.suites:
        measure(suite, asked.tasks, asked.states)


def spread(count: int, stored: int) -> list[int]:
    """`count` of the states 0..stored-1, evenly spread."""
    return [index * stored // count for index in range(count)]


def measure(suite: str, tasks: list[int] | None, count: int) -> None:
    """Print one suite's table (Markdown) as its rows come in."""
    env = DualArmEnv(image=64) if suite == DUALARM else LiberoEnv(suite, image=64)
    begun = time.perf_counter()
    print(f"\n| {suite} | success | 95% interval | median steps | states failed |\n|---|---|---|---|---|")
    rows = []
    for task in tasks if tasks is not None else range(len(env.tasks)):
        rows.append(play(env, task, spread(count, env.stored_states)))
        show(f"{task} {env.tasks[task]}", rows[-1])
    whole = Tally(
        task="all",
        played=sum(row.played for row in rows),
        lengths=tuple(length for row in rows for length in row.lengths),
        failed=(),
    )
    show("all", whole)
    if whole.lengths:
        print(f"\nmean {statistics.mean(whole.lengths):.0f} control steps", end="")
        print(f", people {PAPER[suite]}" if suite in PAPER else "", end="")
        print(f"; {time.perf_counter() - begun:.0f} s", flush=True)
    env.close()


def play(env: LiberoEnv | DualArmEnv, task: int, states: list[int]) -> Tally:
    expert = planner_of(env)
    plans = {state: expert.plan(Start(task=task, state=state)) for state in states}
    return Tally(
        task=env.tasks[task],
        played=len(states),
        lengths=tuple(len(plan.actions) for plan in plans.values() if plan.success),
        failed=tuple(state for state, plan in plans.items() if not plan.success),
    )


def show(label: str, row: Tally) -> None:
    low, high = wilson(len(row.lengths), row.played)
    steps = f"{statistics.median(row.lengths):.0f}" if row.lengths else ""
    failed = ", ".join(map(str, row.failed))
    print(
        f"| {label} | {len(row.lengths)}/{row.played} | {low:.0%} to {high:.0%} | {steps} | {failed} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
