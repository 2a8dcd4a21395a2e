"""Pictures of the embedded world with what is where: lessons for a base that cannot see yet.

Axes: F frames, W things, named in `THINGS`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lastr1.envs.base import Start
from lastr1.envs.expert import TabletopExpert
from lastr1.envs.tabletop import TabletopEnv
from lastr1.envs.tabletop_tasks import COLORS
from lastr1.envs.tabletop_things import SIDE
from lastr1.envs.tabletop_view import Eye, View
from lastr1.types import ActionChunk, Floats

KINDS = ("block", "zone", "bin")
THINGS = ("gripper", *(f"{color} {kind}" for kind in KINDS for color in COLORS))
_GOAL = {"push": "zone", "place": "bin", "stack": "block"}
STRIDE = 4  # control steps between pictures


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """Pictures of one or more episodes."""

    frames: NDArray[np.uint8]
    """[F, size, size, 3]"""
    instructions: tuple[str, ...]
    """F"""
    where: Floats
    """[F, W, 3] position in m; for blocks the middle of the underside"""
    present: NDArray[np.bool_]
    """[F, W]"""
    pixels: Floats
    """[F, W, 2] (column, row) as shares of the image"""
    named: NDArray[np.int64]
    """[F, 3] things the instruction is about: the gripper, the object, its goal (the object again if none)"""


def annotate(env: TabletopEnv, start: Start, *, noise: float, seed: int) -> Annotated:
    """One expert episode with disturbed moves, seen every few control steps; one-arm suites only."""
    rng, expert = np.random.default_rng(seed), TabletopExpert()
    frames, seen = [env.reset(start).images["front"]], [_locate(env)]
    moved = np.array([0.0 if dim.binary else noise for dim in env.spec.action], dtype=np.float32)
    over = False
    while not over:
        for _ in range(STRIDE):
            executed = expert.act(env) + moved * rng.standard_normal(len(moved), dtype=np.float32)
            outcome = env.play(ActionChunk(actions=executed[None]))
            over = outcome.terminated or outcome.truncated
            if over:
                break
        frames.append(outcome.observation.images["front"])
        seen.append(_locate(env))
    task, count, where = env.task, len(frames), np.stack([place for place, _ in seen])
    about = THINGS.index(f"{task.color} block")
    goal = THINGS.index(f"{task.goal} {_GOAL[task.kind]}") if task.goal else about
    return Annotated(
        frames=np.stack(frames),
        instructions=(task.instruction,) * count,
        where=where,
        present=np.stack([there for _, there in seen]),
        pixels=_pixels(where, env.eye),
        named=np.tile([0, about, goal], (count, 1)),
    )


def _locate(env: TabletopEnv) -> tuple[Floats, NDArray[np.bool_]]:
    world = env.world
    found = {"gripper": tuple(world.arms[0].at)}
    found |= {f"{body.color} block": tuple(body.at) for body in world.bodies}
    found |= {f"{spot.color} zone": (spot.x, spot.y, 0.0) for spot in world.zones}
    found |= {f"{spot.color} bin": (spot.x, spot.y, 0.0) for spot in world.bins}
    present = np.array([name in found for name in THINGS])
    where = np.zeros((len(THINGS), 3), dtype=np.float32)
    where[present] = [found[name] for name in THINGS if name in found]
    return where, present


def _pixels(where: Floats, eye: Eye) -> Floats:
    middle = where.astype(np.float64)
    middle[:, 1 : 1 + len(COLORS), 2] += SIDE / 2
    camera = View(1, eye).camera
    return camera.project(middle.reshape(-1, 3)).reshape(*where.shape[:2], 2).astype(np.float32)


def join(parts: list[Annotated]) -> Annotated:
    """Episodes one after the other."""
    return Annotated(
        frames=np.concatenate([p.frames for p in parts]),
        instructions=tuple(text for p in parts for text in p.instructions),
        where=np.concatenate([p.where for p in parts]),
        present=np.concatenate([p.present for p in parts]),
        pixels=np.concatenate([p.pixels for p in parts]),
        named=np.concatenate([p.named for p in parts]),
    )
