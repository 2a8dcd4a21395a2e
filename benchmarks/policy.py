"""Decisions per second (acting, re-evaluating, learning) and where the time of an iteration goes.

python -m benchmarks.policy --threads 2
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from lastr1.model.noise import Noise
from lastr1.presets import RECIPES
from lastr1.rollout.batch import make_rollout
from lastr1.rollout.collect import Player
from lastr1.train import run
from lastr1.train.learner import Learner
from lastr1.train.reinforce import improve, training_starts


def rate(work: Callable[[], object], count: int, seconds: float) -> float:
    """Items per second after one unmeasured call."""
    work()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        work()
        calls += 1
    return calls * count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    recipe = RECIPES["tabletop"]
    config = replace(
        recipe,
        base="scratch",
        threads=args.threads,
        reinforce=replace(recipe.reinforce, episodes=args.episodes),
    )
    run.begin(config)
    with run.open_pool(config) as pool:
        bundle = run.scratch_bundle(config, pool.spec, pool.tasks)
        bundle.policy.eval()
        for batch in (1, 8, 64):
            pixels = np.zeros((batch, config.policy.image, config.policy.image, 3), np.uint8)
            prompt = bundle.prompts.batch([pool.tasks[i % len(pool.tasks)] for i in range(batch)], pixels)
            policy = bundle.policy
            noise = Noise.draw(
                range(batch),
                latents=policy.config.latents,
                width=policy.backbone.width,
                actions=policy.action_tokens,
            )
            acting = rate(lambda p=prompt, n=noise, policy=policy: policy.decide(p, n), batch, args.seconds)
            print(f"decide, batch {batch:>3}: {acting:7.1f} decisions/s")
        learner = Learner(bundle, config.lapo, config.optimizer)
        began = time.perf_counter()
        player = Player(bundle, pool, config.env.slots)
        episodes = player.play(training_starts(config, player, 0), noise=0)
        rollout = make_rollout(episodes)
        played = time.perf_counter()
        count = len(rollout.decisions)
        scoring = rate(lambda: learner.rescore(rollout.decisions), count, args.seconds)
        print(f"rescore:           {scoring:7.1f} decisions/s")
        before = time.perf_counter()
        improve(learner, rollout, config, 0)
        learnt = time.perf_counter()
        print(f"update:            {count / (learnt - before):7.1f} decisions/s (rescore included)")
        whole = (played - began) + (learnt - before)
        print(
            f"iteration of {args.episodes} episodes, {count} decisions: "
            f"rollout {100 * (played - began) / whole:.0f}%, update {100 * (learnt - before) / whole:.0f}% "
            f"of {whole:.1f} s, {torch.get_num_threads()} threads"
        )


if __name__ == "__main__":
    main()
