"""Job: a released checkpoint, a Qwen3-VL or an adapter into a policy, and back into the released layout.

Numbers are copied, not recomputed: a folder in bf16 is read and written in bf16.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch

from lastr1.config import Config
from lastr1.envs import make_env
from lastr1.envs.base import Env, Start
from lastr1.model import adapter, hub, weights
from lastr1.model.backbone import Prompt
from lastr1.model.codec import BINS
from lastr1.model.prompt import knows_policy
from lastr1.model.shards import read_tensors, stored_dtype
from lastr1.model.weights import Bundle
from lastr1.rollout.collect import scene_seed
from lastr1.train import run
from lastr1.train.device import device_of
from lastr1.train.progress import track
from lastr1.train.warmup import fix_latent_scale
from lastr1.types import UserError

DECISIONS = 256
"""thoughts whose size fixes the scale of the latents (ALGORITHM.md 4.3)"""
BATCH = 16


def convert(config: Config, source: Path, out: Path, to: Literal["lastr1", "released"]) -> list[str]:
    """Write the policy at `source` to `out` in another layout; what there is to say about it, line by line.

    An adapter is merged into its base.

    The recipe's robot and action limits stand in for what a foreign folder does not hold.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty: choose another --out")
    run.begin(config)
    # The matrices of an adapter are fp32, and so is their sum with the base.
    adapted = adapter.has_adapter(source)
    dtype = torch.float32 if adapted else stored_dtype(read_tensors(source))
    foreign = weights.is_foreign(source)
    bundle = _read_foreign(config, source, dtype) if foreign else weights.load(source, dtype=dtype)
    if to == "released":
        _check_order(bundle, source)
    elif foreign and not bundle.bare:
        _measure(config, bundle)
    with hub.replacing(out) as new:
        weights.write(bundle, new, dtype, own=to == "lastr1")
        _take_along(bundle, adapter.read_adapter(source).base if adapted else source, new)
    return [*bundle.remarks, f"policy in {out}"]


def _read_foreign(config: Config, source: Path, dtype: torch.dtype) -> Bundle:
    env = make_env(config.env)
    env.close()
    bare = not knows_policy(hub.read_tokenizer(source))
    return weights.load(source, robot=env.spec, codec=run.limits(env.spec) if bare else None, dtype=dtype)


def _measure(config: Config, bundle: Bundle) -> None:
    """The scale of its latents, thought at the beginning of fresh episodes of the recipe's tasks."""
    env = make_env(config.env)
    bundle.policy.eval().to(device_of(config))
    with track("latents", DECISIONS // BATCH) as bar:
        fix_latent_scale(bundle.policy, _prompts(config, bundle, env, bar.advance))
    env.close()


def _prompts(config: Config, bundle: Bundle, env: Env, done: Callable[[], None]) -> Iterator[Prompt]:
    tasks = config.env.tasks if config.env.tasks is not None else tuple(range(len(env.tasks)))
    for first in range(0, DECISIONS, BATCH):
        numbers = range(first, first + BATCH)
        starts = [Start(task=tasks[i % len(tasks)], seed=scene_seed(config.seed, 4, i)) for i in numbers]
        yield bundle.prompts.build([env.reset(start) for start in starts], bundle.policy.device)
        done()


def _check_order(bundle: Bundle, source: Path) -> None:
    """The release counts its tokens from the end of the vocabulary (ALGORITHM.md 2.2)."""
    size, tokens = bundle.prompts.tokenizer.get_vocab_size(), bundle.prompts.tokens
    if tokens.action + BINS + 3 != size:
        raise UserError(
            f"{source / hub.TOKENIZER}: the release expects the action and latent tokens at the end of the "
            f"vocabulary, <action_0> at {size - BINS - 3}, not {tokens.action}: keep the lastr1 layout"
        )


def _take_along(bundle: Bundle, source: Path, out: Path) -> None:
    """What the folder holds besides: all of its statistics, and files for other programs."""
    statistics = hub.statistics_of(source)
    if statistics is not None and hub.read_codec(source) == bundle.codec:
        shutil.copyfile(statistics, out / hub.STATISTICS[0])
    for name in hub.PASSENGERS:
        if (source / name).is_file() and not (out / name).exists():
            shutil.copyfile(source / name, out / name)
