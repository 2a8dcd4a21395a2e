"""A cluster on this machine: the numbers of the local fleet, whoever is lost on the way."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file

pytest.importorskip("ray", reason="Ray is not installed: pip install 'lastr1[cluster]'")

from lastr1.cli import main
from lastr1.cluster import ray
from lastr1.cluster.crew import Crew
from lastr1.cluster.fleet import RayFleet, open_crew_and_ranks
from lastr1.cluster.job import train
from lastr1.config import ClusterConfig, Config
from lastr1.knobs import from_dict
from lastr1.train import jobs
from lastr1.train.metrics import read_metrics
from lastr1.train.session import open_session
from lastr1.types import UserError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def machine():
    """A Ray of our own, with room for four processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(
            address="local", num_cpus=4, include_dashboard=False, object_store_memory=200_000_000,
            _node_ip_address="127.0.0.1", log_to_driver=False,
        )  # fmt: skip
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def warmed(tmp_path_factory, toy):
    """A toy policy, and a config of three iterations."""
    out = tmp_path_factory.mktemp("cluster")
    assert main(["warmup", "tabletop", *toy, "--out", str(out)]) == 0
    config = from_dict(Config, json.loads((out / "config.json").read_text()))
    job = replace(config.reinforce, iterations=3, minibatches=2, episodes=6, evaluate_every=2)
    return out / "last", replace(config, reinforce=job)


@pytest.fixture(scope="module")
def alone(warmed, tmp_path_factory):
    """Run directory of the local fleet."""
    out = tmp_path_factory.mktemp("alone") / "run"
    jobs.train(warmed[1], warmed[0], out)
    return out


def on_cluster(config, **knobs):
    return replace(config, cluster=ClusterConfig(**{"collectors": 2, **knobs}))


def same(a, b):
    """Whether two runs played the same episodes and learnt the same."""
    first, second = read_metrics(a / "metrics.jsonl"), read_metrics(b / "metrics.jsonl")
    assert len(first) == len(second)
    for x, y in zip(first, second, strict=True):
        for name in ("episodes", "decisions", "control_steps", "success", "mean_groups", "action_entropy"):
            assert y[name] == pytest.approx(x[name], rel=1e-4, abs=1e-6), name
        assert ("evaluated_success" in x) == ("evaluated_success" in y) == (x["step"] == 1)
    for name in ("evaluated_success", "evaluated_episodes", "evaluated_mean_groups"):
        assert second[1][name] == pytest.approx(first[1][name], rel=1e-4, abs=1e-6), name
    begin, *ends = (
        load_file(run / "model.safetensors") for run in (a / "step_000002", a / "last", b / "last")
    )
    moved = sum(float((ends[0][k] - begin[k]).square().sum()) for k in begin) ** 0.5
    apart = sum(float((ends[0][k] - ends[1][k]).square().sum()) for k in begin) ** 0.5
    assert moved > 0
    assert apart < 0.05 * moved


def test_a_cluster_learns_what_one_process_learns(machine, warmed, alone, tmp_path):
    """Two that play, two that learn; and a checkpoint from which either goes on."""
    config = on_cluster(warmed[1], learners=2, placement="colocated")
    found = train(config, warmed[0], tmp_path / "run", profile=True)
    assert found.episodes == 18
    same(alone, tmp_path / "run")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["staleness"] for row in rows] == [0, 0, 0]
    for row in rows:
        assert all(0 < row[f"{kind}_busy"] < 1 for kind in ("simulator", "policy", "learner"))
        assert (
            row["episode_bytes"] > row["decisions"] * 3 * 32 * 32 * 3
        )  # pixels alone: here, and to two ranks
    weights = sum(t.numel() for t in load_file(tmp_path / "run" / "last" / "model.safetensors").values())
    assert rows[0]["weight_bytes"] <= 2 * 4 * weights  # to two collectors; what is frozen stays
    events = json.loads((tmp_path / "run" / "trace_000000.json").read_text())
    of = {"collect": set(), "decide": set(), "gradient": set()}
    for event in events:
        of.setdefault(event["name"].split()[0], set()).add(event["pid"])
    assert [len(of[name]) for name in ("collect", "decide", "gradient")] == [1, 2, 2]


class Deaths:
    """A fleet's method, during which something dies once."""

    def __init__(self, patch, owner, name, iteration, kill):
        original, self.done = getattr(owner, name), False

        def method(this, *arguments):
            if iteration in arguments and not self.done:
                self.done = True
                kill(this)
            return original(this, *arguments)

        patch.setattr(owner, name, method)


def _pid(actor):
    return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))


def test_a_killed_collector_and_a_killed_rank(machine, warmed, alone, tmp_path, monkeypatch):
    """Others play what the collector had begun; the rank's work goes on from the last checkpoint."""

    def kill_collector(crew):
        os.kill(_pid(crew._places[0]), signal.SIGKILL)

    def kill_rank(fleet):
        os.kill(_pid(fleet._ranks.actors[0]), signal.SIGKILL)

    died = [
        Deaths(monkeypatch, Crew, "wait", 1, kill_collector),
        Deaths(monkeypatch, RayFleet, "update", 2, lambda fleet: kill_rank(fleet)),
    ]
    train(on_cluster(warmed[1]), warmed[0], tmp_path / "run")
    assert all(death.done for death in died)
    same(alone, tmp_path / "run")


def test_playing_ahead_is_bounded_and_repeats_itself(machine, warmed, tmp_path):
    """With staleness 1 the second iteration is played with the first weights, and so on."""
    config = on_cluster(warmed[1], collectors=1, staleness=1)
    session = open_session(config, warmed[0], tmp_path / "run", resume=False)
    with open_crew_and_ranks(session) as (crew, ranks):
        fleet = RayFleet(config, crew, ranks, session.begin(crew.suite.tasks).tasks, 0)
        versions, found = [], []
        for iteration in range(3):
            rollout = fleet.collect(iteration)
            versions.append({episode.version for episode in rollout.episodes})
            found.append([episode.start for episode in rollout.episodes])
            figures = fleet.update(rollout, iteration)
            fleet.publish()
            if iteration == 1:  # the third iteration is being played, with older weights
                tested = fleet.evaluate()
                assert {episode.version for episode in tested} == {2}
                assert len(tested) == config.evaluate.episodes
        assert versions == [{0}, {0}, {1}]
        assert figures["staleness"] == 1
        assert len({start.seed for starts in found for start in starts}) == 18
        # Collectors hold what the ranks learnt.
        here = crew._places[0].__ray_call__.remote(
            lambda worker: {n: p.detach().numpy() for n, p in worker._team.bundle.policy.named_parameters()}
        )
        parts = ray.get(ranks.begin("part"))
        held = ray.get(here)
        assert all(np.array_equal(held[name], value) for name, value in parts[0].items())


def test_a_cluster_without_room(warmed, tmp_path, machine):
    from lastr1.cluster.fleet import _check_room

    with pytest.raises(UserError, match=r"ask for 9 CPUs, the cluster has 4: lower --cluster.learner-cpus"):
        _check_room(ClusterConfig(collectors=8), 9.0)
    with pytest.raises(UserError, match="ask for 2 GPUs, the cluster has 0"):
        _check_room(ClusterConfig(collectors=2, collector_gpus=1.0), 3.0)
