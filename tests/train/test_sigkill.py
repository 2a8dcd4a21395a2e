"""A run that is killed at any moment and resumed ends as if it had never been stopped."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from lastr1.cli import main
from lastr1.train.metrics import read_metrics

# Each child kills itself, without warning, at a moment of a run of 3 iterations.
DRIVER = """
import json, os, pathlib, signal, sys
import lastr1.train.jobs
from lastr1.cli import main
from lastr1.model import hub
from lastr1.train import checkpoint, jobs, learner, metrics, reinforce

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def at(owner, name, number, after=False):
    original, calls = getattr(owner, name), []
    def counted(*arguments, **knobs):
        calls.append(1)
        if len(calls) == number and not after:
            die()
        found = original(*arguments, **knobs)
        if len(calls) == number:
            die()
        return found
    setattr(owner, name, counted)

MOMENTS = {
    "first rollout": lambda: at(reinforce, "make_rollout", 1),
    "rollout": lambda: at(reinforce, "make_rollout", 2),
    "update": lambda: at(learner.Learner, "_step", 7, after=True),
    "before the checkpoint": lambda: at(metrics.MetricsLog, "write", 2, after=True),
    "half a checkpoint": lambda: at(checkpoint, "_moments", 2),
    "before the rename": lambda: at(hub, "flush", 2, after=True),
    "before the link": lambda: at(checkpoint.Store, "_point", 3),
    "while clearing": lambda: at(checkpoint.shutil, "rmtree", 1),
}
out, arguments = sys.argv[1], json.loads(sys.argv[2])
for moment, prepare in MOMENTS.items():
    child = os.fork()
    if child == 0:
        prepare()
        main([*arguments, "--out", os.path.join(out, moment)])
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (moment, status)
    print(moment)
"""


@pytest.mark.slow
def test_resume_after_sigkill_equals_never_stopped(tmp_path, toy):
    """Weights, moments, statistics and history (invariant 14), whatever moment the run was killed at."""
    assert main(["warmup", "tabletop", *toy, "--out", str(tmp_path / "warmup")]) == 0
    knobs = [
        "--reinforce.iterations",
        "3",
        "--reinforce.task-choice",
        "failures",
        "--reinforce.keep-last",
        "1",
    ]
    knobs += ["--checkpoint", str(tmp_path / "warmup" / "last")]
    command = ["train", "tabletop", *toy, *knobs]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    found = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "killed"), json.dumps(command)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    moments = found.stdout.splitlines()
    assert len(moments) == 8
    for moment in moments:
        out = tmp_path / "killed" / moment
        assert main([*command, "--out", str(out), "--resume"]) == 0
        _same(tmp_path / "whole", out)


def _same(whole, out):
    ours, theirs = whole / "last", out / "last"
    assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in theirs.iterdir())
    for path in ours.iterdir():
        if path.suffix == ".safetensors":
            left, right = load_file(path), load_file(theirs / path.name)
            assert left.keys() == right.keys()
            assert all(torch.equal(left[key], right[key]) for key in left), (out, path.name)
        else:
            assert path.read_bytes() == (theirs / path.name).read_bytes(), (out, path.name)
    rows = [
        [
            {k: v for k, v in row.items() if not k.endswith(("_seconds", "_busy"))}
            for row in read_metrics(p / "metrics.jsonl")
        ]
        for p in (whole, out)
    ]
    assert rows[0] == rows[1]
    assert not [p for p in out.iterdir() if p.name.startswith(".")]
    best = [os.readlink(p / "best") for p in (whole, out)]
    assert best[0] == best[1]
