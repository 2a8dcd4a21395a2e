"""Weights in one file or several: what is written, what is read, what is refused."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from lastr1.model import weights
from lastr1.model.hub import read_tokenizer
from lastr1.model.network import read_backbone
from lastr1.model.shards import INDEX, SINGLE, read_tensors, stored_dtype, write_tensors
from lastr1.types import UserError

# 4, 6, 10 and 2 numbers: at 4 bytes 16, 24, 40 and 8 bytes
TENSORS = {
    name: torch.arange(float(size))
    for name, size in {"a.weight": 4, "b.weight": 6, "c.weight": 10, "d.weight": 2}.items()
}


@pytest.fixture
def written(tmp_path):
    """Three files of at most 40 bytes of numbers: (a, b), (c), (d)."""
    write_tensors(tmp_path, TENSORS, torch.float32, shard=40)
    return tmp_path


def refusal(directory):
    with pytest.raises(UserError) as caught:
        read_tensors(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_and_index(written):
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(path.name for path in written.iterdir()) == sorted([*names, INDEX])
    assert [sorted(load_file(written / name)) for name in names] == [
        ["a.weight", "b.weight"],
        ["c.weight"],
        ["d.weight"],
    ]
    index = json.loads((written / INDEX).read_text())
    assert index["metadata"] == {"total_size": 88}
    assert index["weight_map"] == dict(zip(TENSORS, [names[0], *names], strict=True))


def test_what_was_written_is_read(written):
    found = read_tensors(written)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


def test_a_tensor_larger_than_a_file_has_its_own(tmp_path):
    write_tensors(tmp_path, TENSORS, torch.float32, shard=1)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4
    assert read_tensors(tmp_path).keys() == TENSORS.keys()


def test_small_models_are_one_file(tmp_path):
    """88 bytes fit; in bf16, 44."""
    write_tensors(tmp_path, TENSORS, torch.float32, shard=88)
    assert [path.name for path in tmp_path.iterdir()] == [SINGLE]
    write_tensors(tmp_path, TENSORS, torch.bfloat16, shard=44)
    found = read_tensors(tmp_path)
    assert stored_dtype(found) == torch.bfloat16
    assert stored_dtype({**found, "e": torch.zeros(1)}) == torch.float32


def test_views_are_written_whole(tmp_path):
    """Parameters that share one memory (a team's) are tensors of their own on disk."""
    shared = torch.arange(6.0)
    write_tensors(tmp_path, {"x": shared[:2], "y": shared[2:].reshape(2, 2).T}, torch.float32)
    assert read_tensors(tmp_path)["y"].tolist() == [[2.0, 4.0], [3.0, 5.0]]


def test_a_missing_file(written):
    (written / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors is missing" in refusal(written)


@pytest.mark.parametrize("keep", [0, 5, -8])
def test_a_truncated_file(written, keep):
    path = written / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert refusal(written).startswith(f"{path} is damaged")


def test_a_tensor_that_the_index_does_not_know(written):
    name = "model-00003-of-00003.safetensors"
    save_file({"d.weight": torch.zeros(2), "e.weight": torch.zeros(2)}, written / name)
    assert f"{INDEX} and {name} disagree about tensor e.weight" in refusal(written)


def test_a_tensor_that_only_the_index_knows(written):
    name = "model-00001-of-00003.safetensors"
    save_file({"a.weight": torch.zeros(4)}, written / name)
    assert f"{INDEX} and {name} disagree about tensor b.weight" in refusal(written)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"weight_map": {}}', b'{"weight_map": 3}', b'{"weight_map": {"a": 1}}'],
)
def test_a_damaged_index(written, content):
    (written / INDEX).write_bytes(content)
    assert f"{written / INDEX} is damaged" in refusal(written)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/tmp/secret.safetensors", "sub/part.safetensors"])
def test_an_index_cannot_reach_outside(written, name):
    (written / INDEX).write_text(json.dumps({"weight_map": {"a.weight": name}}))
    assert "must name files of its own folder" in refusal(written)


class Trap:
    """Runs when unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "last.ckpt"])
def test_a_pickle_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    assert refusal(tmp_path) == (
        f"{tmp_path / name} is a pickle, which can run code: use a folder with model.safetensors"
    )


def test_a_pickle_under_another_name_is_not_opened(tmp_path):
    (tmp_path / SINGLE).write_bytes(pickle.dumps(Trap()))
    assert refusal(tmp_path).startswith(f"{tmp_path / SINGLE} is damaged")


def test_a_folder_without_weights(tmp_path):
    assert "model.safetensors is missing" in refusal(tmp_path)


def test_a_policy_in_several_files(tiny, tmp_path):
    bundle = tiny()
    weights.write(bundle, tmp_path, shard=100_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    ours, theirs = weights.tensors(bundle.policy), weights.tensors(weights.load(tmp_path).policy)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_model_card(tiny, tmp_path):
    weights.save(tiny(), tmp_path / "policy")
    card = (tmp_path / "policy" / "README.md").read_text()
    head = card.split("---\n")[1]
    assert "library_name: lastr1\npipeline_tag: robotics\n" in head
    assert "- cameras: camera0 (64 x 64); the policy sees 64 x 64 pixels" in card
    assert "- thought: 2, 4, 6, 8 latents" in card
    assert "- actions: 3 control steps of 4 numbers, 20 per second" in card
    assert "| x | controller | -0.9 | 0.7 | percentiles |" in card
    assert "| gripper | open fraction | 0 | 1 | threshold |" in card
    weights.save(tiny(stop_candidates=0), tmp_path / "policy")
    assert "- thought: none (actions only)" in (tmp_path / "policy" / "README.md").read_text()


def test_weights_that_are_to_be_read_are_not_drawn(tiny, tmp_path):
    """Drawing a 4B network takes longer than reading it."""
    weights.save(tiny(), tmp_path / "policy")
    found = read_tensors(tmp_path / "policy")
    state = torch.get_rng_state()
    read_backbone(tmp_path / "policy", read_tokenizer(tmp_path / "policy"), found, torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
