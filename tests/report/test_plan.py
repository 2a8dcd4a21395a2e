"""What a plan reckons with, against the model itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lastr1.config import (
    AdapterConfig,
    BackboneConfig,
    Config,
    EnvConfig,
    OptimizerConfig,
    PlanConfig,
    PolicyConfig,
)
from lastr1.envs import make_env
from lastr1.model import weights
from lastr1.model.policy import Thought
from lastr1.model.prompt import tiny_tokenizer
from lastr1.report.plan import count, learner_memory, pace, plan
from lastr1.train.learner import Review
from lastr1.train.run import limits

ROWS = 3
CONFIG = Config(
    name="toy",
    env=EnvConfig(image=64),
    policy=PolicyConfig(image=64),
    backbone=BackboneConfig(
        hidden=128, layers=4, heads=4, kv_heads=2, head_dim=32, mlp=256, patch=8,
        vision_hidden=64, vision_layers=4, vision_heads=2, vision_mlp=128, deepstack=(),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def world():
    env = make_env(CONFIG.env)
    yield env.spec, env.tasks
    env.close()


@pytest.fixture(scope="module")
def bundle(world):
    spec, tasks = world
    torch.manual_seed(0)
    return weights.build(CONFIG.backbone, CONFIG.policy, tiny_tokenizer(tasks), spec, limits(spec))


def kept(bundle, instruction, autocast):
    """Bytes that the backward pass of `ROWS` decisions needs, without weights and copies of them."""
    policy = bundle.policy
    pixels = np.zeros((ROWS, 64, 64, 3), np.uint8)
    prompt = bundle.prompts.batch([instruction] * ROWS, pixels, policy.device)
    thought = Thought(latent=torch.randn(ROWS, policy.config.latents, 128), groups=torch.full((ROWS,), 4))
    tokens = torch.zeros(ROWS, policy.action_tokens, dtype=torch.long)
    ours = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    shapes = {tuple(p.shape) for p in policy.parameters() if p.dim() > 1}
    shapes |= {shape[::-1] for shape in shapes}
    alive, found = [], {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        alive.append(tensor)  # an address must not be used twice
        if storage.data_ptr() not in ours and tuple(tensor.shape) not in shapes:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        Review(policy)(prompt, thought, tokens)
    return sum(found.values())


@pytest.mark.parametrize("autocast", [False, True])
def test_bytes_that_a_backward_pass_needs(world, bundle, autocast):
    found = kept(bundle, world[1][0], autocast)
    assert ROWS * count(CONFIG, world[0]).kept[autocast] == pytest.approx(found, rel=0.2)


def test_parameters(world, bundle):
    backbone = sum(p.numel() for p in bundle.policy.backbone.parameters())
    value = sum(p.numel() for p in bundle.policy.value_head.parameters())
    counted = count(CONFIG, world[0])
    # the rows of the real tokenizer come on top
    assert counted.weights == pytest.approx(backbone, rel=0.2)
    assert counted.trained - counted.weights == pytest.approx(value, rel=0.5)
    layers = bundle.policy.backbone.net.model.language_model.layers
    assert counted.language == sum(p.numel() for p in layers.parameters())


def test_ranks_divide_and_an_adapter_spares(world):
    """Worked by hand: 16 bytes per trained parameter, cut among ranks; what is in no layer is gathered."""
    counted = count(CONFIG, world[0])
    one, four = (learner_memory(CONFIG, counted, ranks) for ranks in (1, 4))
    assert one.weights == 4 * counted.weights
    assert one.optimizer == 8 * counted.trained == 4 * four.optimizer
    assert four.weights == counted.weights + 4 * counted.undivided
    assert one.activations == four.activations == 64 * counted.kept[0]
    lora = replace(CONFIG, adapter=AdapterConfig(rank=4))
    assert learner_memory(lora, count(lora, world[0]), 1).optimizer < 0.25 * one.optimizer
    half = replace(CONFIG, optimizer=OptimizerConfig(checkpointing=True))
    assert learner_memory(half, counted, 1).activations < 0.5 * one.activations
    # of frozen weights, autocast keeps no copies from one layer to the next
    both = replace(half, optimizer=OptimizerConfig(checkpointing=True, autocast=True))
    copies = learner_memory(both, counted, 1).activations - learner_memory(half, counted, 1).activations
    assert copies == 2 * counted.weights
    adapted = replace(both, adapter=AdapterConfig(rank=4))
    few = count(adapted, world[0])
    kept = learner_memory(adapted, few, 1).activations
    assert kept == 64 * few.kept_layer + 2 * few.trained


def test_pace_and_what_binds(world):
    machine = PlanConfig(cores=10, core_steps=20, episode_steps=100)
    config = replace(CONFIG, plan=machine, reinforce=replace(CONFIG.reinforce, episodes=400))
    found = pace(config, count(config, world[0]), 1)
    assert found.simulators == 400 * 100 / (10 * 20)
    assert found.seconds(ahead=False) == found.simulators + found.policy + found.update
    assert found.seconds(ahead=True) == found.simulators + found.policy
    lines = plan(config)
    assert lines[-1].startswith("binds       simulators: more cores")
    slow = plan(replace(config, plan=replace(machine, tflops=1e-3)))
    assert slow[-1].startswith("binds       update")
    small = plan(replace(config, plan=replace(machine, memory_gb=0.001)))
    assert any("--optimizer.checkpointing" in line for line in small)
