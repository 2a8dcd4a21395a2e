"""What a user without Ray sees."""

import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn


def test_a_cluster_needs_ray(refused, toy, tmp_path, monkeypatch):
    for name in [m for m in sys.modules if m.startswith("lastr1.cluster")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    line = refused("train", "tabletop", *toy, "--out", tmp_path / "run", "--cluster.collectors", 2)
    assert "pip install 'lastr1[cluster]'" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rows", [(3, 2), (5, 0)])
def test_parts_of_ranks_become_whole(rows):
    """FSDP2 cuts along the first axis, and may leave the last ranks nothing."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'lastr1[cluster]'")
    from lastr1.cluster.weights import install, part_of

    source, target = nn.Linear(2, 5), nn.Linear(2, 5)
    source.bias.requires_grad_(False)
    kept = target.bias.detach().clone()
    whole = part_of(source)
    assert list(whole) == ["weight"]
    cuts = np.cumsum((0, *rows))
    install(target, [{"weight": whole["weight"][a:b]} for a, b in pairwise(cuts)])
    assert torch.equal(target.weight, source.weight)
    assert torch.equal(target.bias, kept)


def test_a_process_ended_for_its_machines_memory_is_a_lost_one(monkeypatch):
    """Ray raises an error of its own kind then, not that of a dead process."""
    ray_exceptions = pytest.importorskip("ray.exceptions", reason="Ray is not installed")
    from lastr1.cluster import crew, fleet
    from lastr1.types import UserError

    def killed(*_):
        raise ray_exceptions.OutOfMemoryError("1 worker(s) were killed\nMemory usage ...")

    monkeypatch.setattr(crew.ray, "get", killed)
    with pytest.raises(fleet.RankLost, match="OutOfMemoryError"):
        fleet.Ranks([]).all("update")
    with pytest.raises(UserError, match=r"did not start \(1 worker\(s\) were killed\): lower --cluster.coll"):
        crew.Crew(lambda _: (None, None), 1, 20)
