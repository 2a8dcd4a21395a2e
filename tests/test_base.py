"""The base that ships with the package."""

import json

import torch

from lastr1.envs.base import Start
from lastr1.envs.tabletop import TabletopEnv
from lastr1.model import weights
from lastr1.presets import RECIPES
from lastr1.train.run import BUILTIN


def test_it_is_small_loads_and_acts():
    assert sum(file.stat().st_size for file in BUILTIN.iterdir()) <= 6_000_000
    recipe = RECIPES["tabletop"]
    bundle = weights.load(BUILTIN, policy=recipe.policy)
    env = TabletopEnv("tabletop", size=recipe.env.image)
    assert bundle.spec.action == env.spec.action
    decision = bundle.policy.decide(bundle.prompts.build([env.reset(Start(task=0, seed=1))]))
    assert decision.tokens.shape == (1, recipe.policy.chunk * len(env.spec.action))
    assert torch.isfinite(decision.terms.action_logp).all()


def test_it_has_not_seen_the_target_tasks():
    taught = set(json.loads((BUILTIN / "taught.json").read_text())["instructions"])
    assert taught == set(TabletopEnv("tabletop_base", size=96).tasks)
    assert not taught & set(TabletopEnv("tabletop", size=96).tasks)
