"""Checkpoints of a run: which stay, what is noticed, what is found after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from lastr1.cli import main
from lastr1.config import Config
from lastr1.model import manifest
from lastr1.train.checkpoint import Store, load_step
from lastr1.train.metrics import read_metrics
from lastr1.types import UserError


@pytest.fixture
def run(tiny, tmp_path):
    """`run(step, score)`: saves that step in a folder that keeps 2, and every 3rd; the store."""
    bundle = tiny()
    optimizer = torch.optim.AdamW(bundle.policy.value_head.parameters())
    store = Store(directory=tmp_path / "run", keep_last=2, keep_every=3)

    def save(step, score=None):
        store.save(bundle, optimizer, Config(name="toy"), step, score=score)
        return store

    return save


def steps(store):
    return sorted(int(p.name[5:]) for p in store.directory.iterdir() if p.name.startswith("step_"))


def test_what_stays(run):
    """The best is the earlier of the equals, 2; then every third, 3 and 6, and the newest two."""
    for step, score in enumerate((0.1, 0.3, 0.3, 0.2, 0.2, 0.2, 0.2), 1):
        store = run(step, score)
    assert steps(store) == [2, 3, 6, 7]
    assert os.readlink(store.directory / "last") == "step_000007"
    assert os.readlink(store.directory / "best") == "step_000002"
    assert not [p for p in store.directory.iterdir() if p.name.startswith(".")]


def test_a_damaged_newest_is_put_aside(run, capsys):
    for step in (1, 2):
        store = run(step)
    weights = store.directory / "step_000002" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # one bit, same size
    weights.write_bytes(content)
    assert load_step(store.newest())[0] == 1
    assert "model.safetensors is damaged: put aside as damaged_step_000002" in capsys.readouterr().err
    assert os.readlink(store.directory / "last") == "step_000001"
    (store.directory / "step_000001" / "run.json").unlink()
    with pytest.raises(UserError, match=r"step_000001/run.json is damaged, and no other"):
        store.newest()


def test_what_a_killed_write_leaves(run):
    """Half a new checkpoint; a replaced one that stands aside; a link; a `last` that is a copied folder."""
    for step in (1, 2):
        store = run(step)
    folder = store.directory
    (folder / ".step_000003.x" / "new").mkdir(parents=True)
    (folder / ".step_000002.x").mkdir()
    (folder / "step_000002").rename(folder / ".step_000002.x" / "old")
    (folder / ".last.link").symlink_to("step_000003")
    (folder / "last").unlink()
    shutil.copytree(folder / "step_000001", folder / "last")
    assert load_step(store.newest())[0] == 2
    assert steps(store) == [1, 2]
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    assert Store(directory=folder / "nothing").newest() is None


def test_large_files_are_hashed_only_when_asked(run):
    path = run(1).directory / "last"
    (path / "README.md").write_text("mine")
    manifest.check(path)
    weights = path / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    manifest.check(path, limit=len(content) - 1)
    for limit in (len(content), float("inf")):
        with pytest.raises(UserError, match=r"model.safetensors is damaged or was edited"):
            manifest.check(path, limit)
    with pytest.raises(UserError, match=r"model.safetensors is damaged"):
        manifest.hashes(path, ["model.safetensors"])
    weights.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"model.safetensors is damaged"):
        manifest.check(path, limit=0)


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
    "before the link": lambda: at(checkpoint, "save_run", 2, after=True),
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
def test_resume_after_sigkill_equals_never_stopped(tmp_path, toy, capsys):
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
    assert signal.Signals.SIGKILL.name not in capsys.readouterr().err


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
        [{k: v for k, v in row.items() if "seconds" not in k} for row in read_metrics(p / "metrics.jsonl")]
        for p in (whole, out)
    ]
    assert rows[0] == rows[1]
    assert not [p for p in out.iterdir() if p.name.startswith(".")]
    best = [os.readlink(p / "best") for p in (whole, out)]
    assert best[0] == best[1]
