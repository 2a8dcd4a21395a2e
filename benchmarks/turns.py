"""Share of what simulators could supply that rollouts use: in turn, double-buffered, with patience.

    python -m benchmarks.turns

Simulators and policy only sleep, as those do that work on a GPU: busy cores, too, show who waits for whom.
A simulator takes `--simulator` seconds per decision, give or take `--spread` of it, a batch of decisions
`--policy` seconds whatever its size.
"""

import argparse
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lastr1 import spans
from lastr1.envs.base import Setup, Start
from lastr1.envs.pool import EnvPool
from lastr1.spec import Camera, Dim, RobotSpec
from lastr1.types import ActionChunk, Image, Observation, Outcome

if TYPE_CHECKING:  # simulator processes import this file, and need no torch
    from lastr1.rollout.collect import Player

SPEC = RobotSpec(
    name="sleeper",
    cameras=(Camera(name="front", height=96, width=96),),
    state=(Dim(name="x", unit="m", low=-1, high=1),),
    action=(Dim(name="x", unit="m", low=-1, high=1),),
    rate=10.0,
    hold=(0.0,),
)
CHUNK, DECISIONS = 8, 20
SEEN = Observation(
    images={"front": np.zeros((96, 96, 3), np.uint8)}, state=np.zeros(1, np.float32), instruction=""
)


class Sleeper:
    """Succeeds after `DECISIONS` chunks; nothing moves."""

    def __init__(self, seconds: float, spread: float) -> None:
        self.spec, self.tasks, self.stored_states, self.cap = SPEC, ("sleep",), 0, CHUNK * DECISIONS
        self.seconds, self.spread = seconds, spread

    def reset(self, start: Start) -> Observation:
        self.rng, self.left = np.random.default_rng(start.seed), DECISIONS
        return SEEN

    def play(self, chunk: ActionChunk) -> Outcome:
        time.sleep(self.seconds * self.rng.uniform(1 - self.spread, 1 + self.spread))
        self.left -= 1
        over = self.left == 0
        return Outcome(
            observation=SEEN, reward=float(over), terminated=over, truncated=False, steps=len(chunk.actions)
        )

    def frame(self, size: int) -> Image:
        return np.zeros((size, size, 3), np.uint8)

    def describe(self) -> Setup:
        return Setup(
            suite="sleeper", cap=self.cap, settle=0, camera="front", image=96, render="full", renderer="none",
            patches=(), packages={},
        )  # fmt: skip

    def close(self) -> None:
        pass


def sleeping_player(
    pool: EnvPool, slots: int, groups: int, patience: float, seconds: float
) -> "tuple[Player, list[int]]":
    """A player whose policy sleeps, and the sizes of its batches."""
    from lastr1.rollout.collect import Player

    player, batches = Player(None, pool, slots, groups, patience), []  # type: ignore[arg-type]

    def decide(games, *_):  # type: ignore[no-untyped-def]
        time.sleep(seconds)
        batches.append(len(games))
        return [None] * len(games), [ActionChunk(actions=np.zeros((CHUNK, 1), np.float32))] * len(games)

    player._decide = decide  # type: ignore[method-assign]
    return player, batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulator", type=float, default=0.1, help="seconds per decision")
    parser.add_argument("--policy", type=float, default=0.2, help="seconds per batch of decisions")
    parser.add_argument(
        "--spread", type=float, default=0.5, help="simulators differ by so much, from call to call"
    )
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--workers", type=int, default=4)
    args = parser.parse_args()
    starts = [Start(task=0, seed=i) for i in range(args.slots)]
    print("groups  patience ms  decisions/s  share of simulators  decisions per batch")
    make = partial(Sleeper, args.simulator, args.spread)
    for groups, patience in ((1, np.inf), (2, np.inf), (4, np.inf), (1, 0.1), (1, 0.0)):
        with EnvPool(make, slots=args.slots, workers=args.workers) as pool:
            pool.reset(dict(enumerate(starts)))  # processes have started
            spans.taken()
            player, batches = sleeping_player(pool, args.slots, groups, patience, args.policy)
            began = time.perf_counter()
            player.play(starts, noise=0)
            seconds = time.perf_counter() - began
        share, rate = spans.busy(spans.taken(), seconds)["simulator_busy"], sum(batches) / seconds
        print(f"{groups:6d} {1000 * patience:12g} {rate:12.1f} {share:20.0%} {np.mean(batches):20.1f}")


if __name__ == "__main__":
    main()
