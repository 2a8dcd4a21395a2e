"""An evaluation whose simulators die, hang, lie and dawdle, against the same one undisturbed.

python -m benchmarks.chaos                     # the base on the embedded world, 20 stored states of each task
python -m benchmarks.chaos --checkpoint runs/demo/train/last --episodes 200

Every start must become one episode, equal to the undisturbed one decision for decision.  Each simulator has a
process of its own, so every planted fault that ends a process costs one attempt: their numbers must agree.
Exit code 1 otherwise.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import lastr1
from lastr1.config import ChaosConfig, Config
from lastr1.presets import RECIPES

if TYPE_CHECKING:
    from lastr1.rollout.batch import Episode

CHAOS = ChaosConfig(kill=0.03, hang=0.004, corrupt=0.03, slow=0.02, delay=0.2)
BASE = Path(lastr1.__file__).parent / "assets" / "tabletop_base"
ENDS = ("kill", "hang", "corrupt")


def play(config: Config, checkpoint: Path) -> tuple[list["Episode"], Counter[str], float]:
    """The episodes, the faults that were planted, and the seconds it took."""
    # Not above: every new simulator process reads this file again, and must not load torch for it.
    import torch

    from lastr1.rollout.collect import Player
    from lastr1.train import run
    from lastr1.train.evaluate import starts_of

    run.begin(config)
    with run.open_pool(config) as pool:
        bundle = run.load_policy(checkpoint, pool.spec, torch.device("cpu"))
        starts = starts_of(config.env, config.evaluate, len(pool.tasks), pool.stored_states, config.seed)
        began = time.perf_counter()
        episodes = Player(bundle, pool, config.env.slots).play(starts, noise=None)
        assert [episode.start for episode in episodes] == starts
        return episodes, Counter(pool.planted), time.perf_counter() - began


def row(episode: "Episode") -> tuple[object, ...]:
    """What must not depend on faults."""
    tokens = tuple(tuple(step.decided.tokens.tolist()) for step in episode.steps)
    return episode.start, episode.success, episode.control_steps, tokens


def report(calm: list["Episode"], stormy: list["Episode"], planted: Counter[str]) -> bool:
    """Print the table; whether the account is exact."""
    ends = sum(planted[fault] for fault in ENDS)
    told = ", ".join(f"{fault} {planted[fault]}" for fault in (*ENDS, "slow"))
    print(f"planted: {told}; {sum(planted.values())} in all, {ends} of which end a process")
    print("| | undisturbed | with faults |\n|---|---|---|")
    sides = calm, stormy
    for name, count in COUNTS.items():
        print(f"| {name} | {count(calm)} | {count(stormy)} |")
    lost = [sum(episode.lost for episode in side) for side in sides]
    same = sum(row(a) == row(b) for a, b in zip(*sides, strict=True))
    print(f"equal decision for decision: {same} of {len(calm)} episodes")
    return same == len(calm) and lost == [0, ends]


COUNTS: dict[str, Callable[[list["Episode"]], int]] = {
    "episodes": len,
    "different starts": lambda episodes: len({e.start for e in episodes}),
    "successes": lambda episodes: sum(e.success for e in episodes),
    "control steps that count": lambda episodes: sum(e.control_steps for e in episodes),
    "attempts that were lost": lambda episodes: sum(e.lost for e in episodes),
    "most attempts lost of one episode": lambda episodes: max(e.lost for e in episodes),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=BASE)
    parser.add_argument("--episodes", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    args = parser.parse_args()
    recipe = RECIPES["tabletop"]
    env = replace(recipe.env, workers=8, slots=8, deadline=20.0)
    evaluate = replace(recipe.evaluate, episodes=args.episodes)
    config = replace(recipe, env=env, evaluate=evaluate, threads=1, processes=1)
    calm, _, seconds = play(config, args.checkpoint)
    chaos = replace(CHAOS, seed=args.seed)
    stormy, planted, longer = play(replace(config, chaos=chaos), args.checkpoint)
    exact = report(calm, stormy, planted)
    print(f"{seconds:.0f} s undisturbed, {longer:.0f} s with faults; account {'exact' if exact else 'WRONG'}")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
