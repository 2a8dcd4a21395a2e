"""The dead-run detector in a run: told once, written down, ends the run with a checkpoint."""

import json

import pytest

from lastr1.cli import main
from lastr1.config import HealthConfig
from lastr1.train.metrics import read_metrics
from lastr1.train.watch import Watch, read_events
from lastr1.types import UserError

LIMITS = HealthConfig(window=2, stop=("no_success",))
DEAD = {"success": 0.0}


def write(directory, rows):
    lines = [json.dumps({"step": step, **row}) + "\n" for step, row in enumerate(rows)]
    (directory / "metrics.jsonl").write_text("".join(lines))


def test_a_finding_is_told_once_and_again_when_it_gets_worse(tmp_path, capsys):
    watch = Watch(LIMITS, tmp_path)
    assert [watch.look(step, DEAD) for step in range(3)] == [0.0, 2.0, 2.0]
    assert watch.end is None
    watch.conclude()
    assert [watch.look(step, DEAD) for step in (3, 4)] == [3.0, 3.0]
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in told] == [
        "warn after iteration 1",
        "stop after iteration 3",
    ]
    assert [(e.step, e.finding.level, e.finding.name) for e in read_events(tmp_path / "health.jsonl")] == [
        (1, "warn", "no_success"),
        (3, "stop", "no_success"),
    ]
    assert watch.summary()[1].startswith("stop after iteration 3: zero success for")
    with pytest.raises(UserError, match=r"dead after iteration 3 \(no_success\).*--resume"):
        watch.conclude()


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path):
    rows = [{"success": 0.1}, DEAD, DEAD, DEAD, DEAD]
    whole = Watch(LIMITS, tmp_path)
    expected = [whole.look(step, row) for step, row in enumerate(rows)]
    lines = (tmp_path / "health.jsonl").read_text()
    write(tmp_path, rows)
    later = Watch(LIMITS, tmp_path, 3)
    assert [event.step for event in later.events] == [2]
    assert [later.look(step, rows[step]) for step in (3, 4)] == expected[3:]
    assert (tmp_path / "health.jsonl").read_text() == lines


def test_a_run_that_was_ended_and_is_resumed_gets_whole_windows(tmp_path):
    first = Watch(LIMITS, tmp_path)
    for step in range(4):
        first.look(step, DEAD)
    write(tmp_path, [DEAD] * 4)
    again = Watch(LIMITS, tmp_path, 4)
    assert [again.look(step, DEAD) for step in range(4, 8)] == [0.0, 2.0, 2.0, 3.0]
    assert [event.step for event in again.events] == [1, 3, 5, 7]


def test_a_dead_run_ends_with_a_checkpoint_and_can_go_on(toy, tmp_path, capsys):
    """Toy policies never succeed; without a critic they have no advantages either."""
    knobs = [*toy, "--health.window", "1", "--health.stop", "no_advantage", "--reinforce.iterations", "5"]
    group = ["--reinforce.group", "2", "--reinforce.minibatches", "2"]
    assert main(["warmup", "tabletop_grpo", *knobs, *group, "--out", str(tmp_path / "warmup")]) == 0
    train = ["train", "tabletop_grpo", *knobs, *group, "--out", str(tmp_path / "train")]
    assert main([*train, "--checkpoint", str(tmp_path / "warmup" / "last")]) == 2
    heard = capsys.readouterr().err
    assert "the run is dead after iteration 1 (no_advantage)" in heard
    rows = read_metrics(tmp_path / "train" / "metrics.jsonl")
    assert [row["health"] for row in rows] == [2.0, 3.0]
    assert all(row["advantage_std"] == row["grad_norm"] == 0.0 for row in rows)
    assert not any("explained_variance" in row for row in rows)
    assert json.loads((tmp_path / "train" / "last" / "run.json").read_text())["step"] == 2
    assert main([*train, "--resume"]) == 2
    assert [row["step"] for row in read_metrics(tmp_path / "train" / "metrics.jsonl")] == [0, 1, 2, 3]
