"""Job: what a recipe needs, before anything is launched: memory, seconds per iteration, and what binds.

Arithmetic, not measurement: parameters are counted on the model itself (without memory: torch's meta device),
bytes that a pass keeps for its backward pass were counted on the real layers (tests/report/test_plan.py), and
speeds are the knobs of `plan`.  Axes: B decisions, D width.
"""

from dataclasses import dataclass

import torch

from lastr1.config import Config
from lastr1.envs import make_env
from lastr1.model.backbone import Backbone
from lastr1.model.codec import BINS
from lastr1.model.heads import value_head
from lastr1.model.sizes import SIZES, scratch_config
from lastr1.spec import RobotSpec

GB = 1e9
_TOKENS = {"<|image_pad|>": 0, "<|video_pad|>": 1, "<|vision_start|>": 2, "<|vision_end|>": 3}
_TEXT = 20
"""tokens of a prompt besides its images: template and instruction"""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Sizes of a policy."""

    width: int
    """D"""
    weights: int
    """parameters of the backbone"""
    trained: int
    """those that are trained, with the value head"""
    undivided: int
    """parameters that ranks gather at once: all that is in no layer, and the largest layer"""
    language: int
    """parameters that every token passes (the language model's layers)"""
    vision: int
    """parameters that every patch passes"""
    tokens: int
    """of one decision: prompt, thought, actions"""
    patches: int
    """of one decision's images"""
    kept: tuple[int, int]
    """bytes that the backward pass of one decision needs, in fp32 and with autocast"""
    kept_layer: int
    """bytes of one decision with checkpointing: what enters each layer, one layer whole, logits (fp32)"""
    cache: int
    """bytes of one decision's keys and values, fp32"""


def count(config: Config, spec: RobotSpec) -> Counted:
    """Count a recipe's policy for a robot."""
    policy, adapter = config.policy, config.adapter
    size = config.backbone if config.backbone.size == "custom" else SIZES[config.backbone.size]
    with torch.device("meta"):
        net = Backbone(
            scratch_config(config.backbone, vocabulary=1000, image=policy.image, special=_TOKENS)
        ).net
    language, vision = net.model.language_model.layers, net.model.visual
    heads, kv = size.heads * size.head_dim, size.kv_heads * size.head_dim
    weights = sum(p.numel() for p in net.parameters())
    inside, seeing = (sum(p.numel() for p in part.parameters()) for part in (language, vision))
    blocks = sum(p.numel() for p in vision.blocks.parameters())
    value = sum(p.numel() for p in value_head(size.hidden).parameters())
    lora = size.layers * adapter.rank * (2 * (size.hidden + heads) + 2 * (size.hidden + kv))
    frozen = seeing if config.optimizer.freeze_vision else 0
    patches = len(spec.cameras) * (policy.image // size.patch) ** 2
    tokens = _TEXT + patches // 4 + 1 + policy.stop_candidates * (policy.latents_per_group + 1)
    actions = policy.chunk * len(spec.action)
    tokens += actions
    # Counted on the layers (bytes per token or patch): norms and residuals, attention, gated MLP.
    plain = (
        24 * size.hidden + 24 * heads + 8 * kv + 16 * size.mlp,
        40 * size.vision_hidden + 8 * size.vision_mlp,
    )
    half = (
        26 * size.hidden + 14 * heads + 6 * kv + 8 * size.mlp,
        20 * size.vision_hidden + 4 * size.vision_mlp,
    )
    looking = 0 if config.optimizer.freeze_vision else 1
    kept_plain, kept_half = (
        tokens * size.layers * text + looking * patches * size.vision_layers * eye
        for text, eye in (plain, half)
    )
    enters = tokens * size.layers * 4 * size.hidden + patches * size.vision_layers * 4 * size.vision_hidden
    return Counted(
        width=size.hidden,
        weights=weights,
        trained=value + (lora if adapter.rank else weights - frozen),
        undivided=weights - inside - blocks + inside // size.layers,
        language=inside,
        vision=seeing,
        tokens=tokens,
        patches=patches,
        kept=(kept_plain, kept_half),
        kept_layer=enters + tokens * plain[0] + 3 * 4 * BINS * actions,
        cache=tokens * size.layers * 2 * kv * 4,
    )


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU of a learner."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def learner_memory(config: Config, counted: Counted, ranks: int) -> Memory:
    """One rank's: fp32 weights and moments (16 bytes per trained parameter), cut among the ranks."""
    job = config.optimizer
    gathered = 0 if ranks == 1 else counted.undivided
    each = counted.kept_layer if job.checkpointing else counted.kept[job.autocast]
    # Autocast keeps its bf16 copies of trained weights for a pass, and a backward pass needs those of all.
    copied = (min(counted.trained, counted.weights) if job.checkpointing else counted.weights) * job.autocast
    return Memory(
        weights=4 * (counted.weights / ranks + gathered),
        gradients=4 * (counted.trained / ranks + (gathered if not config.adapter.rank else 0)),
        optimizer=8 * counted.trained / ranks,
        activations=float(job.micro_batch * each + 2 * copied),
    )


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of one iteration."""

    simulators: float
    """to play its control steps, with nothing else to wait for"""
    policy: float
    """to take its decisions"""
    update: float
    """to recompute old terms and to learn"""

    def seconds(self, *, ahead: bool) -> float:
        """Of an iteration; a batch of episodes waits for simulators and policy in turn, or plays ahead."""
        playing = self.simulators + self.policy
        return max(playing, self.update) if ahead else playing + self.update


def pace(config: Config, counted: Counted, gpus: int) -> Pace:
    """From the speeds of `plan`; playing and learning each have all GPUs in turn (colocated)."""
    machine, job = config.plan, config.reinforce
    steps = job.episodes * machine.episode_steps
    decisions = steps / config.policy.chunk
    operations = 2.0 * (counted.language * counted.tokens + counted.vision * counted.patches / 4)
    compute = gpus * machine.tflops * 1e12
    # While thinking, every call of the model reads all weights again (bf16 beside fp32 masters: 2 bytes).
    calls = config.policy.latents + 2
    batches = decisions / config.env.slots / gpus
    reading = batches * calls * 2 * counted.language / (machine.bandwidth * 1e12)
    # forward 1, backward 1 for what flows through and 1 for the weights, checkpointing 1 more forward
    learning = 3.0 - bool(config.adapter.rank) + config.optimizer.checkpointing
    passes = job.epochs * learning + job.recompute_old
    return Pace(
        simulators=steps / (machine.cores * machine.core_steps),
        policy=decisions * operations / compute + reading,
        update=decisions * operations * passes / compute,
    )


def plan(config: Config) -> list[str]:
    """Lines for a person: memory, pace, what binds, what to change."""
    env = make_env(config.env)
    spec = env.spec
    env.close()
    counted, machine = count(config, spec), config.plan
    memory, room = learner_memory(config, counted, machine.gpus), machine.memory_gb * GB
    acting = 4 * counted.weights + config.env.slots * counted.cache
    found = pace(config, counted, machine.gpus)
    decisions = config.reinforce.episodes * machine.episode_steps / config.policy.chunk
    pixels = 3 * config.policy.image**2 * len(spec.cameras)
    buffer = decisions * (pixels + 8 * config.policy.latents * counted.width)
    whole, ahead = found.seconds(ahead=False), found.seconds(ahead=True)
    hours = config.reinforce.iterations / 3600
    return [
        f"policy      {counted.weights / 1e9:.2f} G parameters, {counted.trained / 1e9:.3f} G trained; "
        f"a decision is {counted.tokens} tokens and {counted.patches} patches",
        f"learner     {memory.total / GB:.2f} GB per GPU on {machine.gpus}: weights "
        f"{memory.weights / GB:.2f}, gradients {memory.gradients / GB:.2f}, optimizer "
        f"{memory.optimizer / GB:.2f}, activations {memory.activations / GB:.2f} "
        f"(micro_batch {config.optimizer.micro_batch})",
        f"collector   {acting / GB:.2f} GB: weights {4 * counted.weights / GB:.2f}, cache of "
        f"{config.env.slots} slots {config.env.slots * counted.cache / GB:.2f}",
        f"rollout     {buffer / GB:.2f} GB in main memory, {decisions:.0f} decisions",
        f"iteration   {whole:.0f} s: simulators {found.simulators:.0f}, policy {found.policy:.0f}, update "
        f"{found.update:.0f}; {whole * hours:.1f} h for {config.reinforce.iterations} iterations, "
        f"{ahead * hours:.1f} h with --cluster.staleness 1 on GPUs of their own",
        *_advice(config, memory, acting, room, found),
    ]


def _advice(config: Config, memory: Memory, acting: float, room: float, found: Pace) -> list[str]:
    lines = []
    if memory.total + acting > room:
        fits = (
            "apart, not together (--cluster.placement split)" if max(memory.total, acting) <= room else "not"
        )
        change = "" if config.optimizer.checkpointing else "--optimizer.checkpointing, "
        adapter = "" if config.adapter.rank else "--adapter.rank 32, "
        lines.append(
            f"memory      learner and collector {fits}: {change}{adapter}a smaller "
            f"--optimizer.micro-batch, or more --plan.gpus"
        )
    names = {"simulators": found.simulators, "policy": found.policy, "update": found.update}
    slowest = max(names, key=lambda name: names[name])
    change = {
        "simulators": "more cores (--plan.cores), machines with simulators only",
        "policy": "more GPUs, more --env.slots per collector",
        "update": "more GPUs, an adapter, larger micro-batches without checkpointing",
    }[slowest]
    lines.append(f"binds       {slowest}: {change}")
    return lines
