"""Action codec and image pipeline against arrays recorded from the authors' code.  Axes: A action size."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lastr1.model.codec import Codec, decode, encode
from lastr1.model.images import crop_resize, patchify

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = Path(os.environ.get("LASTR1_REFERENCE", ROOT.parent / "shared" / "reference"))
if not (REFERENCE / "action_tokenizer").is_dir():
    pytest.skip(f"no reference data in {REFERENCE}: set LASTR1_REFERENCE", allow_module_level=True)


def arrays(name):
    with np.load(REFERENCE / name) as stored:
        return {key: stored[key] for key in stored}


@pytest.fixture(scope="module")
def table():
    return arrays("action_tokenizer/table.npz")


@pytest.fixture(scope="module")
def pipeline():
    return arrays("image/pipeline.npz")


def test_every_token(table):
    assert np.abs(decode(table["k"]) - table["decoded"]).max() < 1e-12


@pytest.mark.parametrize("kind", ["random", "grid", "edge", "special", "center"])
def test_encoding(table, kind):
    tokens = encode(table[f"{kind}_action"])
    assert tokens.tolist() == table[f"{kind}_k"].tolist()
    assert np.abs(decode(tokens) - table[f"{kind}_decoded"]).max() < 1e-12


def test_robot_units(table):
    """Un-normalisation and gripper threshold; ours is rounded to float32 at the end."""
    codec = Codec(q01=tuple(table["q01"]), q99=tuple(table["q99"]), mask=tuple(table["mask"].tolist()))
    same = np.repeat(table["k"][:, None], len(table["q01"]), axis=1)
    for bins, theirs in ((same, table["unnorm_same_k"]), (table["mixed_k"], table["unnorm_mixed"])):
        ours = codec.decode(bins)
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs).max() < 2e-7


def test_statistics_file(table):
    """The released schema holds what our codec needs, under its first key."""
    stored = json.loads((REFERENCE / "action_tokenizer" / "stats.json").read_text())
    action = next(iter(stored.values()))["action"]
    assert np.allclose(action["q01"], table["q01"], atol=0)
    assert np.allclose(action["q99"], table["q99"], atol=0)
    assert action["mask"] == table["mask"].tolist()


def test_image_pipeline(pipeline):
    """Rotation by the environment, then crop and resize to the pixel, then patches."""
    rotated = np.ascontiguousarray(pipeline["raw"][::-1, ::-1])
    assert (rotated == pipeline["rotated"]).all()
    cropped = crop_resize(rotated, 256, 0.9)
    assert (cropped == pipeline["cropped_resized"]).all()
    patches = patchify(torch.from_numpy(cropped.copy())[None], 16)[0]
    assert (1, *(int(len(patches) ** 0.5),) * 2) == tuple(pipeline["image_grid_thw"][0])
    assert np.abs(patches.numpy() - pipeline["pixel_values"]).max() < 1e-6
