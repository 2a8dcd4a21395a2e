"""What an update forwards, and what it keeps until the backward pass.

Axes: B decisions, E episodes, T decisions per episode (padded at the end).
"""

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from lastr1.algo.imitation import ImitationLabels
from lastr1.config import AdapterConfig, Config, LapoConfig, OptimizerConfig, ReinforceConfig, WarmupConfig
from lastr1.envs.base import Start
from lastr1.model import weights
from lastr1.rollout.batch import Decisions, Episode, Minibatch, Step, make_rollout
from lastr1.train.learner import Learner
from lastr1.train.reinforce import improve
from lastr1.train.warmup import Lesson, Teaching


@pytest.fixture
def uneven(tiny, played):
    """Episodes of 1, 5 and 2 decisions; the last two are truncated, and thought about once more."""
    rows = iter(played(tiny(), 10))
    episodes = []
    for number, length in enumerate((1, 5, 2)):
        steps = tuple(Step(decided=next(rows), reward=float(number == 0), steps=3) for _ in range(length))
        episodes.append(
            Episode(
                start=Start(task=0),
                steps=steps,
                success=number == 0,
                after=next(rows) if number else None,
                seconds=1.0,
                version=0,
            )
        )
    return make_rollout(episodes)


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("again", [True, False])
def test_padding_is_never_forwarded(tiny, uneven, again, epochs):
    """8 valid decisions of a grid of 15, and 2 after the cap: nothing else is seen, at most 3 at a time."""
    bundle = tiny()
    calls, pictures = {"rescore": [], "update": []}, []
    policy = bundle.policy
    policy.backbone.register_forward_pre_hook(
        lambda _, args: calls["update" if torch.is_grad_enabled() else "rescore"].append(len(args[0]))
    )
    policy.backbone.net.model.visual.register_forward_pre_hook(
        lambda _, args: pictures.append(len(args[0]) // 16)  # 16 patches each
    )
    config = Config(
        name="test",
        reinforce=ReinforceConfig(episodes=3, minibatches=2, epochs=epochs, recompute_old=again),
    )
    figures = improve(Learner(bundle, LapoConfig(), OptimizerConfig(micro_batch=3)), uneven, config, 0)
    assert uneven.valid.numel() == 15
    assert sum(calls["update"]) == 8 * epochs
    assert sum(calls["rescore"]) == (8 + 2 if again else 0)
    assert sum(pictures) == sum(calls["update"]) + sum(calls["rescore"])
    assert max(calls["update"] + calls["rescore"]) == 3
    assert figures["grad_norm"] > 0


def kept(policy, work):
    """Bytes of activations that wait for the backward pass, and what `work` gives."""
    own, found = {p.data_ptr() for p in policy.parameters()}, {}

    def pack(x):
        if x.untyped_storage().data_ptr() not in own:
            found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        result = work()
    return sum(found.values()), result


def gradients(policy):
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def the_same(a, b):
    assert a.keys() == b.keys()
    scale = max(float(g.abs().max()) for g in a.values())
    assert scale > 1e-3
    for name, grad in a.items():
        torch.testing.assert_close(b[name], grad, atol=1e-6 * scale, rtol=0, msg=name)


@pytest.mark.parametrize("knobs", [{}, {"autocast": True}, {"freeze_vision": True}, {"rank": 2}])
def test_an_update_with_recomputed_activations(tiny, played, knobs, tmp_path):
    """The same figures and gradients from less memory, also under an adapter; then it thinks as before."""
    weights.save(tiny(), tmp_path / "base")
    stored = Decisions.stack(played(tiny(), 4))
    knobs, found = dict(knobs), []
    adapter = AdapterConfig(rank=knobs.pop("rank", 0))
    for checkpointing in (False, True):
        torch.manual_seed(0)
        bundle = weights.load(tmp_path / "base", adapter=adapter)
        learner = Learner(bundle, LapoConfig(), OptimizerConfig(checkpointing=checkpointing, **knobs))
        batch = Minibatch(
            decisions=stored,
            old=learner.rescore(stored),
            advantage=torch.linspace(-1, 1, 4),
            target=torch.linspace(0, 3, 4),
            weight=torch.full((4,), 0.25),
        )
        size, figures = kept(bundle.policy, lambda learner=learner, batch=batch: learner.gradient(batch))
        found.append((size, figures, gradients(bundle.policy)))
        again = learner.rescore(stored)
        assert torch.equal(again.action_logp, batch.old.action_logp)
        assert not bundle.policy.backbone.net.model.language_model.layers[0].gradient_checkpointing
    (plain, figures, grads), (less, others, same) = found
    assert less < 0.6 * plain
    assert figures["action_ratio_max"] == others["action_ratio_max"] == 1.0
    assert figures["total_loss"] == others["total_loss"]
    the_same(grads, same)


def test_a_lesson_with_recomputed_activations(tiny, observations):
    """Two passes that read the prompt each: the same loss and gradients as with the prompt in a cache."""
    rng, found = np.random.default_rng(0), []
    latent = torch.from_numpy(rng.standard_normal((4, 8, 64), dtype=np.float32))
    labels = ImitationLabels(
        latent=latent,
        latent_mask=torch.ones(4, 8, dtype=torch.bool),
        tokens=torch.arange(48).reshape(4, 12),
        action_mask=torch.ones(4, 12, dtype=torch.bool),
        groups=torch.tensor([1, 4, 2, 3]),
    )
    for checkpointing in (False, True):
        bundle = tiny()
        lesson = Lesson(prompt=bundle.prompts.build(observations(4)), labels=labels)
        teaching = Teaching(bundle, None, None, WarmupConfig(checkpointing=checkpointing), seed=0)
        bundle.policy.train()
        size, loss = kept(bundle.policy, lambda teaching=teaching, lesson=lesson: teaching.loss(lesson))
        loss.total.backward()
        found.append((size, loss.total.item(), gradients(bundle.policy)))
        assert all(m.training for m in bundle.policy.modules())
    (plain, one, grads), (less, two, same) = found
    assert less < 0.6 * plain
    assert two == pytest.approx(one, abs=1e-5)
    scale = max(float(g.abs().max()) for g in grads.values())
    assert grads.keys() == same.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(same[name], grad, atol=1e-5 * scale, rtol=1e-3, msg=name)


def test_nothing_is_recomputed_outside(tiny, observations, noise):
    """A decision needs its cache: flags of a pass that failed must not stay behind."""
    bundle = tiny()
    policy, prompt = bundle.policy.train(), bundle.prompts.build(observations(2))
    dice = noise(bundle, range(2))
    before = policy.decide(prompt, dice)
    with pytest.raises(FloatingPointError), policy.backbone.recomputing(True):
        raise FloatingPointError
    after = policy.decide(prompt, dice)
    assert torch.equal(before.thought.latent, after.thought.latent)
