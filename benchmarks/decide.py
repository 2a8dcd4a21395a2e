"""One decision under every schedule of thinking: time, and its ratio to the release's schedule (`plain`).

python -m benchmarks.decide --size small

Thoughts end by the `first` rule after as many groups as we want, through the ordinary code: the stop's row of
the output matrix is solved for four prompts, so that prompt g stops after g groups.  A batch is made of these
prompts.  Processor time of one thread (on a GPU: wall clock), schedules in turn, the least of all rounds:
other work on the machine must not decide.  With more than FEW rows (lastr1/model/thinking.py) `speculative`
is `fused`.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from lastr1.config import BackboneConfig, PolicyConfig
from lastr1.model.backbone import Prompt
from lastr1.model.codec import Codec
from lastr1.model.noise import Noise
from lastr1.model.policy import LatentPolicy
from lastr1.model.prompt import tiny_tokenizer
from lastr1.model.weights import Bundle, build
from lastr1.rollout.batch import moved
from lastr1.spec import Camera, Dim, RobotSpec
from lastr1.train.device import device_named

SIZES = {
    "tiny": BackboneConfig(),
    "small": BackboneConfig(
        hidden=512, layers=8, heads=8, kv_heads=4, head_dim=64, mlp=1536,
        vision_hidden=256, vision_layers=6, vision_heads=4, vision_mlp=1024, deepstack=(1, 3),
    ),
    "medium": BackboneConfig(
        hidden=1024, layers=20, heads=16, kv_heads=8, head_dim=64, mlp=3072,
        vision_hidden=512, vision_layers=12, vision_heads=8, vision_mlp=2048, deepstack=(2, 5, 8),
    ),
    "2B": BackboneConfig(size="2B"),
    "4B": BackboneConfig(size="4B"),
}  # fmt: skip
SHARES = (0.5655, 0.2793, 0.0968, 0.0585)
"""thoughts of 1..4 groups after training: mean of the four suites (paper Fig 9, ALGORITHM.md A.4)"""
Name = Literal["plain", "fused", "static", "speculative"]
ORDER: tuple[Name, ...] = get_args(Name)
TASK = "put the cream cheese in the bowl"


def make(size: str, image: int, device: torch.device) -> Bundle:
    """Random weights, seven action dimensions, the prompt of one camera."""
    torch.manual_seed(0)
    dims = tuple(Dim(name=str(i), unit="controller", low=-1.0, high=1.0) for i in range(7))
    robot = RobotSpec(
        name="bench", cameras=(Camera(name="camera", height=image, width=image),), state=(), action=dims,
        rate=20.0, hold=(0.0,) * 7,
    )  # fmt: skip
    codec = Codec(q01=(-1.0,) * 7, q99=(1.0,) * 7, mask=(True,) * 7)
    policy = PolicyConfig(image=image, crop=1.0, eval_stop="first")
    bundle = build(SIZES[size], policy, tiny_tokenizer((TASK,)), robot, codec)
    bundle.policy.eval().to(device)
    return bundle


def dice(policy: LatentPolicy, batch: int) -> Noise:
    shape = {"latents": policy.config.latents, "width": policy.backbone.width}
    return moved(Noise.draw(range(batch), **shape, actions=policy.action_tokens), policy.device)


def now(policy: LatentPolicy) -> float:
    """Milliseconds of a clock that waits for the device."""
    if policy.device.type == "cpu":
        return 1e3 * time.process_time()
    torch.cuda.synchronize(policy.device)
    return 1e3 * time.perf_counter()


@torch.no_grad()
def plant(policy: LatentPolicy, prompt: Prompt) -> None:
    """Give the head a stop row that ends row g of `prompt` after g + 1 groups: one equation per candidate."""
    net, stop = policy.backbone.net, policy.tokens.latent_end
    # a head of its own: the stop token's embedding stays
    net.lm_head.weight = nn.Parameter(net.lm_head.weight.clone())
    noise = dice(policy, 4)
    # without noise on the latents, a sampled thought is the greedy one, and all its groups are there
    thought = policy.decide(prompt, replace(noise, latent=torch.zeros_like(noise.latent))).thought
    states = policy.read(policy.backbone.look(prompt), thought).stop_state
    net.lm_head.weight[stop] = 0
    candidate, wanted = torch.arange(4)[None], torch.arange(4)[:, None]
    margin = torch.where(candidate < wanted, -5.0, 10.0).to(states)
    logits = (policy.vocabulary_logsumexp(states, 1.0) + margin).double().flatten()[:, None]
    system = states.flatten(0, 1).double().cpu(), logits.cpu()
    net.lm_head.weight[stop] = torch.linalg.lstsq(*system, driver="gelsd").solution[:, 0].to(states)


def rows(batch: int) -> list[int]:
    """Groups of the rows of a batch that has the shares of trained policies (largest remainders)."""
    exact = [batch * share for share in SHARES]
    count = [int(x) for x in exact]
    for g in sorted(range(4), key=lambda g: count[g] - exact[g])[: batch - sum(count)]:
        count[g] += 1
    return [g + 1 for g in range(4) for _ in range(count[g])]


def milliseconds(
    policy: LatentPolicy, prompt: Prompt, noise: Noise | None, groups: Sequence[int], rounds: int
) -> dict[Name, float]:
    """The least time of every schedule; checks the lengths of the thoughts (where they are not sampled)."""
    least = dict.fromkeys(ORDER, math.inf)
    for round_ in range(rounds + 1):
        for schedule in ORDER:
            policy.config = replace(policy.config, schedule=schedule)
            began = now(policy)
            decision = policy.decide(prompt, noise)
            took = now(policy) - began
            assert noise is not None or decision.thought.groups.tolist() == list(groups)
            if round_:  # the first is not counted
                least[schedule] = min(least[schedule], took)
    return least


@torch.no_grad()
def reading(policy: LatentPolicy, prompt: Prompt, rounds: int) -> float:
    """Image and prompt, which every schedule reads once: the part that no schedule changes."""
    least = float("inf")
    for _ in range(rounds + 1):
        began = now(policy)
        policy.hear(policy.backbone.look(prompt))
        least = min(least, now(policy) - began)
    return least


def line(batch: int, name: str, took: dict[Name, float], read: float) -> None:
    times = "".join(f"{took[s]:10.1f}" for s in ORDER)
    ratios = "".join(f"{took[s] / took['plain']:10.2f}" for s in ORDER[1:])
    rest = (took["speculative"] - read) / (took["plain"] - read)
    print(f"{batch:5}  {name:<18}{read:10.1f}{times}  {ratios}{rest:10.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--image", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... or auto")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bundle = make(args.size, args.image, device_named(args.device))
    policy = bundle.policy
    shape = (args.image, args.image, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)

    def prompt(groups: Sequence[int]) -> Prompt:
        return bundle.prompts.batch([TASK] * len(groups), pixels[[g - 1 for g in groups]], policy.device)

    four = prompt([1, 2, 3, 4])
    plant(policy, four)
    slots = f"{four.token_ids.shape[1] + 1} slots read, {policy.action_tokens} of actions"
    print(f"{args.size}: D = {policy.backbone.width}, {slots}; ms of one decision of a batch")
    times = "".join(f"{name:>10}" for name in ("reading", "plain", "fused", "static", "specul."))
    ratios = "".join(f"{name:>10}" for name in ("fused", "static", "specul.", "-reading"))
    print(f"batch  thoughts          {times}  {ratios}   (ratios to plain; last: without reading)")
    for batch in args.batches:
        read = reading(policy, prompt([1] * batch), args.rounds)
        each = []
        for g in (1, 2, 3, 4):
            groups = [g] * batch
            each.append(milliseconds(policy, prompt(groups), None, groups, args.rounds))
            line(batch, f"{g} groups", each[-1], read)
        if batch == 1:
            mean = {s: math.fsum(p * took[s] for p, took in zip(SHARES, each, strict=True)) for s in ORDER}
        else:
            mean = milliseconds(policy, prompt(rows(batch)), None, rows(batch), args.rounds)
        line(batch, "as after training", mean, read)
        sampled = milliseconds(policy, prompt([1] * batch), dice(policy, batch), [], args.rounds)
        line(batch, "sampled", sampled, read)


if __name__ == "__main__":
    main()
