"""Losses, advantages and their gradients against arrays recorded from the authors' code.

Axes: E episodes, T decisions per episode, L latent slots, D latent width.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lastr1.algo.gae import gae
from lastr1.algo.lapo import PolicyTerms, decision_weights, lapo_loss
from lastr1.algo.logprob import DeterministicLatent
from lastr1.algo.masked import whiten
from lastr1.config import LapoConfig

ROOT = Path(__file__).resolve().parents[2]
LOSSES = Path(os.environ.get("LASTR1_REFERENCE", ROOT.parent / "shared" / "reference")) / "losses"
if not LOSSES.is_dir():
    pytest.skip(f"no reference arrays in {LOSSES}: set LASTR1_REFERENCE", allow_module_level=True)
CASES = json.loads((LOSSES / "index.json").read_text())
PRECISIONS = [(torch.float32, "out_", 1e-5), (torch.float64, "out64_", 1e-12)]


def files(kind):
    return [case["file"] for case in CASES if case["kind"] == kind]


def load(name, dtype):
    """Every array of a case; floats in `dtype`."""
    with np.load(LOSSES / name) as case:
        arrays = {key: torch.from_numpy(case[key].copy()) for key in case}
    return {
        k: v.to(dtype) if v.is_floating_point() and not k.startswith("out") else v for k, v in arrays.items()
    }


def test_the_index_lists_every_case():
    assert {case["file"] for case in CASES} == {path.name for path in LOSSES.glob("*.npz")}
    assert len(files("lapo")) >= 6
    assert len(files("gae")) >= 4


def terms(case, which, width):
    return PolicyTerms(
        token_logp=case[f"{which}_log_prob"].flatten()[:, None],
        stop_logp=case[f"{which}_end_log_prob"].flatten(),
        latent=case[f"{which}_latents"].reshape(-1, case["latent_mask"].shape[-1], width),
        latent_used=case["latent_mask"].flatten(0, 1),
        value=case[f"{which}_values"].flatten(),
    )


def replay(case):
    """The loss of a case, its float32 bounds and weights as the release has them."""
    clip_low = float(np.round(case["clip_low"].item(), 6))
    clip_high = float(np.round(case["clip_high"].item(), 6))
    # the release's value bound is the lower ratio bound
    config = LapoConfig(
        action_weight=56 / 57,
        stop_weight=1 / 57,
        value_clip=clip_low,
        clip_low=clip_low,
        clip_high=clip_high,
    )
    # a mean over the valid decisions of all trajectories: here the release was run on them at once
    mask = case["mask"]
    weight = decision_weights(mask, "decision")
    if case["returns"].dtype == torch.float64:
        weight = mask.double() / mask.sum().clamp(min=1)
    width = case["old_latents"].shape[-1]
    old, new = terms(case, "old", width), terms(case, "new", width)
    return lapo_loss(
        config,
        DeterministicLatent(10.0),
        old.latent,
        old,
        new,
        case["advantages"].flatten(),
        case["returns"].flatten(),
        weight.flatten(),
    )


PARTS = {
    "action_loss": "action_loss",
    "action_clipfrac": "action_clipped",
    "latent_loss": "latent_loss",
    "latent_clipfrac": "latent_clipped",
    "latent_kl": "latent_kl",
    "end_loss": "stop_loss",
    "value_loss": "value_loss",
    "value_clipfrac": "value_clipped",
}


@pytest.mark.parametrize(("dtype", "prefix", "atol"), PRECISIONS)
@pytest.mark.parametrize("name", files("lapo"))
def test_lapo(name, dtype, prefix, atol):
    case = load(name, dtype)
    result = replay(case)
    assert abs(result.total - case[f"{prefix}total"]) < atol
    for theirs, ours in PARTS.items():
        # shares were recorded in float32 in both runs
        tolerance = 1e-6 if theirs.endswith("clipfrac") else atol
        assert abs(result.parts[ours] - case[prefix + theirs]) < tolerance, theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", files("lapo"))
def test_lapo_gradients(name, dtype):
    case = load(name, dtype)
    leaves = ("new_log_prob", "new_latents", "new_end_log_prob", "new_values")
    for leaf in leaves:
        case[leaf].requires_grad_()
    grads = torch.autograd.grad(replay(case).total, [case[leaf] for leaf in leaves])
    for leaf, grad in zip(leaves, grads, strict=True):
        torch.testing.assert_close(grad, case[f"grad_{leaf}"], atol=1e-5, rtol=0, msg=leaf)
        # one case has nothing valid; another has new = old, where the latent term teaches nothing
        same = leaf == "new_latents" and (case["new_latents"] == case["old_latents"]).all()
        assert (grad != 0).any() == (case["mask"].any() and not same), leaf


@pytest.mark.parametrize(("dtype", "prefix", "atol"), PRECISIONS)
@pytest.mark.parametrize("name", files("gae"))
def test_gae_without_an_end_is_the_releases(name, dtype, prefix, atol):
    """The release's recursion knows no end: ours with every entry valid.  Its whitening does use the mask."""
    case = load(name, dtype)
    everything = torch.ones_like(case["mask"])
    result = gae(
        case["rewards"],
        case["values"],
        torch.zeros_like(case["values"][:, 0]),
        everything,
        discount=case["gamma"].item(),
        trace=case["lam"].item(),
    )
    torch.testing.assert_close(result.target, case[f"{prefix}returns"], atol=atol, rtol=0)
    mask = case["mask"]
    white, theirs = whiten(result.advantage, mask), case[f"{prefix}advantages"]
    # the release computes n / (n - 1) in float32 even in its float64 run
    torch.testing.assert_close(white[mask], theirs[mask], atol=max(atol, 1e-6), rtol=0)


@pytest.mark.parametrize("name", files("gae"))
def test_gae_cut_at_the_end_differs_from_the_releases_where_an_episode_ends_early(name):
    case = load(name, torch.float64)
    mask = case["mask"]
    ours = gae(
        case["rewards"],
        case["values"],
        torch.zeros_like(case["values"][:, 0]),
        mask,
        discount=case["gamma"].item(),
        trace=case["lam"].item(),
    )
    leak = (ours.target - case["out64_returns"])[:, 0].abs()
    lasted = mask.all(1)
    assert (leak[lasted] < 1e-9).all()
    # lambda = 0: nothing travels further than one decision; gamma = lambda = 1: the padding's values cancel
    if 0 < case["lam"] < 1:
        assert (leak[~lasted] > 1e-3).all()
