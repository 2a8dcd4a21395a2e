"""Twenty SIGKILLs at random moments of a training run, a resume after each, against the run undisturbed.

python -m benchmarks.sigkill --out DIR

Half of the kills fall within an iteration's time of a process's start (into loading, mostly), half within an
iteration's time of its first checkpoint (rollouts, updates, writes); all draws are seeded.  In the end every
file of the last checkpoint (weights, moments of the optimizer, statistics) must be equal byte for byte, and
the history figure for figure.  Exit code 1 otherwise.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

import lastr1.train.jobs  # noqa: F401  (once, before the forks: a kill while importing would show little)
from lastr1.cli import main as lastr1_main
from lastr1.train.metrics import read_metrics

# One layer: kills must fall into all parts of a run, not only into its arithmetic.
KNOBS = [
    "--base", "scratch", "--device", "cpu", "--threads", "1", "--processes", "1",
    "--env.workers", "0", "--env.slots", "8", "--env.image", "32", "--policy.image", "32",
    "--backbone.hidden", "32", "--backbone.layers", "1", "--backbone.heads", "2", "--backbone.kv-heads", "1",
    "--backbone.head-dim", "16", "--backbone.mlp", "32", "--backbone.vision-hidden", "16",
    "--backbone.vision-layers", "1", "--backbone.vision-heads", "2", "--backbone.vision-mlp", "16",
    "--warmup.iterations", "2", "--warmup.batch", "4",
    "--reinforce.episodes", "8", "--reinforce.minibatches", "2", "--reinforce.checkpoint-every", "1",
    "--reinforce.minutes", "None",
]  # fmt: skip


RUNS = ("whole", "killed")


def job(log: Path, *arguments: str) -> int:
    """Begin a job in a process of its own; its id."""
    child = os.fork()
    if child == 0:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        name, *more = arguments
        try:
            os._exit(lastr1_main([name, "tabletop", *KNOBS, *more]))
        finally:  # whatever happens, nothing of the parent's is undone here
            traceback.print_exc()
            os._exit(1)
    return child


def train(out: Path, iterations: int) -> int:
    """Begin the run, or go on with it where it has begun; the id of its process."""
    more = ["--resume"] if (out / "config.json").exists() else []
    more += ["--checkpoint", str(out.parent / "warmup" / "last"), "--out", str(out)]
    return job(out.parent / "log.txt", "train", "--reinforce.iterations", str(iterations), *more)


def newest(out: Path) -> str:
    return (out / "last").readlink().name if (out / "last").is_symlink() else "none"


def kill(child: int, out: Path, *, saved: bool, delay: float) -> bool:
    """SIGKILL after so many seconds (from its first checkpoint on); False when the run ended before that."""
    before, until = newest(out), None if saved else time.monotonic() + delay
    while until is None or time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            assert status == 0, f"the run failed with exit code {os.waitstatus_to_exitcode(status)}"
            return False
        if until is None and newest(out) != before:
            until = time.monotonic() + delay
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def finish(child: int) -> None:
    _, status = os.waitpid(child, 0)
    assert status == 0, (
        f"a job failed with exit code {os.waitstatus_to_exitcode(status)}: see log.txt in --out"
    )


def history(out: Path) -> list[dict[str, float]]:
    """Figures of all iterations, without those of the clock."""
    clock = ("collect_seconds", "update_seconds", "time")
    rows = read_metrics(out / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in clock} for row in rows]


def torture(out: Path, iterations: int, kills: int, draw: np.random.Generator, longest: float) -> int:
    """Kill and resume; how many kills there were before the run ended."""
    print("| kill | seconds after | newest checkpoint | half-written ones |\n|---|---|---|---|")
    for number in range(kills):
        saved, delay = bool(draw.integers(2)), float(draw.uniform(0, longest))
        if not kill(train(out, iterations), out, saved=saved, delay=delay):
            return number
        moment = f"{delay:.2f} a checkpoint" if saved else f"{delay:.2f} the start"
        print(f"| {number + 1} | {moment} | {newest(out)} | {len(list(out.glob('.step_*')))} |", flush=True)
    finish(train(out, iterations))
    return kills


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=None, help="where both runs stay; default: nowhere")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        finish(job(out / "log.txt", "warmup", "--out", str(out / "warmup")))
        began = time.perf_counter()
        finish(train(out / RUNS[0], args.iterations))
        whole = time.perf_counter() - began
        print(f"undisturbed: {args.iterations} iterations in {whole:.1f} s")
        began, draw = time.perf_counter(), np.random.default_rng(args.seed)
        kills = torture(out / RUNS[1], args.iterations, args.kills, draw, whole / args.iterations)
        print(f"{kills} kills, {time.perf_counter() - began:.0f} s in all")
        return judge(out, kills == args.kills)


def judge(out: Path, enough: bool) -> int:
    """Say what differs; the exit code."""
    ours, theirs = ({p.name: p.read_bytes() for p in (out / run / "last").iterdir()} for run in RUNS)
    wrong = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    first, second = (history(out / run) for run in RUNS)
    size = sum(map(len, ours.values()))
    print(f"last checkpoint: {len(ours)} files, {size:,} bytes; different: {wrong or 'none'}")
    print(f"history of {len(first)} iterations: {'equal' if first == second else 'DIFFERENT'}")
    if not enough:
        print("the run ended before all kills: raise --iterations")
    return 0 if enough and not wrong and first == second else 1


if __name__ == "__main__":
    sys.exit(main())
