"""What a device is called, and what a name that means nothing here is answered."""

from dataclasses import replace

import pytest
import torch

from lastr1.presets import RECIPES
from lastr1.train.device import device_named, device_of
from lastr1.types import UserError

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "count", "said"),
    [
        ("gpu", 1, "no device 'gpu': use auto, cpu, cuda or a numbered one as cuda:1"),
        ("cpu:1", 1, "no device 'cpu:1'"),
        ("cuda:", 1, "no device 'cuda:'"),
        (
            "cuda",
            0,
            "device cuda is not here, torch sees no GPU (lastr1 doctor says more): use --device auto",
        ),
        ("cuda:2", 2, "device cuda:2 is not here, torch sees cuda:0..1: use --device auto"),
    ],
)
def test_a_device_that_is_not_here(refused, toy, tmp_path, monkeypatch, name, count, said):
    """One line and exit code 2, before anything is written."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    for job in ("warmup", "train", "demo"):
        assert said in refused(job, "tabletop", *toy, "--device", name, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_auto_means(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_named("auto").type == "cuda"
    assert (device_named("cuda:1").index, device_named("cpu")) == (1, CPU)
    two = replace(RECIPES["tabletop"], device="auto", processes=2)
    with pytest.raises(UserError, match="processes 2 share their weights in memory, which cuda cannot"):
        device_of(two)
    assert device_of(replace(two, device="cpu")) == device_of(RECIPES["tabletop"]) == CPU
