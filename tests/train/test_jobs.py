"""Every job through the real command line, at toy size; then: a resumed run is an uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from lastr1.cli import main
from lastr1.presets import RECIPES as PRESETS
from lastr1.train import jobs
from lastr1.train.evaluate import wilson
from lastr1.train.metrics import read_metrics
from lastr1.train.reinforce import LocalFleet

PROGRAM = [sys.executable, "-c", "import sys; from lastr1.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def lastr1(toy):
    """`lastr1(job, recipe, ..., code=0)`: one command; its knobs after the toy's."""

    def run(job, recipe, *knobs, code=0):
        assert main([job, recipe, *toy, *map(str, knobs)]) == code

    return run


@pytest.fixture(scope="module")
def chain(tmp_path_factory, lastr1):
    """`chain(recipe)`: the folder of one run of collect, warm-up, reinforcement and evaluation."""
    made = {}

    def run(recipe):
        if recipe not in made:
            root = tmp_path_factory.mktemp(recipe)
            lastr1("collect", recipe, "--out", root / "demos")
            lastr1("warmup", recipe, "--demos", root / "demos", "--out", root / "warmup")
            policy = root / "warmup" / "last"
            lastr1("train", recipe, "--checkpoint", policy, "--out", root / "train")
            policy = root / "train" / "last"
            lastr1("evaluate", recipe, "--checkpoint", policy, "--out", root / "evaluate")
            made[recipe] = root
        return made[recipe]

    return run


RECIPES = {
    "tabletop": 4,
    "tabletop_dual": 2,
    "tabletop_action_only": 4,
    "tabletop_length_1": 4,
    "tabletop_candidates_8": 4,
}


@pytest.mark.parametrize(("recipe", "tasks"), RECIPES.items())
def test_the_four_jobs(chain, recipe, tasks):
    root = chain(recipe)
    result = json.loads((root / "evaluate" / "result.json").read_text())
    assert result["recipe"] == recipe
    assert result["checkpoint"] == str(root / "train" / "last")
    assert result["env"]["image"] == 32
    total, rows = result["total"], result["rows"]
    assert total["episodes"] == 5
    assert total["successes"] == sum(row["success"] for row in rows)
    assert total["wilson95"] == pytest.approx(wilson(total["successes"], 5))
    assert len(result["tasks"]) == tasks
    assert sum(t["episodes"] for t in result["tasks"].values()) == 5
    assert [(row["task"], row["state"]) for row in rows] == [(i % tasks, i // tasks) for i in range(5)]
    assert all(type(row["success"]) is bool and row["control_steps"] > 0 for row in rows)
    assert result["control_steps"] == pytest.approx(sum(row["control_steps"] for row in rows) / 5)
    decisions = sum(result["latents"].values())
    thought = sum(int(length) * count for length, count in result["latents"].items())
    assert result["mean_latents"] == pytest.approx(thought / decisions)
    policy = PRESETS[recipe].policy
    possible = range(min(1, policy.stop_candidates), policy.stop_candidates + 1)
    assert set(result["latents"]) <= {str(policy.latents_per_group * groups) for groups in possible}


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_run_leaves_behind(chain, recipe):
    root = chain(recipe)
    for job in ("warmup", "train"):
        config = json.loads((root / job / "config.json").read_text())
        assert config["name"] == recipe
        assert config["backbone"]["hidden"] == 32
        run = json.loads((root / job / "last" / "run.json").read_text())
        assert run == {"step": 2, "config": config}
        assert list((root / job / "tensorboard").rglob("events.*"))
        assert not [p for p in (root / job).iterdir() if p.name.startswith(".")]
    warmup = read_metrics(root / "warmup" / "metrics.jsonl")
    assert [row["step"] for row in warmup] == [0, 1]
    assert warmup[0].keys() >= {"loss", "action_loss", "action_accuracy", "lr", "constant_cosine"}
    train = read_metrics(root / "train" / "metrics.jsonl")
    assert [row["step"] for row in train] == [0, 1]
    for row in train:
        assert row["episodes"] == 4
        assert 0 <= row["success"] <= 1
        assert row["first_ratio_max"] == pytest.approx(1, abs=1e-3)
        assert row["recorded_gap"] < 1e-2
        assert row["grad_norm"] > 0


def test_reinforcement_changes_the_weights_and_keeps_the_rest(chain):
    root = chain("tabletop")
    before, after = (load_file(root / job / "last" / "model.safetensors") for job in ("warmup", "train"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    facts = [json.loads((root / job / "last" / "lastr1.json").read_text()) for job in ("warmup", "train")]
    assert facts[0] == facts[1]
    assert facts[0]["latent_rms"] != 1.0
    assert len(facts[0]["channels"]) == 32


def test_evaluation_is_deterministic_and_films(chain, tmp_path, lastr1):
    root = chain("tabletop")
    for name in ("a", "b"):
        policy = root / "train" / "last"
        lastr1("evaluate", "tabletop", "--checkpoint", policy, "--out", tmp_path / name, "--seed", "7")
    rows = [json.loads((tmp_path / name / "result.json").read_text())["rows"] for name in ("a", "b")]
    assert [_timeless(row) for row in rows[0]] == [_timeless(row) for row in rows[1]]
    lastr1(
        "evaluate", "tabletop", "--checkpoint", root / "train" / "last", "--out", tmp_path / "c",
        "--evaluate.episodes", "2", "--evaluate.videos", "1",
    )  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["result.json", "video_0_task_0.mp4"]


def test_the_same_seed_gives_the_same_warm_up(chain, tmp_path, lastr1):
    """From stored demonstrations and straight from the expert."""
    lastr1("warmup", "tabletop", "--out", tmp_path / "a")
    ours = load_file(tmp_path / "a" / "last" / "model.safetensors")
    theirs = load_file(chain("tabletop") / "warmup" / "last" / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class PulledPlug(KeyboardInterrupt):
    """Ctrl-C, at a chosen moment."""


@pytest.mark.parametrize("moment", ["collect", "update"])
def test_resume_equals_never_stopped(chain, tmp_path, monkeypatch, moment, lastr1):
    """Three iterations at once; or one, an interruption in the second, and the rest (invariant 14)."""
    policy = chain("tabletop") / "warmup" / "last"
    # with a price of latents that every iteration moves
    budget = ("--thinking.target", "3", "--thinking.rate", "0.1")
    knobs = ("tabletop", "--reinforce.iterations", "3", *budget, "--checkpoint", policy)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    lastr1("train", *knobs, "--out", whole)
    original = getattr(LocalFleet, moment)

    def interrupted(self, *arguments):
        if arguments[-1] == 1:
            raise PulledPlug
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFleet, moment, interrupted)
        lastr1("train", *knobs, "--out", parts, code=130)
    assert json.loads((parts / "last" / "run.json").read_text())["step"] == 1
    lastr1("train", *knobs, "--out", parts, "--resume")
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = load_file(whole / "last" / name), load_file(parts / "last" / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    for name in ("run.json", "lastr1.json", "statistics.json", "config.json"):
        assert (whole / "last" / name).read_bytes() == (parts / "last" / name).read_bytes()
    ours, theirs = (read_metrics(path / "metrics.jsonl") for path in (whole, parts))
    assert [_timeless(row) for row in ours] == [_timeless(row) for row in theirs]


def _timeless(row):
    return {name: value for name, value in row.items() if not name.endswith(("seconds", "_busy"))}


def test_resuming_a_finished_run_changes_nothing(chain, tmp_path, capsys, lastr1):
    root, out = chain("tabletop"), tmp_path / "run"
    lastr1("train", "tabletop", "--checkpoint", root / "warmup" / "last", "--out", out)
    before = (out / "last" / "model.safetensors").read_bytes()
    lastr1("train", "tabletop", "--out", out, "--resume")
    assert (out / "last" / "model.safetensors").read_bytes() == before
    assert "2 iterations, 0 episodes" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_run(chain, tmp_path, lastr1):
    """And another seed another one."""
    root, found = chain("tabletop"), []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        policy = root / "warmup" / "last"
        lastr1("train", "tabletop", "--checkpoint", policy, "--out", out, "--seed", seed)
        found.append(load_file(out / "last" / "model.safetensors"))
    first = load_file(root / "train" / "last" / "model.safetensors")
    assert all(torch.equal(first[name], found[0][name]) for name in first)
    assert any(not torch.equal(first[name], found[1][name]) for name in first)


def test_an_interrupted_save_leaves_the_last_checkpoint(chain, tmp_path, monkeypatch, lastr1):
    root, out = chain("tabletop"), tmp_path / "run"
    original, calls = os.replace, []

    def interrupted(source, target):
        if str(target) == str(out / "last"):
            calls.append(source)
            if len(calls) == 2:
                raise KeyboardInterrupt
        original(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    lastr1("train", "tabletop", "--checkpoint", root / "warmup" / "last", "--out", out, code=130)
    monkeypatch.undo()
    assert json.loads((out / "last" / "run.json").read_text())["step"] == 1
    assert not [p for p in out.iterdir() if p.name.startswith(".")]
    lastr1("train", "tabletop", "--out", out, "--resume")
    ours, theirs = (load_file(x / "last" / "model.safetensors") for x in (out, root / "train"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_spent_budget_ends_the_run_cleanly(chain, tmp_path, capsys, lastr1):
    policy, out = chain("tabletop") / "warmup" / "last", tmp_path / "run"
    lastr1(
        "train", "tabletop", "--checkpoint", policy, "--out", out,
        "--reinforce.iterations", "9", "--reinforce.minutes", "1e-9",
    )  # fmt: skip
    assert "0 iterations, 0 episodes" in capsys.readouterr().out
    assert json.loads((out / "last" / "run.json").read_text())["step"] == 0


@pytest.mark.slow
def test_grounding_makes_a_base(tmp_path, monkeypatch, lastr1):
    """ground -> warmup --base -> a policy with the base's tokenizer."""
    knobs = ("--grounding.iterations", "2", "--grounding.episodes", "2", "--grounding.batch", "4")
    lastr1("ground", "tabletop_base", *knobs, "--out", tmp_path / "ground")
    figures = read_metrics(tmp_path / "ground" / "metrics.jsonl")
    assert [row["step"] for row in figures] == [0, 1]
    base = tmp_path / "ground" / "last"
    lastr1("warmup", "tabletop", "--base", base, "--out", tmp_path / "warmup")
    tokenizers = [(p / "tokenizer.json").read_bytes() for p in (base, tmp_path / "warmup" / "last")]
    assert tokenizers[0] == tokenizers[1]
    assert jobs.weights.stored_policy(tmp_path / "warmup" / "last").image == 32


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "processes"), [(0, 1), (1, 1), (0, 2)])
def test_ctrl_c_leaves_a_checkpoint_that_loads(chain, tmp_path, workers, processes, toy, complaint, lastr1):
    """SIGINT to the whole group, as a terminal does: code 130, one line, no process left behind."""
    policy, out = chain("tabletop") / "warmup" / "last", tmp_path / "run"
    knobs = ["--reinforce.iterations", "100000", "--env.workers", str(workers)]
    knobs += ["--processes", str(processes)]
    process = subprocess.Popen(
        [*PROGRAM, "train", "tabletop", *toy, *knobs, "--checkpoint", str(policy), "--out", str(out)],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        # Whoever runs the tests in the background ignores the signal, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        _wait_until(lambda: (out / "last" / "run.json").exists() or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert complaint(stderr) == "lastr1: interrupted; the last checkpoint is whole"
    _wait_until(lambda: not _alive(process.pid))
    checkpoint = out / "last"
    lastr1("evaluate", "tabletop", "--checkpoint", checkpoint, "--out", tmp_path / "found")
    assert json.loads((tmp_path / "found" / "result.json").read_text())["total"]["episodes"] == 5
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def _alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_until(condition, limit=300):
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
