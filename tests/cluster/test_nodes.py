"""Two machines as Ray sees them, one of which is lost."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'lastr1[cluster]'")

from ray.cluster_utils import Cluster

from lastr1.cli import main
from lastr1.cluster import ray
from lastr1.cluster.crew import Crew
from lastr1.cluster.job import train
from lastr1.config import ClusterConfig, Config
from lastr1.knobs import from_dict
from lastr1.train import jobs
from lastr1.train.metrics import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def machines():
    """A Ray of two nodes: one learner and one collector on the first, one collector on the second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 2, "object_store_memory": 150_000_000, "include_dashboard": False},
        )
        second = cluster.add_node(num_cpus=1, object_store_memory=150_000_000)
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster, second
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def warmed(tmp_path_factory, toy):
    """A toy policy, and a config of three iterations."""
    out = tmp_path_factory.mktemp("nodes")
    assert main(["warmup", "tabletop", *toy, "--out", str(out)]) == 0
    config = from_dict(Config, json.loads((out / "config.json").read_text()))
    return out / "last", replace(config, reinforce=replace(config.reinforce, iterations=3, episodes=6))


def test_a_killed_node_loses_no_episode_and_counts_none_twice(machines, warmed, tmp_path, monkeypatch):
    """The node dies after the second iteration was ordered: the other collector plays what it had begun."""
    cluster, second = machines
    checkpoint, config = warmed
    jobs.train(config, checkpoint, tmp_path / "alone")
    original, homes = Crew.wait, []

    def wait(crew, iteration):
        if iteration == 1 and not homes:
            where = lambda _: ray.get_runtime_context().get_node_id()  # noqa: E731
            homes.extend(ray.get([actor.__ray_call__.remote(where) for actor in crew._places]))
            cluster.remove_node(second, allow_graceful=False)
        return original(crew, iteration)

    monkeypatch.setattr(Crew, "wait", wait)
    ours = replace(config, cluster=ClusterConfig(collectors=2))
    found = train(ours, checkpoint, tmp_path / "run")
    assert len(set(homes)) == 2, "both collectors were on one node: nothing was tested"
    assert found.episodes == 18
    rows, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("run", "alone"))
    assert [row["collectors_lost"] for row in rows] == [0, 1, 1]
    for row, other in zip(rows, theirs, strict=True):
        for name in ("episodes", "decisions", "control_steps", "success", "mean_groups"):
            assert row[name] == pytest.approx(other[name], rel=1e-4), name
