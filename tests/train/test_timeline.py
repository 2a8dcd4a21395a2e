"""`train --profile` and evaluations within a run, through the real command line."""

import json
import os

import pytest

from lastr1 import spans
from lastr1.cli import main
from lastr1.spans import Span
from lastr1.train.metrics import read_metrics
from lastr1.train.timeline import Timeline


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy):
    """Directory of three iterations, played and learnt by two processes, with one evaluation."""
    out = tmp_path_factory.mktemp("profiled")
    assert main(["warmup", "tabletop", *toy, "--out", str(out / "warmup")]) == 0
    job = ["--reinforce.iterations", "3", "--reinforce.evaluate-every", "2", "--evaluate.episodes", "6"]
    where = ["--checkpoint", str(out / "warmup" / "last"), "--out", str(out / "train")]
    assert main(["train", "tabletop", *toy, "--processes", "2", *job, *where, "--profile"]) == 0
    return out / "train"


def test_a_run_is_evaluated_at_its_interval(run):
    rows = read_metrics(run / "metrics.jsonl")
    assert ["evaluated_success" in row for row in rows] == [False, True, False]
    assert rows[1]["evaluated_episodes"] == 6
    assert {f"evaluated_success_task_{task}" for task in range(4)} <= rows[1].keys()
    assert rows[1]["evaluate_seconds"] > 0


def test_metrics_say_who_was_busy(run):
    for row in read_metrics(run / "metrics.jsonl"):
        for kind in ("simulator", "policy", "learner"):
            assert 0 < row[f"{kind}_busy"] < 1


def test_the_timeline_has_every_phase_and_every_process(run):
    events = json.loads((run / "trace_000000.json").read_text())
    work = [event for event in events if event["ph"] == "X"]
    phases = [event for event in work if event["cat"] == "run"]
    once = ["collect", "update", "publish"]
    assert [event["name"] for event in phases] == [*once, *once, "evaluate", *once]
    ends = [event["ts"] + event["dur"] for event in phases]
    assert all(later["ts"] >= end - 1000 for end, later in zip(ends, phases[1:], strict=False))
    assert len({event["pid"] for event in work}) == 2
    rows = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["name"] == "thread_name"
    }
    assert {rows[event["pid"], event["tid"]].split()[0] for event in work} == {
        "simulator",
        "policy",
        "learner",
        "run",
    }
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert len(names) == 2
    assert sum(name.endswith(f" {os.getpid()}") for name in names) == 1
    # What was decided in the first phase lies within it.
    first = [event for event in work if event["name"].startswith("decide") and event["ts"] < ends[0]]
    assert first
    assert all(phases[0]["ts"] - 1000 <= event["ts"] <= ends[0] for event in first)


def _span(kind, began, seconds, **where):
    place = {"machine": "m", "process": 1, "number": 0, "what": "x", **where}
    return Span(**place, kind=kind, began=began, seconds=seconds)


def test_shares_by_hand():
    """Two simulators work 3 s and 1 s of 4 s: 4 / (2 * 4) = 1/2; one policy 1 s: 1/4."""
    found = spans.busy(
        [_span("simulator", 0, 2), _span("simulator", 2, 1), _span("simulator", 0, 1, number=1),
         _span("policy", 0, 1), _span("run", 0, 4)], 4.0,
    )  # fmt: skip
    assert found == {"simulator_busy": 0.5, "policy_busy": 0.25}


def test_the_same_number_on_another_machine_is_another_process(tmp_path):
    with Timeline(tmp_path / "t.json") as timeline:
        timeline.write([_span("policy", 1.5, 0.25)])
        timeline.write([_span("policy", 2.0, 0.5, machine="n"), _span("policy", 3.0, 0.5)])
    work = [e for e in json.loads((tmp_path / "t.json").read_text()) if e["ph"] == "X"]
    assert [(e["pid"], e["tid"], e["ts"], e["dur"]) for e in work] == [
        (1, 1, 1_500_000, 250_000), (2, 1, 2_000_000, 500_000), (1, 1, 3_000_000, 500_000),
    ]  # fmt: skip


def test_spans_are_taken_once():
    spans.taken()
    with pytest.raises(ZeroDivisionError), spans.span("policy", "divide"):
        1 / 0  # noqa: B018
    assert [one.what for one in spans.taken()] == ["divide"]
    assert spans.taken() == []
