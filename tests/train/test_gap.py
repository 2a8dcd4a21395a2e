"""Teacher-forced against self-fed: by hand on the policy's own passes, and without a trace.

Axes: B decisions, L latent slots, N action tokens.
"""

import numpy as np
import pytest
import torch

from lastr1.config import WarmupConfig
from lastr1.demos.dataset import Demonstration, DemonstrationSet
from lastr1.demos.teacher import Targets
from lastr1.model.policy import Thought
from lastr1.train.gap import Gap, measure_gap
from lastr1.train.warmup import Teaching, rescale


@pytest.fixture
def teaching(tiny):
    def make(vectors=None, **knobs):
        rng = np.random.default_rng(0)
        demo = Demonstration(
            task=0,
            instruction="put the red block on it",
            frames={"camera0": rng.integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)},
            states=np.zeros((12, 1), np.float32),
            actions=rng.uniform(-0.5, 0.5, (11, 4)).astype(np.float32),
        )
        bundle = tiny(**knobs)
        data = DemonstrationSet([demo], chunk=3, latents=bundle.policy.config.latents, target_stride=2)
        width = bundle.policy.backbone.width
        rows = rng.standard_normal((12, width), dtype=np.float32) if vectors is None else vectors
        targets = Targets(vectors=rows, channels=tuple(range(width)), constant_cosine=0.25)
        return Teaching(bundle, data, targets, WarmupConfig(batch=4), seed=3)

    return make


@torch.no_grad()
def test_the_gap_by_hand(teaching):
    """The same frames, one by one, through the policy's own functions."""
    lessons = teaching()
    lessons.latent_rms = 1.7
    policy, prompts = lessons.bundle.policy, lessons.bundle.prompts
    batch = lessons.data.draw(7, np.random.default_rng([3, 7]))
    right, cosine, tokens, latents = np.zeros(2), np.zeros(2), 0, 0
    for i in range(7):
        prompt = prompts.batch([batch.instructions[i]], batch.images["camera0"][i : i + 1])
        decision = policy.decide(prompt)
        count = 2 * int(decision.thought.groups)
        target = torch.from_numpy(lessons.targets.vectors[batch.targets[i]])[None]
        forced = policy.read(
            policy.backbone.look(prompt),
            Thought(latent=rescale(target, 1.7), groups=decision.thought.groups),
        )
        truth = torch.from_numpy(lessons.bundle.codec.encode(batch.actions[i : i + 1])).reshape(-1)
        valid = torch.from_numpy(batch.action_valid[i].repeat(4))
        for k, said in enumerate((forced.action_logits[0].argmax(-1), decision.tokens[0])):
            right[k] += (said == truth)[valid].sum()
        seen = torch.from_numpy(batch.target_valid[i]) & (torch.arange(8) < count)
        for k, thought in enumerate((forced.mean[0], decision.thought.latent[0])):
            cosine[k] += torch.cosine_similarity(thought, target[0], dim=-1)[seen].sum()
        tokens, latents = tokens + int(valid.sum()), latents + int(seen.sum())
    found = measure_gap(lessons, 7)
    assert found.decisions == 7
    assert [found.forced_action_accuracy, found.fed_action_accuracy] == pytest.approx(right / tokens)
    assert [found.forced_cosine, found.fed_cosine] == pytest.approx(cosine / latents, abs=1e-5)
    assert found.action_accuracy_gap == pytest.approx((right[0] - right[1]) / tokens)
    assert found.constant_cosine == 0.25


def test_a_policy_without_a_thought_has_no_gap(teaching):
    found = measure_gap(teaching(stop_candidates=0), 5)
    assert found.forced_action_accuracy == found.fed_action_accuracy
    assert (found.action_accuracy_gap, found.forced_cosine, found.fed_cosine) == (0, 0, 0)


def test_measuring_leaves_no_trace(teaching):
    """Neither in the lessons to come, nor in the state of the policy or of anybody's dice."""
    with_report, without = teaching(), teaching()
    with_report.bundle.policy.train()
    dice = torch.get_rng_state()
    measure_gap(with_report, 3)
    assert torch.equal(torch.get_rng_state(), dice)
    assert with_report.bundle.policy.training
    assert with_report.latent_rms == without.latent_rms
    ours, theirs = with_report.lesson(), without.lesson()
    assert torch.equal(ours.prompt.patches, theirs.prompt.patches)
    assert torch.equal(ours.labels.tokens, theirs.labels.tokens)
    assert measure_gap(with_report, 3) == measure_gap(without, 3)


def test_the_line():
    gap = Gap(
        decisions=256, forced_action_accuracy=0.5, fed_action_accuracy=0.25, action_accuracy_gap=0.25,
        forced_cosine=0.75, fed_cosine=0.5, constant_cosine=0.125,
    )  # fmt: skip
    assert str(gap) == (
        "on 256 demonstrated frames 25.0% of the action bins are right after its own thoughts, 50.0% after "
        "the targets; cosine with the targets 0.50 and 0.75, of a constant 0.12"
    )
