"""Whole jobs whose simulators die, hang, lie and dawdle end as if nothing had happened."""

import json
from collections import Counter

import pytest

from lastr1.cli import main
from lastr1.train import reinforce
from lastr1.train.metrics import read_metrics
from lastr1.train.run import BUILTIN

CHAOS = [
    "--chaos.kill", "0.02", "--chaos.hang", "0.01", "--chaos.corrupt", "0.03", "--chaos.slow", "0.05",
    "--chaos.delay", "0.01", "--env.deadline", "2",
]  # fmt: skip
SMALL = ["--threads", "1", "--processes", "1", "--env.workers", "2", "--env.slots", "6"]


@pytest.mark.slow
def test_an_evaluation_under_faults_finds_the_same(tmp_path):
    """The base touches the block in some of these states: any change of an episode would show."""
    command = ["evaluate", "tabletop", *SMALL, "--env.tasks", "0", "--evaluate.episodes", "12"]
    command += ["--evaluate.no-both-rules", "--checkpoint", str(BUILTIN)]
    found = {}
    for name, faults in (("calm", []), ("chaos", CHAOS)):
        assert main([*command, *faults, "--out", str(tmp_path / name)]) == 0
        found[name] = json.loads((tmp_path / name / "result.json").read_text())
    lost = sum(row["lost"] for row in found["chaos"]["rows"])
    assert lost > 0
    assert sum(row["lost"] for row in found["calm"]["rows"]) == 0
    rows = {
        name: [{k: v for k, v in row.items() if k not in ("lost", "seconds")} for row in result["rows"]]
        for name, result in found.items()
    }
    assert [(row["task"], row["state"]) for row in rows["chaos"]] == [(0, state) for state in range(12)]
    assert rows["chaos"] == rows["calm"]
    assert 0 < found["calm"]["total"]["successes"] < 12
    assert found["chaos"]["total"] == found["calm"]["total"]
    assert found["chaos"]["coverage"] == found["calm"]["coverage"]
    assert found["chaos"]["signature"]["config"]["chaos"]["corrupt"] == 0.03


@pytest.mark.slow
def test_training_under_faults_plays_the_same_episodes(tmp_path, toy, monkeypatch):
    """Every start exactly once per iteration; figures of the episodes as in the undisturbed run."""
    played = []
    make = reinforce.make_rollout
    monkeypatch.setattr(reinforce, "make_rollout", lambda episodes: played.append(episodes) or make(episodes))
    assert main(["warmup", "tabletop", *toy, "--out", str(tmp_path / "warmup")]) == 0
    command = ["train", "tabletop", *toy, "--env.workers", "2", "--reinforce.episodes", "6"]
    command += ["--reinforce.iterations", "3", "--checkpoint", str(tmp_path / "warmup" / "last")]
    figures = {}
    for name, faults in (("calm", []), ("chaos", CHAOS)):
        assert main([*command, *faults, "--out", str(tmp_path / name)]) == 0
        figures[name] = read_metrics(tmp_path / name / "metrics.jsonl")
    calm, chaos = played[:3], played[3:]
    for ours, theirs, row in zip(calm, chaos, figures["chaos"], strict=True):
        assert set(Counter(e.start for e in theirs).values()) == {1}
        assert [e.start for e in theirs] == [e.start for e in ours]
        lost = sum(e.lost for e in theirs)
        assert row["lost_share"] == lost / (lost + 6)
    assert sum(row["lost_share"] for row in figures["chaos"]) > 0
    for name in ("success", "episodes", "decisions", "control_steps", "mean_groups"):
        assert [row[name] for row in figures["chaos"]] == [row[name] for row in figures["calm"]]
    assert all(row["lost_share"] == 0 for row in figures["calm"])
