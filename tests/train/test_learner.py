"""One update: exact ratios, and independence of everything that is not mathematics (DESIGN.md 5: 1, 4 - 6).

Axes: B decisions, L latent slots, D width.
"""

from dataclasses import replace

import pytest
import torch

import lastr1.model.policy as policy_module
from lastr1.config import LapoConfig, OptimizerConfig
from lastr1.rollout.batch import Decisions, Minibatch, tree_map
from lastr1.train.learner import Learner

LAPO = LapoConfig(action_weight=0.7, stop_weight=0.3, latent_weight=0.5)


@pytest.fixture
def learner(tiny):
    """`learner(**optimizer_knobs)`: always from the same weights; a clip that never acts."""

    def make(policy=(), lapo=LAPO, **knobs):
        return Learner(
            tiny(latent_noise=0.3, **dict(policy)), lapo, OptimizerConfig(**{"grad_clip": 1e6, **knobs})
        )

    return make


@pytest.fixture
def decisions(tiny, played):
    return lambda count=8, **policy: Decisions.stack(played(tiny(latent_noise=0.3, **policy), count))


def minibatch(decisions, old, generator, *, even=False):
    """Random advantages and targets; weights of unequal episodes."""
    count = len(decisions)
    weight = torch.ones(count) if even else torch.rand(count, generator=generator) + 0.1
    return Minibatch(
        decisions=decisions,
        old=old,
        advantage=torch.randn(count, generator=generator),
        target=5 * torch.rand(count, generator=generator),
        weight=weight / weight.sum(),
    )


def drifted(old):
    """Old terms some updates ago: no ratio is 1, some are clipped."""
    shift = torch.linspace(-0.4, 0.4, len(old.value))
    return replace(
        old,
        token_logp=old.token_logp + shift[:, None] / old.token_logp.shape[1],
        stop_logp=old.stop_logp - shift,
        latent=old.latent + 0.05 * shift[:, None, None],
        value=old.value + shift,
    )


def gradients(learner, batch, **how):
    """Gradients of one update (they stay on the parameters), and its figures."""
    figures = learner.update(batch, **how)
    return {n: p.grad.clone() for n, p in learner.policy.named_parameters() if p.grad is not None}, figures


def same_gradients(a, b, relative=2e-4):
    assert a.keys() == b.keys()
    scale = max(float(g.abs().max()) for g in a.values())
    assert scale > 1e-3
    for name, grad in a.items():
        distance = float((b[name] - grad).norm())
        assert distance <= relative * float(grad.norm()) + 1e-6 * scale, name


def same_figures(a, b, names=None):
    for name in names or a:
        assert b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize("policy", [{}, {"latent_policy": "deterministic"}, {"stop_likelihood": "released"}])
def test_ratios_are_exactly_one_after_rescoring(learner, decisions, generator, policy):
    stored = decisions(**policy)
    one = learner(policy)
    figures = one.update(minibatch(stored, one.rescore(stored), generator()))
    for name in ("action", "stop", "latent"):
        assert figures[f"{name}_ratio_max"] == 1.0, name
        assert figures[f"{name}_clipped"] == 0.0
        assert figures[f"{name}_approx_kl"] == 0.0
    assert (figures["latent_kl"], figures["latent_rho"]) == (0.0, 0.0)
    # the second update sees a policy that has moved
    moved = one.update(minibatch(stored, stored.terms, generator()))
    assert moved["action_ratio_max"] > 1.0
    assert moved["latent_kl"] > 0.0


def test_recorded_terms_are_close_to_rescored_ones(learner, decisions):
    """The cache's kernel against one pass: 1e-4, not exact (ALGORITHM.md 11: 18)."""
    stored = decisions()
    again = learner(micro_batch=3).rescore(stored)
    for name in ("action_logp", "stop_logp", "latent", "value"):
        torch.testing.assert_close(getattr(again, name), getattr(stored.terms, name), atol=1e-4, rtol=0)
    assert torch.equal(again.latent_used, stored.terms.latent_used)


def test_old_terms_are_constants(learner, decisions):
    assert not any(x.requires_grad for x in vars(learner().rescore(decisions(4))).values())


@pytest.mark.parametrize("autocast", [False, True])
def test_bf16_needs_fp32_log_probabilities(learner, decisions, generator, monkeypatch, autocast):
    """bf16 compute keeps ratios at exactly 1; a bf16 log-softmax on one side alone does not (5.7)."""
    stored = decisions()
    one = learner(autocast=autocast)
    old = one.rescore(stored)
    figures = one.update(minibatch(stored, old, generator()))
    assert (figures["action_ratio_max"], figures["stop_ratio_max"]) == (1.0, 1.0)
    assert old.action_logp.dtype == old.value.dtype == old.latent.dtype == torch.float32

    def rounded(logits, tokens, temperature):
        logp = torch.log_softmax((logits / temperature).bfloat16(), dim=-1)
        return logp.gather(-1, tokens[..., None])[..., 0].float()

    two = learner(autocast=autocast)
    exact = two.rescore(stored)
    monkeypatch.setattr(policy_module, "token_logp", rounded)
    assert two.update(minibatch(stored, exact, generator()))["action_ratio_max"] > 1.02


def test_micro_batches_add_up(learner, decisions, generator):
    """One batch of 8 = 8 of 1 = 3 + 3 + 2; the padding of prompts differs between them."""
    stored = decisions()
    assert len({len(text.split()) for text in stored.instructions}) > 3
    batch = minibatch(stored, drifted(stored.terms), generator())
    whole, figures = gradients(learner(), batch)
    for size in (1, 3):
        parts, others = gradients(learner(micro_batch=size), batch)
        same_gradients(whole, parts)
        same_figures(figures, others)
    assert figures["action_clipped"] > 0


def test_micro_batches_lead_to_the_same_parameters(learner, decisions, generator):
    stored = decisions()
    batch = minibatch(stored, drifted(stored.terms), generator())
    whole, parts = learner(lr=1e-3), learner(lr=1e-3, micro_batch=1)
    before = [p.detach().clone() for p in whole.policy.parameters()]
    for one in (whole, parts):
        one.update(batch)
    # Adam's first step is lr * g / (|g| + 1e-8): only where g is rounding noise may the two differ
    apart, moved, total = 0, 0, 0
    for old, a, b in zip(before, whole.policy.parameters(), parts.policy.parameters(), strict=True):
        apart += int(((a - b).abs() > 1e-5).sum())
        moved += int((a != old).sum())
        total += a.numel()
    assert moved > 0.5 * total
    assert apart < 0.002 * moved


def test_order_does_not_matter(learner, decisions, generator):
    stored = decisions()
    batch = minibatch(stored, drifted(stored.terms), generator())
    plain, figures = gradients(learner(micro_batch=3), batch)
    mixed, others = gradients(learner(micro_batch=3), batch.rows(torch.tensor([5, 0, 7, 2, 6, 1, 4, 3])))
    same_gradients(plain, mixed)
    same_figures(figures, others)


def test_padding_decisions_have_no_weight(learner, decisions, generator):
    """Decisions of weight 0 (were any forwarded) change neither loss nor gradient."""
    stored = decisions(10)
    batch = minibatch(stored, drifted(stored.terms), generator())
    few = batch.rows(torch.arange(7))
    dead = replace(batch, weight=torch.where(torch.arange(10) < 7, batch.weight, 0.0))
    plain, figures = gradients(learner(), few)
    with_dead, others = gradients(learner(), dead)
    same_gradients(plain, with_dead)
    same_figures(figures, others)


def test_a_heavier_decision_pulls_harder(learner, decisions, generator):
    """Weights are used at all: doubling all of them doubles the gradient."""
    stored = decisions(4)
    batch = minibatch(stored, drifted(stored.terms), generator())
    once, _ = gradients(learner(), batch)
    twice, _ = gradients(learner(), replace(batch, weight=2 * batch.weight))
    same_gradients({n: 2 * g for n, g in once.items()}, twice)


def test_value_only_ignores_what_was_decided(learner, decisions, generator):
    """The gradient is the value loss's alone; advantages and old log-probabilities do not enter."""
    stored = decisions()
    batch = minibatch(stored, drifted(stored.terms), generator())
    critic = LapoConfig(action_weight=0.0, stop_weight=0.0, latent_weight=0.0)
    expected, _ = gradients(learner(lapo=critic), batch)
    found, figures = gradients(learner(), batch, value_only=True)
    same_gradients(expected, found, 1e-6)
    assert figures["total_loss"] == pytest.approx(figures["value_loss"], rel=1e-6)
    other, _ = gradients(learner(), replace(batch, advantage=-7 * batch.advantage), value_only=True)
    same_gradients(expected, other, 1e-6)
    full, _ = gradients(learner(), batch)
    name = "backbone.net.model.language_model.norm.weight"
    assert (full[name] - found[name]).norm() > 0.1 * found[name].norm()


def test_norm_gains_of_one_move(learner, decisions, generator):
    """fp32 master weights: a step of 3e-5 from 1.0 is no rounding error, as it is in bf16 (5.7)."""
    stored = decisions(4)
    one = learner(lr=3e-5, autocast=True)
    gain = one.policy.backbone.net.model.language_model.layers[0].input_layernorm.weight
    with torch.no_grad():
        gain.fill_(1.0)
    one.update(minibatch(stored, one.rescore(stored), generator()))
    step = (gain.detach() - 1.0).abs()
    assert gain.dtype == torch.float32
    assert (step > 1e-5).float().mean() > 0.95
    assert step.max() < 4e-5
    assert (gain.detach().bfloat16() == 1.0).all()


def test_two_learning_rates(learner, decisions, generator):
    """Adam's first step is the rate itself: backbone and value head each have their own."""
    stored = decisions(4)
    one = learner(lr=1e-4, value_lr=2e-3)
    before = {n: p.detach().clone() for n, p in one.policy.named_parameters()}
    one.update(minibatch(stored, one.rescore(stored), generator()))
    largest = {n: float((p.detach() - before[n]).abs().max()) for n, p in one.policy.named_parameters()}
    head = [step for name, step in largest.items() if name.startswith("value_head")]
    rest = [step for name, step in largest.items() if not name.startswith("value_head")]
    assert max(head) == pytest.approx(2e-3, rel=0.01)
    assert max(rest) == pytest.approx(1e-4, rel=0.01)
    assert len(rest) + len(head) == len(before)


def test_one_clip_over_everything(learner, decisions, generator):
    stored = decisions(4)
    batch = minibatch(stored, drifted(stored.terms), generator())
    free, figures = gradients(learner(), batch)
    norm = float(torch.stack([g.norm() for g in free.values()]).norm())
    assert figures["grad_norm"] == pytest.approx(norm, rel=1e-4)
    held, clipped = gradients(learner(grad_clip=norm / 4), batch)
    assert clipped["grad_norm"] == pytest.approx(norm, rel=1e-4)
    same_gradients({n: g / 4 for n, g in free.items()}, held)


def test_a_broken_gradient_stops_the_run(learner, decisions, generator):
    stored = decisions(4)
    one = learner()
    before = tree_map(lambda *x: x[0].clone(), one.policy.value_head[0].weight.detach())
    batch = minibatch(stored, stored.terms, generator())
    batch.target[2] = float("nan")
    with pytest.raises(FloatingPointError, match="gradient norm is nan"):
        one.update(batch)
    assert torch.equal(one.policy.value_head[0].weight, before)


def test_updates_improve_what_they_optimise(learner, decisions, generator):
    """Twenty steps on one batch: values approach their targets, favoured actions become likelier."""
    stored = decisions()
    one = learner(lr=3e-4, value_lr=3e-3)
    old = one.rescore(stored)
    batch = minibatch(stored, old, generator(), even=True)
    for _ in range(20):
        one.update(batch)
    new = one.rescore(stored)
    assert (new.value - batch.target).square().mean() < 0.5 * (old.value - batch.target).square().mean()
    assert ((new.action_logp - old.action_logp) * batch.advantage).mean() > 0.01


def test_without_a_thought(learner, decisions, generator):
    """K = 0: no stop and no latent term; the rest learns as usual."""
    stored = decisions(4, stop_candidates=0)
    one = learner({"stop_candidates": 0})
    figures = one.update(minibatch(stored, one.rescore(stored), generator()))
    for name in ("stop_loss", "latent_loss", "latent_kl", "stop_entropy"):
        assert figures[name] == 0.0, name
    assert figures["action_ratio_max"] == 1.0
    assert figures["grad_norm"] > 0.0


def test_rates_rise_and_fall_and_go_on_after_a_resume(learner, decisions, generator):
    """Ramp 2 of 4 steps, down to half: shares 1/2, 1, 1, (1 + 1/2) / 2, 1/2; last three resumed."""
    knobs = {"ramp": 2, "lr_end": 0.5}
    one, two = learner(**knobs), learner(**knobs)
    one.steps = two.steps = 4
    batch = minibatch(decisions(), one.rescore(decisions()), generator())
    found = []
    for current, steps in ((one, 2), (two, 3)):
        for _ in range(steps):
            current.update(batch)
            found.append([group["lr"] for group in current.optimizer.param_groups])
        two.optimizer.load_state_dict(one.optimizer.state_dict())
    shares = [0.5, 1.0, 1.0, 0.75, 0.5]
    assert found == [pytest.approx([s * one.config.lr, s * one.config.value_lr]) for s in shares]
