"""Axes: B samples, L latent slots, D latent width, N action tokens, V bins, K stop candidates."""

import math
from dataclasses import fields, replace

import pytest
import torch

from lastr1.algo.imitation import (
    ImitationCounts,
    ImitationLabels,
    ImitationTerms,
    imitation_counts,
    imitation_loss,
)
from lastr1.config import WarmupConfig

t = torch.tensor
CONFIG = WarmupConfig()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(seed=0, size=6, latents=4, width=3, tokens=5, bins=7, candidates=2):
    """Labels and terms with something masked in both."""
    g = seeded(seed)
    labels = ImitationLabels(
        latent=torch.randn(size, latents, width, generator=g),
        latent_mask=torch.rand(size, latents, generator=g) < 0.6,
        tokens=torch.randint(0, bins, (size, tokens), generator=g),
        action_mask=torch.rand(size, tokens, generator=g) < 0.7,
        groups=torch.randint(1, candidates + 1, (size,), generator=g)
        if candidates
        else torch.zeros(size, dtype=torch.int64),
    )
    stop = torch.randn(size, candidates, generator=g)
    terms = ImitationTerms(
        latent=torch.randn(size, latents, width, generator=g),
        action_logits=torch.randn(size, tokens, bins, generator=g),
        stop_logits=stop,
        vocab_logsumexp_t1=stop + torch.rand(size, candidates, generator=g),
    )
    return labels, terms


def loss_of(labels, terms, config=CONFIG):
    return imitation_loss(config, labels, terms, imitation_counts(labels))


def test_by_hand():
    labels = ImitationLabels(
        latent=t([[[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]]]),
        latent_mask=t([[True, True, False]]),
        tokens=t([[0, 1, 1]]),
        action_mask=t([[True, True, False]]),
        groups=t([2]),
    )
    terms = ImitationTerms(
        latent=t([[[3.0, 0.0], [4.0, 3.0], [-1.0, -1.0]]]),
        action_logits=t([[[math.log(3), 0.0], [math.log(3), 0.0], [0.0, 0.0]]]),
        stop_logits=t([[0.0, math.log(3)]]),
        vocab_logsumexp_t1=t([[9.0, math.log(3) + 0.5]]),
    )
    result = loss_of(labels, terms)
    parts = {name: value.item() for name, value in result.parts.items()}
    expected = {
        # cosines 1 and 3/5 (the masked one would be -1)
        "cosine": 0.8,
        "cosine_loss": 0.2,
        # -ln 3/4 = 0.287682 and -ln 1/4 = 1.386294, mean 0.836988; the first is right, the second wrong
        "action_loss": 0.836988,
        "action_accuracy": 0.5,
        # -ln 3/4 among the candidates, ln(3) + 0.5 - ln(3) in the vocabulary
        "stop_candidate_loss": 0.287682,
        "stop_vocab_loss": 0.5,
    }
    assert parts == pytest.approx(expected, abs=1e-6)
    # 0.2 + 0.1 * 0.787682 + 0.836988 = 1.115756
    assert abs(result.total - 1.115756) < 1e-6


def test_every_knob_reaches_its_own_part():
    labels, terms = batch()
    nothing = {"cosine_weight": 0.0, "stop_weight": 0.0, "action_weight": 0.0}
    stop = nothing | {"stop_weight": 2.0, "stop_candidate_weight": 0.0, "stop_vocab_weight": 0.0}
    for name, knobs in {
        "cosine_loss": nothing | {"cosine_weight": 6.0},
        "action_loss": nothing | {"action_weight": 6.0},
        "stop_candidate_loss": stop | {"stop_candidate_weight": 3.0},
        "stop_vocab_loss": stop | {"stop_vocab_weight": 3.0},
    }.items():
        result = loss_of(labels, terms, WarmupConfig(**knobs))
        torch.testing.assert_close(result.total, 6 * result.parts[name])


def test_cosine_ignores_scale():
    labels, terms = batch()
    base = loss_of(labels, terms).parts["cosine_loss"]
    for a, b in ((100.0, 1.0), (1.0, 0.01)):
        scaled = loss_of(replace(labels, latent=b * labels.latent), replace(terms, latent=a * terms.latent))
        torch.testing.assert_close(scaled.parts["cosine_loss"], base)


def test_masked_entries_give_no_gradient_whatever_they_hold():
    labels, terms = batch()
    labels = replace(labels, latent=torch.where(labels.latent_mask[..., None], labels.latent, float("nan")))
    latent = terms.latent.clone().requires_grad_()
    logits = terms.action_logits.clone().requires_grad_()
    result = loss_of(labels, replace(terms, latent=latent, action_logits=logits))
    latent_grad, logits_grad = torch.autograd.grad(result.total, (latent, logits))
    assert (latent_grad[~labels.latent_mask] == 0).all()
    assert (latent_grad[labels.latent_mask].abs().sum(-1) > 0).all()
    assert (logits_grad[~labels.action_mask] == 0).all()
    assert (logits_grad[labels.action_mask].abs().sum(-1) > 0).all()


def test_stop_at_uniform_logits_is_log_k_plus_the_vocabulary_part():
    # l = 1.5 everywhere, logsumexp 2: ln 4 + 0.5
    labels, terms = batch(candidates=4)
    flat = torch.full((6, 4), 1.5)
    parts = loss_of(labels, replace(terms, stop_logits=flat, vocab_logsumexp_t1=flat + 0.5)).parts
    assert abs(parts["stop_candidate_loss"] - math.log(4)) < 1e-6
    assert abs(parts["stop_vocab_loss"] - 0.5) < 1e-6


def test_without_a_thought_only_the_action_loss_is_left():
    labels, terms = batch(latents=0, candidates=0)
    result = loss_of(labels, terms)
    for name in ("cosine", "cosine_loss", "stop_candidate_loss", "stop_vocab_loss"):
        assert result.parts[name] == 0
    assert result.total == result.parts["action_loss"] > 0


def test_a_batch_of_which_nothing_is_valid_gives_0():
    labels, terms = batch()
    none = replace(labels, latent_mask=labels.latent_mask & False, action_mask=labels.action_mask & False)
    parts = loss_of(none, terms).parts
    for name in ("cosine", "cosine_loss", "action_loss", "action_accuracy"):
        assert parts[name] == 0


def rows(x, index):
    return type(x)(**{f.name: vars(x)[f.name][index] for f in fields(x)})


def test_micro_batches_add_up():
    labels, terms = batch()
    counts = [imitation_counts(rows(labels, i)) for i in torch.arange(6).split(1)]
    names = [f.name for f in fields(ImitationCounts)]
    summed = ImitationCounts(**{k: torch.stack([vars(c)[k] for c in counts]).sum() for k in names})
    whole = loss_of(labels, terms)
    pieces = [
        imitation_loss(CONFIG, rows(labels, i), rows(terms, i), summed) for i in torch.arange(6).split(1)
    ]
    torch.testing.assert_close(sum(p.total for p in pieces), whole.total)
    for name, value in whole.parts.items():
        torch.testing.assert_close(sum(p.parts[name] for p in pieces), value)
    assert not any(part.requires_grad for part in whole.parts.values())
