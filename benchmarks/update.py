"""One LAPO update: ours against a plain one that follows the released procedure, on the same rollout.

The plain one forwards every decision of the padded grid [E, T] (those past an episode's end repeat its last
one) and multiplies every action state with the whole vocabulary.  Loss and optimizer are the same, so the
ratio is about what is forwarded and which rows of the head are evaluated.

python -m benchmarks.update --checkpoint runs/demo/train/last   # its own small vocabulary
python -m benchmarks.update --vocabulary 151936                 # with a head as tall as the real one
"""

import argparse
import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lastr1.algo.lapo import decision_weights
from lastr1.model.codec import BINS
from lastr1.model.heads import head_logits
from lastr1.model.policy import LatentPolicy
from lastr1.presets import RECIPES
from lastr1.rollout.batch import Decisions, Minibatch, Rollout, make_rollout
from lastr1.rollout.collect import Player
from lastr1.train import run
from lastr1.train.device import device_named
from lastr1.train.learner import Learner
from lastr1.train.reinforce import training_starts


def minibatch(decisions: Decisions, weight: Tensor) -> Minibatch:
    """Random advantages on the given decisions."""
    count = len(decisions)
    return Minibatch(
        decisions=decisions,
        old=decisions.terms,
        advantage=torch.randn(count, generator=torch.Generator().manual_seed(0)),
        target=torch.zeros(count),
        weight=weight,
    )


def padded(rollout: Rollout) -> Minibatch:
    """All E x T places of the grid; those past an episode's end repeat its last decision with weight 0."""
    valid = rollout.valid
    first = valid.sum(1).cumsum(0) - valid.sum(1)
    place = torch.arange(valid.shape[1]).minimum(valid.sum(1, keepdim=True) - 1)
    weight = decision_weights(valid, "episode").flatten()
    return minibatch(rollout.decisions.rows((first[:, None] + place).flatten()), weight)


@contextlib.contextmanager
def whole_head(policy: LatentPolicy, height: int) -> Iterator[None]:
    """Make action logits a slice of the whole vocabulary's, padded to `height` rows."""
    extra = torch.zeros(height - len(policy.backbone.head), policy.backbone.width, device=policy.device)
    first, few = policy.tokens.action, policy.action_logits

    def logits(hidden: Tensor) -> Tensor:
        rows = torch.cat([policy.backbone.head, extra])
        return head_logits(hidden, rows)[..., first : first + BINS]

    policy.action_logits = logits  # type: ignore[method-assign]
    yield
    policy.action_logits = few  # type: ignore[method-assign]


def seconds(learner: Learner, batch: Minibatch) -> float:
    """Of one update; it ends with figures read back, so nothing is left to wait for."""
    began = time.perf_counter()
    learner.update(batch)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=run.BUILTIN, help="a tabletop policy")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... or auto")
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=0, help="rows of the plain update's head")
    args = parser.parse_args()
    recipe = RECIPES["tabletop"]
    config = replace(recipe, processes=1, reinforce=replace(recipe.reinforce, episodes=args.episodes))
    torch.set_num_threads(args.threads)
    with run.open_pool(config) as pool:
        bundle = run.load_policy(args.checkpoint, pool.spec, device_named(args.device), config.policy)
        player = Player(bundle, pool, config.env.slots)
        rollout = make_rollout(player.play(training_starts(config, player, 0), noise=0))
    valid, grid = len(rollout.decisions), rollout.valid.numel()
    learner = Learner(bundle, config.lapo, config.optimizer)
    batch, whole = minibatch(rollout.decisions, torch.full((valid,), 1 / valid)), padded(rollout)
    rows = max(args.vocabulary, len(bundle.policy.backbone.head))
    ours, plain = [], []
    for _ in range(1 + args.repeats):  # in turns, so that a busy moment meets both; the first is not counted
        ours.append(seconds(learner, batch))
        with whole_head(bundle.policy, rows):
            plain.append(seconds(learner, whole))
    best, worse = min(ours[1:]), min(plain[1:])
    print(f"{valid} valid decisions of {grid} in the padded grid; a head of {rows} rows")
    print(f"ours  {best:6.2f} s  {valid / best:7.1f} decisions/s")
    print(f"plain {worse:6.2f} s  {valid / worse:7.1f} decisions/s")
    print(f"ratio {worse / best:.2f}x, {args.threads} threads, {bundle.policy.device}")


if __name__ == "__main__":
    main()
