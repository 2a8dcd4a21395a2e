"""Checkpoints of a run: which stay, what is noticed, what is found after a kill."""

import os
import shutil

import pytest
import torch

from lastr1.config import Config
from lastr1.model import manifest
from lastr1.train.checkpoint import Store, load_step
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
    assert load_step(store.newest()) == 1
    assert "model.safetensors is damaged: put aside as damaged_step_000002" in capsys.readouterr().err
    assert os.readlink(store.directory / "last") == "step_000001"
    (store.directory / "step_000001" / "run.json").unlink()
    with pytest.raises(UserError, match=r"step_000001/run.json is damaged, and no other"):
        store.newest()


def test_a_damaged_older_one_does_not_end_the_run(run):
    for step, score in ((1, 0.9), (2, 0.5)):
        store = run(step, score)
    (store.directory / "step_000001" / "manifest.json").write_text("{")
    run(3, 0.4)
    assert os.readlink(store.directory / "best") == "step_000002"


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
    assert load_step(store.newest()) == 2
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
