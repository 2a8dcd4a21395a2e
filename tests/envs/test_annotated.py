"""Annotated pictures: what is said to be at a pixel is seen there."""

import numpy as np
import pytest

from lastr1.envs.annotated import KINDS, STRIDE, THINGS, annotate, join
from lastr1.envs.base import Start
from lastr1.envs.tabletop import TabletopEnv
from lastr1.envs.tabletop_tasks import COLORS
from lastr1.envs.tabletop_view import FRONT, RGB, SHADES, TOP

SIZE = 128


@pytest.fixture(scope="module")
def env():
    return TabletopEnv("tabletop", size=SIZE)


@pytest.fixture(scope="module")
def episodes(env):
    return [annotate(env, Start(task=task, seed=70 + task), noise=0.2, seed=task) for task in range(4)]


def named(name):
    return THINGS.index(name)


def test_things():
    assert THINGS[0] == "gripper"
    assert len(THINGS) == 1 + len(KINDS) * len(COLORS) == len(set(THINGS))
    assert THINGS[1:7] == tuple(f"{color} block" for color in COLORS)


def test_blocks_are_seen_in_their_colour(env, episodes):
    """At the middle of a block that nothing hides: its colour, shaded as its top, its front or their edge.

    Hidden ones are left out: those below the gripper (whose hand and shadow reach up and down from it), and
    those with another block in front of them.
    """
    checked = []
    more = [annotate(env, Start(task=i % 4, seed=i), noise=0.0, seed=i) for i in range(8)]
    for episode in episodes + more:
        first = episode.frames[0]
        for color in COLORS:
            thing = named(f"{color} block")
            if not episode.present[0, thing] or _hidden(episode, 0, thing):
                continue
            column, row = (episode.pixels[0, thing] * SIZE).astype(int)
            seen, paint = first[row, column].astype(float), np.array(RGB[color])
            shade = seen @ paint / (paint @ paint)
            assert SHADES[FRONT] - 0.02 < shade < SHADES[TOP] + 0.02, f"{color} block: {seen}"
            assert np.abs(seen - shade * paint).max() < 4, f"{color} block: {seen}"
            checked.append(color)
    assert len(checked) >= 8
    assert len(set(checked)) >= 4


def _hidden(episode, frame, thing):
    column, row = episode.pixels[frame, thing]
    for other in np.flatnonzero(episode.present[frame, : 1 + len(COLORS)]):
        x, y = episode.pixels[frame, other]
        reach = 0.16 if other == 0 else 0.09
        if other != thing and abs(x - column) < reach and (other == 0 or abs(y - row) < 0.12):
            return True
    return False


def test_zones_are_seen_in_their_colour(env, episodes):
    """Painted over the wood at 0.85 opacity: nearer to their colour than to any other."""
    push = episodes[1]
    thing = named("blue zone")
    assert push.present[0, thing]
    column, row = (push.pixels[0, thing] * SIZE).astype(int)
    seen = push.frames[0, row, column].astype(float)
    distance = {name: np.abs(seen - np.array(rgb)).sum() for name, rgb in RGB.items()}
    assert min(distance, key=distance.__getitem__) == "blue"


def test_positions_are_those_of_the_world(env):
    """A short episode, annotated again step by step from a second world."""
    episode = annotate(env, Start(task=0, seed=5), noise=0.0, seed=0)
    env.reset(Start(task=0, seed=5))
    world = env.world
    assert episode.where[0, 0].tolist() == pytest.approx(list(world.arms[0].at), abs=1e-6)
    for body in world.bodies:
        thing = named(f"{body.color} block")
        assert episode.present[0, thing]
        assert episode.where[0, thing].tolist() == pytest.approx(list(body.at), abs=1e-6)
    there = {f"{body.color} block" for body in world.bodies} | {"gripper"}
    there |= {f"{zone.color} zone" for zone in world.zones} | {f"{one.color} bin" for one in world.bins}
    assert {THINGS[i] for i in np.flatnonzero(episode.present[0])} == there


def test_what_the_instruction_names(episodes):
    """reach purple; push red to blue; put yellow in green; stack blue on orange."""
    wanted = [
        ("gripper", "purple block", "purple block"),
        ("gripper", "red block", "blue zone"),
        ("gripper", "yellow block", "green bin"),
        ("gripper", "blue block", "orange block"),
    ]
    for episode, names in zip(episodes, wanted, strict=True):
        assert {tuple(THINGS[i] for i in row) for row in episode.named} == {names}
        assert episode.present[:, episode.named[0]].all()
        assert len(set(episode.instructions)) == 1


def test_the_object_moves_and_the_gripper_with_it(episodes):
    """Putting the block in the bin ends with it there, as the annotation says."""
    place = episodes[2]
    block, goal = place.where[:, named("yellow block")], place.where[:, named("green bin")]
    assert np.abs(block[-1] - goal[-1])[:2].max() < 0.06
    assert np.abs(block[0] - goal[0])[:2].max() > 0.06
    assert np.ptp(goal, axis=0).max() == 0
    assert np.abs(np.diff(place.where[:, 0], axis=0)).max() < STRIDE * 0.03 + 1e-6


def test_same_seed_same_pictures(env, episodes):
    again = annotate(env, Start(task=1, seed=71), noise=0.2, seed=1)
    assert np.array_equal(again.frames, episodes[1].frames)
    assert np.array_equal(again.pixels, episodes[1].pixels)
    other = annotate(env, Start(task=1, seed=71), noise=0.2, seed=2)
    assert not np.array_equal(again.frames[: len(other.frames)], other.frames[: len(again.frames)])


def test_join_keeps_the_order(episodes):
    both = join(episodes[:2])
    count = len(episodes[0].frames)
    assert len(both.frames) == len(both.instructions) == count + len(episodes[1].frames)
    assert both.instructions[count - 1 : count + 1] == (
        episodes[0].instructions[0],
        episodes[1].instructions[0],
    )
    for field in ("frames", "where", "present", "pixels", "named"):
        assert np.array_equal(getattr(both, field)[count:], getattr(episodes[1], field))
