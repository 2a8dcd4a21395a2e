"""Named complete configurations: a name is an experiment."""

from dataclasses import replace
from typing import Literal

from lastr1.config import (
    BackboneConfig,
    CollectConfig,
    Config,
    EnvConfig,
    EvaluateConfig,
    GroundingConfig,
    InteractiveConfig,
    LapoConfig,
    OptimizerConfig,
    PolicyConfig,
    ReinforceConfig,
    RobotConfig,
    Target,
    ThinkingConfig,
    WarmupConfig,
)

TABLETOP = Config(
    name="tabletop",
    device="cpu",  # of a million weights: a GPU would mostly wait for the next launch
    processes=2,
    env=EnvConfig(suite="tabletop", image=96, slots=64, workers=0),
    backbone=BackboneConfig(
        mlp=256, vision_hidden=64, vision_layers=2, vision_mlp=192, patch=8, deepstack=()
    ),
    policy=PolicyConfig(image=96, crop=1.0, temperature=1.0),
    warmup=WarmupConfig(
        iterations=60,
        batch=32,
        lr=5e-5,
        ramp=10,
        center_targets=True,
        image_augment="none",
        action_smoothing=3.0,
        freeze_vision=True,
        checkpoint_every=1000,
    ),
    # At scale 5 the value loss fills the clipped gradient.  Running out of time is the failure to be
    # unlearnt: a value bootstrapped there would pay for it.
    lapo=LapoConfig(reward_scale=1.0, discount=0.8, on_truncation="zero"),
    optimizer=OptimizerConfig(
        lr=1e-4, value_lr=1e-3, lr_end=0.2, grad_clip=1.0, ramp=80, micro_batch=64, freeze_vision=True
    ),
    reinforce=ReinforceConfig(
        iterations=150,
        episodes=64,
        minibatches=4,
        epochs=1,
        recompute_old=False,
        task_choice="failures",
        minutes=8.5,
    ),
)
"""The embedded world: four target tasks, one demonstration each."""

TABLETOP_BASE = replace(
    TABLETOP,
    name="tabletop_base",
    base="scratch",
    env=replace(TABLETOP.env, suite="tabletop_base", workers=2),
    grounding=GroundingConfig(iterations=3000),
    collect=CollectConfig(episodes=200, noise=0.35),
    warmup=WarmupConfig(
        iterations=8000,
        batch=32,
        lr=1e-3,
        lr_end=0.05,
        ramp=200,
        center_targets=True,
        image_augment="none",
        frame_stride=4,
        action_smoothing=3.0,
    ),
    evaluate=EvaluateConfig(episodes=184),
)
"""Pre-training of the base that ships with the package: every combination but the target tasks."""

TABLETOP_DUAL = replace(TABLETOP, name="tabletop_dual", env=replace(TABLETOP.env, suite="tabletop_dual"))
"""Two arms: lift together, hand over."""

# Stop states of one thought hardly differ here: with the usual weight the stop would not move for hundreds of
# iterations, and the price would rise all the while.
TABLETOP_BUDGET = replace(
    TABLETOP,
    name="tabletop_budget",
    lapo=replace(TABLETOP.lapo, stop_weight=20.0),
    thinking=ThinkingConfig(target=3.0, rate=0.005),
)
"""Thoughts held to 3 latents on average by what they cost."""

_INTERACTIVE = InteractiveConfig(
    transitions=800,
    start_after=100,
    updates_per_transition=1.0,
    batch=8,
    critic_updates=1,  # half the work: every update of the critics has the policy think anew
    lr=2e-4,  # all weights of a million, without an adapter
    critic_first=50,
    patience=10,  # who helps late shows the way back, not where it was lost
    guided_weight=0.1,  # few transitions: what critics know of them is a guess
    cloning_smoothing=3.0,
)

TABLETOP_INTERACTIVE = replace(
    TABLETOP,
    name="tabletop_interactive",
    processes=1,
    env=replace(TABLETOP.env, tasks=(1,)),
    policy=replace(TABLETOP.policy, temperature=0.5),
    collect=CollectConfig(episodes=30),
    interactive=_INTERACTIVE,
)
"""One task with somebody beside the robot, as on a real one: push the red block."""

TABLETOP_DUAL_INTERACTIVE = replace(
    TABLETOP_DUAL,
    name="tabletop_dual_interactive",
    processes=1,
    env=replace(TABLETOP_DUAL.env, tasks=(0,)),
    policy=replace(TABLETOP_DUAL.policy, temperature=0.5),
    collect=CollectConfig(episodes=30),
    warmup=replace(TABLETOP.warmup, iterations=300, batch=16, lr=3e-4),
    interactive=_INTERACTIVE,
)
"""The same with two arms: lift the tray.  The base knows one arm, hence 30 demonstrations as in the paper."""

_LIBERO = Config(
    name="libero",
    base="scratch",
    env=EnvConfig(suite="libero_object", image=256, slots=2, workers=-1),
    backbone=BackboneConfig(vision_hidden=96),
    policy=PolicyConfig(image=256, crop=0.9, eval_stop="first"),
    warmup=WarmupConfig(iterations=10_000, batch=64, lr=1e-5, center_targets=True),
    optimizer=OptimizerConfig(),
    reinforce=ReinforceConfig(iterations=200, episodes=512, minibatches=4),
    lapo=LapoConfig(),
)

_LIBERO_SMALL = replace(
    TABLETOP,
    env=EnvConfig(image=128, render="coarse", slots=4, workers=0),
    policy=replace(TABLETOP.policy, image=64, crop=0.8),
    warmup=replace(
        TABLETOP.warmup,
        iterations=350,
        lr=5e-4,
        lr_end=0.03,
        ramp=20,
        action_smoothing=2.0,
        freeze_vision=False,
        report_every=350,
    ),
    lapo=replace(TABLETOP.lapo, discount=0.95),
    optimizer=replace(TABLETOP.optimizer, lr=5e-5, lr_end=1.0, ramp=10),
    reinforce=replace(TABLETOP.reinforce, iterations=60, episodes=32, minutes=None),
)
"""LIBERO for a million weights on processors; pictures are smaller and plainer than the protocol's.

Wants a base that has seen other tasks of LIBERO (docs/LOG.md, "a base that grasps").
"""

DUALARM = replace(
    _LIBERO,
    name="dualarm",
    env=replace(_LIBERO.env, suite="dualarm"),
    collect=CollectConfig(episodes=30),
)
"""Two simulated Franka arms, three cameras; as many demonstrations as the paper's real two-arm tasks have."""

DUALARM_SMALL = replace(
    _LIBERO_SMALL,
    name="dualarm_small",
    env=replace(_LIBERO_SMALL.env, suite="dualarm", image=96),
    # hands and their surroundings fill the pictures
    policy=replace(_LIBERO_SMALL.policy, image=96, crop=1.0),
)
"""The same for a million weights on processors, from one demonstration per task."""

_VARIANTS = {
    "action_only": (0, 2),
    **{f"length_{n}": (1, n) for n in (1, 2, 4, 8)},
    **{f"candidates_{k}": (k, 8 // k) for k in (2, 8)},
}
"""(K, G) of the ablations of thinking [8.1, 8.3, 8.4]; one candidate is `length_8`, four are the default."""

_TARGETS: tuple[Target, ...] = ("average_pool", "strided_conv", "q_former")
"""ablations of what latents point at [8.5]; a teacher is the default"""


_WITHOUT_CRITIC: tuple[Literal["grpo", "rloo"], ...] = ("grpo", "rloo")
"""baselines that compare the episodes of one start [8.2]"""


def _with_variants(recipe: Config) -> dict[str, Config]:
    found = {recipe.name: recipe}
    for variant, (candidates, group) in _VARIANTS.items():
        name = f"{recipe.name}_{variant}"
        found[name] = replace(
            recipe,
            name=name,
            policy=replace(recipe.policy, stop_candidates=candidates, latents_per_group=group),
        )
    for target in _TARGETS:
        name = f"{recipe.name}_{target}"
        found[name] = replace(recipe, name=name, warmup=replace(recipe.warmup, target=target))
    for advantage in _WITHOUT_CRITIC:
        name = f"{recipe.name}_{advantage}"
        found[name] = replace(
            recipe,
            name=name,
            lapo=replace(
                recipe.lapo, advantage=advantage, clip_scope="token", value_weight=0.0, whiten=False
            ),
            reinforce=replace(recipe.reinforce, group=8),
        )
    return found


FRANKA = Config(name="franka")
"""One Franka arm with the camera in front of it (`lastr1 drive`)."""

FRANKA_DUAL = replace(
    FRANKA,
    name="franka_dual",
    robot=RobotConfig(
        hosts=("172.16.0.2", "172.16.1.2"),
        bases=((0.0, 0.3, 0.0, 0.0), (0.0, -0.3, 0.0, 0.0)),
        cameras=("front=/dev/video0", "left_wrist=/dev/video2", "right_wrist=/dev/video4"),
    ),
)
"""Two Franka arms side by side, 0.6 m apart, with a camera each and one in front."""

_SUITES, _SMALL_SUITES = (
    [
        replace(recipe, name=name + ending, env=replace(recipe.env, suite=name))
        for name in ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
    ]
    for recipe, ending in ((_LIBERO, ""), (_LIBERO_SMALL, "_small"))
)

RECIPES: dict[str, Config] = {
    **_with_variants(TABLETOP),
    "tabletop_base": TABLETOP_BASE,
    "tabletop_budget": TABLETOP_BUDGET,
    "tabletop_dual": TABLETOP_DUAL,
    "tabletop_interactive": TABLETOP_INTERACTIVE,
    "tabletop_dual_interactive": TABLETOP_DUAL_INTERACTIVE,
    **_with_variants(_SUITES[0]),
    **{suite.name: suite for suite in [*_SUITES[1:], *_SMALL_SUITES]},
    "dualarm": DUALARM,
    "dualarm_small": DUALARM_SMALL,
    "franka": FRANKA,
    "franka_dual": FRANKA_DUAL,
}
"""recipe name -> configuration"""
