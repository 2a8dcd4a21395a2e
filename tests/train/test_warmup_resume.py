"""A warm-up that was stopped and goes on is one that never stopped; through the real command line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lastr1 import cli
from lastr1.cli import main
from lastr1.demos.cache import CachedTeacher
from lastr1.demos.teacher import CallableTeacher
from lastr1.train import jobs
from lastr1.train.metrics import MetricsLog, read_metrics
from lastr1.train.warmup import Teaching
from lastr1.types import UserError


class PulledPlug(KeyboardInterrupt):
    """Ctrl-C, at a chosen moment."""


KNOBS = (
    "--warmup.iterations", "5", "--warmup.checkpoint-every", "2", "--warmup.image-augment", "random_crop",
    "--policy.crop", "0.9", "--collect.episodes", "1", "--warmup.report-every", "3",
)  # fmt: skip


@pytest.fixture(scope="module")
def demos(tmp_path_factory, toy):
    out = tmp_path_factory.mktemp("recorded") / "demos"
    assert main(["collect", "tabletop", *toy, "--collect.episodes", "2", "--out", str(out)]) == 0
    return out


@pytest.fixture
def warmup(toy, demos):
    """`warmup(out, *knobs, code=0)`."""

    def run(out, *knobs, code=0):
        knobs = [str(knob) for knob in (*KNOBS, *knobs, "--demos", demos, "--out", out)]
        assert main(["warmup", "tabletop", *toy, *knobs]) == code

    return run


def stop_at(patch, step):
    """Ctrl-C when the lesson of `step` is drawn, of the whole run."""
    original, drawn = Teaching.steps, []

    def steps(self, first=0):
        for found, figures in original(self, first):
            if found == step and not drawn:
                drawn.append(found)
                raise PulledPlug
            yield found, figures

    patch.setattr(Teaching, "steps", steps)


def same_folders(ours, theirs):
    names = sorted(p.name for p in theirs.iterdir())
    assert sorted(p.name for p in ours.iterdir()) == names
    for name in names:
        if name.endswith(".safetensors"):
            left, right = load_file(ours / name), load_file(theirs / name)
            assert left.keys() == right.keys()
            assert all(torch.equal(left[key], right[key]) for key in right), name
        elif (ours / name).is_file():
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


@pytest.mark.parametrize("target", ["teacher", "q_former"])
def test_resumed_equals_never_stopped(warmup, tmp_path, monkeypatch, capsys, target):
    """Five steps at once; or two, a third that is lost, an interruption, and the rest: tensor for tensor.

    Random crops, lengths and frames come from one generator; the running RMS of the latents scales them; a
    compressor has weights and moments of its own.
    """
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    knobs = ("--warmup.target", target)
    warmup(whole, *knobs)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        warmup(parts, *knobs, code=130)
    assert json.loads((parts / "last" / "run.json").read_text())["step"] == 2
    assert [row["step"] for row in read_metrics(parts / "metrics.jsonl")] == [0, 2]
    capsys.readouterr()
    warmup(parts, *knobs, "--resume")
    assert "on 256 demonstrated frames" in capsys.readouterr().err
    same_folders(parts / "last", whole / "last")
    ours, theirs = (read_metrics(path / "metrics.jsonl") for path in (parts, whole))
    assert ours == theirs
    assert [row["step"] for row in ours] == [0, 2, 4]
    assert ours[2].keys() >= {"forced_action_accuracy", "fed_action_accuracy", "constant_cosine"}
    result = json.loads((parts / "result.json").read_text())
    assert result == json.loads((whole / "result.json").read_text())
    assert result["step"] == 5
    assert result["action_accuracy_gap"] == ours[2]["action_accuracy_gap"]


def test_resuming_a_finished_run_changes_nothing(warmup, tmp_path):
    out = tmp_path / "run"
    warmup(out)
    before = {p.name: p.read_bytes() for p in (out / "last").iterdir()}
    lines = (out / "metrics.jsonl").read_bytes()
    warmup(out, "--resume")
    assert {p.name: p.read_bytes() for p in (out / "last").iterdir()} == before
    assert (out / "metrics.jsonl").read_bytes() == lines


def test_stopped_while_the_teacher_looks(warmup, tmp_path, monkeypatch):
    """Before any checkpoint: --resume begins the lessons, and asks only for the views that are missing."""
    out, knobs = tmp_path / "run", ("--warmup.target", "average_pool")
    original, asked = CachedTeacher._piece, []

    def interrupted(self, frames):
        asked.append(len(frames))
        if len(asked) == 2:
            raise PulledPlug
        return original(self, frames)

    monkeypatch.setattr("lastr1.demos.cache.PIECE", 16)
    with monkeypatch.context() as patch:
        patch.setattr(CachedTeacher, "_piece", interrupted)
        warmup(out, *knobs, code=130)
    (kept,) = (out / "targets").iterdir()
    written = kept.stat().st_mtime_ns
    warmup(out, *knobs, "--resume")
    assert kept.stat().st_mtime_ns == written
    assert len(list((out / "targets").iterdir())) > 1
    warmup(tmp_path / "whole", *knobs)
    same_folders(out / "last", tmp_path / "whole" / "last")


def test_what_cannot_go_on(warmup, tmp_path, refused, toy, demos):
    """Other knobs, other demonstrations, a folder without a run."""
    out = tmp_path / "run"
    warmup(out)
    knobs = [*toy, *KNOBS, "--out", out, "--resume"]
    line = refused("warmup", "tabletop", *knobs, "--demos", demos, "--warmup.lr", "0.5")
    assert "was started with another config (warmup.lr: 5e-05 against 0.5): use the same knobs" in line
    line = refused("warmup", "tabletop", *knobs)
    assert line.endswith("was taught from other demonstrations: use the --demos of its start")
    line = refused("warmup", "tabletop", *toy, *KNOBS, "--resume", "--out", tmp_path / "nothing")
    assert "holds no run to continue" in line


@pytest.mark.slow
def test_an_adapter_goes_on(tmp_path, monkeypatch, toy, demos, warmup):
    """LoRA: the base stays where it is, the matrices are continued."""
    pytest.importorskip("peft")
    base, whole, parts = (tmp_path / name for name in ("base", "whole", "parts"))
    warmup(base)
    knobs = ("--base", base / "last", "--adapter.rank", "2")
    warmup(whole, *knobs)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        warmup(parts, *knobs, code=130)
    warmup(parts, *knobs, "--resume")
    same_folders(parts / "last", whole / "last")


def test_a_teacher_may_be_given(tmp_path, toy, demos, monkeypatch):
    """From Python, any function of frames; the policy remembers whose channels it was taught."""
    heard = []
    monkeypatch.setitem(cli.JOBS, "warmup", replace(cli.JOBS["warmup"], run=heard.append))
    assert main(["warmup", "tabletop", *toy, *KNOBS]) == 0
    teacher = CallableTeacher(identity="mine", function=lambda x: x[:, 8:20, 8, 0].astype(np.float32))
    with pytest.raises(UserError, match="teacher's 12 channels are fewer than the model's width 32"):
        jobs.warm_up(heard[0].config, demos, tmp_path / "narrow", teacher=teacher)
    wide = replace(teacher, function=lambda x: x[:, :32, 8:10, 0].reshape(len(x), -1).astype(np.float32))
    bundle = jobs.warm_up(heard[0].config, demos, tmp_path / "run", teacher=wide)
    assert bundle.teacher == "mine"
    assert len(bundle.channels) == 32
    facts = json.loads((tmp_path / "run" / "last" / "lastr1.json").read_text())
    assert (facts["teacher"], tuple(facts["channels"])) == ("mine", bundle.channels)


def test_rows_of_a_killed_run_are_forgotten(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in range(5):
            log.write(step, {"loss": 0.5 * step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # torn
    with MetricsLog(tmp_path, first=3) as log:
        log.write(3, {"loss": 9.0})
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        *({"step": i, "loss": 0.5 * i} for i in range(3)),
        {"step": 3, "loss": 9.0},
    ]
