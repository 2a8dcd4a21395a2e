"""The warm-up: schedule and masks by hand, and that it learns what it is shown.

Axes: B samples, L latent slots, D width, N action tokens, C control steps, A action size.
"""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from lastr1.config import WarmupConfig
from lastr1.demos.dataset import Demonstration, DemonstrationSet
from lastr1.demos.teacher import Targets
from lastr1.model.policy import Thought
from lastr1.train.schedule import cosine_rate
from lastr1.train.warmup import Teaching, calibrate, learning_rate, rescale

CHUNK, STRIDE = 3, 2


def demonstration(steps, seed=0, instruction="put the red block on it"):
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-0.5, 0.5, (steps, 4)).astype(np.float32)
    actions[:, 3] = rng.integers(0, 2, steps)
    return Demonstration(
        task=0,
        instruction=instruction,
        frames={"camera0": rng.integers(0, 256, (steps + 1, 64, 64, 3), dtype=np.uint8)},
        states=np.zeros((steps + 1, 1), np.float32),
        actions=actions,
    )


def teaching(bundle, *demos, seed=0, **knobs):
    policy = bundle.policy.config
    data = DemonstrationSet(demos, chunk=CHUNK, latents=policy.latents, target_stride=STRIDE)
    rng = np.random.default_rng(1)
    count, width = len(data.frames["camera0"]), bundle.policy.backbone.width
    vectors = rng.standard_normal((count, width), dtype=np.float32)
    targets = Targets(vectors=vectors, channels=tuple(range(width)), constant_cosine=0.0)
    config = WarmupConfig(**{"image_augment": "none", "batch": 4, "iterations": 5, **knobs})
    return Teaching(bundle, data, targets, config, seed)


def test_schedule_by_hand():
    """Ramp of 4 to 1, then half a cosine over 8 steps down to 0.1: in its middle (1 + 0.1) / 2."""
    rates = [cosine_rate(step, 12, 1.0, end=0.1, ramp=4) for step in range(13)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[6] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert rates[8] == pytest.approx(0.55)
    assert rates[12] == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(rates[4:]))


def test_schedule_without_ramp():
    config = WarmupConfig(iterations=10, lr=2e-3, lr_end=0.5)
    assert learning_rate(config, 0) == pytest.approx(2e-3)
    assert learning_rate(config, 5) == pytest.approx(1.5e-3)
    assert cosine_rate(0, 1, 1.0, end=0.0, ramp=1) == 1.0


def test_labels_of_two_samples_by_hand(tiny):
    """A demonstration of 7 control steps, K = 4, G = 2, a target every 2 control steps, chunks of 3.

    Point 0: targets at 2, 4, 6 exist, those at 8.. do not (the last frame, 7, stands in); length 1 uses two
    slots.  Point 5: target at 7 exists alone; only actions 5 and 6 do.
    """
    lessons = teaching(tiny(), demonstration(7))
    batch = lessons.data.batch(np.array([0, 5]))
    labels = lessons.lesson_of(batch, torch.tensor([1, 4])).labels
    t, f = True, False
    assert labels.latent_mask.tolist() == [[t, t, f, f, f, f, f, f], [t, f, f, f, f, f, f, f]]
    frames = [[2, 4, 6, 7, 7, 7, 7, 7], [7] * 8]
    assert torch.equal(labels.latent, torch.from_numpy(lessons.targets.vectors[np.array(frames)]))
    assert labels.action_mask.tolist() == [[t] * 12, [t] * 8 + [f] * 4]
    actions = lessons.data.actions[[[0, 1, 2], [5, 6, 6]]]
    assert torch.equal(labels.tokens, torch.from_numpy(lessons.bundle.codec.encode(actions)).reshape(2, 12))
    longer = lessons.lesson_of(batch, torch.tensor([4, 4])).labels.latent_mask
    assert longer.tolist() == [[t, t, t, f, f, f, f, f], [t, f, f, f, f, f, f, f]]


def test_lengths_are_drawn_from_all_candidates(tiny):
    lessons = teaching(tiny(), demonstration(5), batch=32)
    drawn = torch.cat([lessons.lesson().labels.groups for _ in range(4)])
    assert sorted(set(drawn.tolist())) == [1, 2, 3, 4]
    flat = teaching(tiny(stop_candidates=0), demonstration(5), batch=32)
    assert set(flat.lesson().labels.groups.tolist()) == {0}


def test_same_seed_same_lessons(tiny):
    def drawn(seed):
        lessons = teaching(tiny(), demonstration(9), seed=seed)
        return torch.stack([lessons.lesson().labels.tokens for _ in range(3)])

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))


def test_two_passes_equal_the_policys_own(tiny):
    """Pass 1 is teacher-forced at the running RMS; pass 2 feeds what pass 1 predicted, with gradients."""
    bundle = tiny()
    lessons = teaching(bundle, demonstration(9))
    lessons.latent_rms = 2.5
    batch = lessons.data.batch(np.arange(4))
    lesson = lessons.lesson_of(batch, torch.tensor([1, 2, 3, 4]))
    policy, labels = bundle.policy, lesson.labels
    with torch.no_grad():
        seen = policy.backbone.look(lesson.prompt)
        scale = 2.5 / labels.latent.square().mean(-1, keepdim=True).sqrt()
        forced = policy.read(seen, Thought(latent=labels.latent * scale, groups=labels.groups))
        fed = policy.read(seen, Thought(latent=forced.mean, groups=labels.groups))
    loss = lessons.loss(lesson)
    assert loss.total.requires_grad
    mask = labels.latent_mask
    cosine = torch.cosine_similarity(forced.mean[mask], labels.latent[mask], dim=-1).mean()
    logp = torch.log_softmax(fed.action_logits, -1).gather(-1, labels.tokens[..., None]).squeeze(-1)
    assert loss.parts["cosine"].item() == pytest.approx(cosine.item(), abs=1e-5)
    assert loss.parts["action_loss"].item() == pytest.approx(
        -logp[labels.action_mask].mean().item(), rel=1e-5
    )
    rms = forced.mean[policy.used(labels.groups)].square().mean().sqrt().item()
    assert lessons.latent_rms == pytest.approx(0.99 * 2.5 + 0.01 * rms, rel=1e-5)


def test_gradient_reaches_the_latents_through_the_actions(tiny):
    """Without the latent and stop losses, the pass that predicts latents is still taught."""
    bundle = tiny()
    lessons = teaching(bundle, demonstration(9), cosine_weight=0.0, stop_weight=0.0)
    lesson = lessons.lesson()
    with_chain = _gradient(bundle, lessons.loss(lesson))
    lessons = teaching(bundle, demonstration(9), cosine_weight=0.0, stop_weight=0.0)
    read = bundle.policy.read_on

    def cut(heard, thought, *, act):
        return read(heard, replace(thought, latent=thought.latent.detach()), act=act)

    bundle.policy.read_on = cut
    without = _gradient(bundle, lessons.loss(lesson))
    assert not torch.allclose(with_chain, without, rtol=1e-3, atol=1e-7)


def _gradient(bundle, loss):
    bundle.policy.zero_grad()
    loss.total.backward()
    return torch.cat([p.grad.flatten() for p in bundle.policy.parameters() if p.grad is not None])


def test_frozen_vision_stays(tiny):
    bundle = tiny()
    lessons = teaching(bundle, demonstration(5), freeze_vision=True, lr=1e-2, iterations=1)
    before = {name: p.detach().clone() for name, p in bundle.policy.named_parameters()}
    list(lessons.steps())
    moved = {name for name, p in bundle.policy.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not [name for name in moved if "visual" in name]


def test_calibration_is_the_rms_of_what_is_thought(tiny):
    bundle = tiny()
    lessons = teaching(bundle, demonstration(3))
    with torch.no_grad():
        everything = lessons.lesson_of(lessons.data.batch(np.arange(3)), torch.tensor([1, 1, 1]))
        terms = bundle.policy.decide(everything.prompt).terms
    rows = [terms.latent[i][terms.latent_used[i]].square().mean().sqrt().item() for i in range(3)]
    rms = calibrate(bundle, lessons.data, seed=0, decisions=64)
    assert bundle.policy.latent_rms == rms
    assert min(rows) * 0.999 <= rms <= max(rows) * 1.001
    assert bundle.policy.latent.sigma == pytest.approx(bundle.policy.config.latent_noise * rms)


@pytest.mark.parametrize("passes", [2, pytest.param(9, marks=pytest.mark.slow)])
def test_one_batch_is_overfitted(tiny, passes):
    """Four samples, one length each, 60 steps: the whole loss falls from above 5 to under 0.02.

    With L + 1 passes that is so of the policy as it acts; two leave its later latents a step ahead of it.
    """
    bundle = tiny()
    knobs = {"iterations": 60, "lr": 5e-3, "lr_end": 0.05, "ramp": 5, "latent_passes": passes}
    lessons = teaching(bundle, demonstration(6), **knobs)
    lesson = lessons.lesson_of(lessons.data.batch(np.arange(4)), torch.arange(4) + 1)
    lessons.lesson = lambda: lesson
    figures = [figure for _, figure in lessons.steps()]
    assert figures[0]["loss"] > 5
    assert figures[-1]["loss"] < 0.02
    assert figures[-1]["cosine"] > 0.99
    assert figures[-1]["action_accuracy"] == 1
    decision = bundle.policy.decide(lesson.prompt)
    right = (decision.tokens == lesson.labels.tokens)[lesson.labels.action_mask].float().mean()
    assert right > 0.8
    if passes == 9:
        assert decision.thought.groups.tolist() == [1, 2, 3, 4]
        assert right == 1


@pytest.mark.parametrize("passes", [1, 2, 3, 5, 9])
@torch.no_grad()
def test_passes_become_the_policys_own_feedback(tiny, passes):
    """6.4: pass p feeds exactly its own thought in the first p - 1 latents; with L + 1 all of it."""
    bundle = tiny()
    lessons = teaching(bundle, demonstration(9), latent_passes=passes)
    lesson = lessons.lesson_of(lessons.data.batch(np.arange(4)), torch.full((4,), 4))
    policy, labels, fed = bundle.policy, lesson.labels, []
    read = policy.read_on
    policy.read_on = lambda heard, thought, act: fed.append(thought.latent) or read(heard, thought, act=act)
    loss = lessons.loss(lesson)
    assert len(fed) == passes
    thought = policy.decide(lesson.prompt).thought
    own = Thought(latent=thought.latent, groups=labels.groups)
    same = [torch.allclose(fed[-1][:, i], own.latent[:, i], atol=1e-4) for i in range(8)]
    assert same == [i < passes - 1 for i in range(8)]
    found = policy.read(policy.backbone.look(lesson.prompt), own)
    logp = torch.log_softmax(found.action_logits, -1).gather(-1, labels.tokens[..., None])[..., 0]
    exact = loss.parts["action_loss"].item() == pytest.approx(-logp[labels.action_mask].mean().item(), 1e-5)
    assert exact == (passes == 9)


def test_gradient_goes_no_further_back_than_one_pass(tiny):
    """Three passes without the latent loss: as two whose first is fed what teacher forcing predicts."""
    knobs = {"cosine_weight": 0.0, "latent_passes": 3}
    bundle = tiny()
    lessons = teaching(bundle, demonstration(9), **knobs)
    lesson = lessons.lesson()
    found = _gradient(bundle, lessons.loss(lesson))
    lessons = teaching(bundle, demonstration(9), **{**knobs, "latent_passes": 2})
    with torch.no_grad():
        slots = rescale(lesson.labels.latent, 1.0)
        seen = bundle.policy.backbone.look(lesson.prompt)
        forced = bundle.policy.read(seen, Thought(latent=slots, groups=lesson.labels.groups)).mean
    lessons.latent_rms = float(forced.square().mean().sqrt())
    lessons._forced = lambda read, lesson: (
        read(Thought(latent=forced, groups=lesson.labels.groups), False),
        forced.new_zeros(()),
    )
    expected = _gradient(bundle, lessons.loss(lesson))
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-3)


@pytest.mark.slow
def test_ten_samples_are_learnt_by_heart(tiny):
    """More than 99% of their action tokens, after thinking by itself from the prompt alone."""
    bundle = tiny()
    steps = 150
    lessons = teaching(bundle, demonstration(10), batch=10, iterations=steps, lr=3e-3, lr_end=0.05, ramp=10)
    everything = lessons.data.batch(np.arange(10))
    lessons.lesson = lambda: lessons.lesson_of(everything, torch.arange(10) % 4 + 1)
    figures = [figure for _, figure in lessons.steps()]
    assert len(figures) == steps
    assert figures[-1]["action_accuracy"] > 0.99
    assert figures[-1]["loss"] < 0.2 * figures[0]["loss"]
    lesson = lessons.lesson()
    tokens = bundle.policy.decide(lesson.prompt).tokens
    right = (tokens == lesson.labels.tokens)[lesson.labels.action_mask]
    assert right.float().mean() > 0.9
