"""The scripted LIBERO experts: geometry by hand, then whole demonstrations in the simulator."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from lastr1.envs.base import Start
from lastr1.envs.libero import LiberoEnv
from lastr1.envs.libero_expert import LiberoExpert, Plan
from lastr1.envs.libero_fixtures import facing
from lastr1.envs.libero_geometry import (
    DOWN,
    Scene,
    _box_surface,
    about_x,
    about_z,
    best_grasp,
    middle,
    rotation_vector,
    way_out,
)
from lastr1.envs.libero_hand import SLEW
from lastr1.envs.libero_microwave import _handle
from lastr1.envs.libero_skills import solve

NOTHING = np.zeros((0, 3))


def box(centre: tuple[float, float, float], half: tuple[float, float, float]) -> np.ndarray:
    return _box_surface(np.array(half)) + np.array(centre)


def test_rotation_vector_undoes_rotations() -> None:
    np.testing.assert_allclose(rotation_vector(about_z(0.3)), [0, 0, 0.3], atol=1e-12)
    np.testing.assert_allclose(rotation_vector(about_x(-1.2)), [-1.2, 0, 0], atol=1e-12)
    np.testing.assert_array_equal(rotation_vector(np.eye(3)), np.zeros(3))
    half_turn = rotation_vector(np.diag([1.0, -1.0, -1.0]))
    np.testing.assert_allclose(np.abs(half_turn), [np.pi, 0, 0], atol=1e-9)


def test_box_surface_lies_on_the_faces_and_leaves_no_hole() -> None:
    half = np.array([0.02, 0.01, 0.005])
    points = _box_surface(half)
    assert np.isclose(np.abs(points), half).any(axis=1).all()
    assert (np.abs(points) <= half + 1e-12).all()
    top = points[np.isclose(points[:, 2], half[2])]
    distance = np.linalg.norm(top[:, None] - top[None], axis=2) + np.eye(len(top))
    assert distance.min(axis=1).max() <= 0.008 + 1e-9


def test_long_box_is_held_across_its_short_side() -> None:
    """0.10 x 0.03 m: turned by 90 degrees the fingers close along y or along x, whichever is short."""
    along_x = best_grasp(box((0.1, 0.2, 0.02), (0.05, 0.015, 0.02)), NOTHING)
    assert abs(along_x.yaw) < 0.3
    along_y = best_grasp(box((0.1, 0.2, 0.02), (0.015, 0.05, 0.02)), NOTHING)
    assert abs(abs(along_y.yaw) - np.pi / 2) < 0.3
    for grasp in (along_x, along_y):
        np.testing.assert_allclose(grasp.site[:2], [0.1, 0.2], atol=1e-9)
        assert 0.005 < grasp.site[2] < 0.03


def test_neighbours_turn_the_hand() -> None:
    """A cube can be held either way; walls on its two sides along y leave only the closing along x."""
    cube = box((0, 0, 0.02), (0.02, 0.02, 0.02))
    assert abs(best_grasp(cube, NOTHING).yaw) < 0.1
    walls = np.concatenate([box((0, s * 0.05, 0.05), (0.03, 0.01, 0.05)) for s in (-1, 1)])
    assert abs(abs(best_grasp(cube, walls).yaw) - np.pi / 2) < 0.4


def test_wide_bowl_is_held_at_its_rim() -> None:
    ring = [
        box((0.05 * np.cos(a), 0.05 * np.sin(a), 0.025), (0.003, 0.003, 0.025))
        for a in np.arange(0, 6.28, 0.1)
    ]
    bowl = np.concatenate(ring)
    grasp = best_grasp(bowl, NOTHING)
    assert np.linalg.norm(grasp.site[:2] - middle(bowl)[:2]) == pytest.approx(0.05, abs=0.008)


def test_box_wider_than_the_fingers_has_no_free_grasp() -> None:
    assert best_grasp(box((0, 0, 0.05), (0.06, 0.06, 0.05)), NOTHING).cost > 0.5


def test_failed_grasp_is_not_tried_again() -> None:
    cube = box((0, 0, 0.02), (0.02, 0.02, 0.02))
    first = best_grasp(cube, NOTHING)
    second = best_grasp(cube, NOTHING, [first])
    assert np.linalg.norm(second.site - first.site) > 0.012 or abs(second.yaw - first.yaw) >= 0.3
    assert second.cost >= first.cost


def test_crowded_box_is_held_off_its_middle() -> None:
    """Neighbours beside the middle of a long box leave room for the hand only at one of its ends."""
    long_box = box((0, 0, 0.01), (0.04, 0.02, 0.01))
    neighbours = np.concatenate([box((-0.045, s * 0.06, 0.06), (0.025, 0.02, 0.06)) for s in (-1, 1)])
    grasp = best_grasp(long_box, neighbours)
    assert abs(grasp.yaw) < 0.3
    assert grasp.site[0] > 0.01
    assert abs(best_grasp(long_box, NOTHING).site[0]) < 1e-9


def test_way_out_from_under_a_shelf_is_the_shortest() -> None:
    cube = box((0, 0, 0.02), (0.02, 0.02, 0.02))
    shelf = box((0.1, 0, 0.1), (0.1, 0.2, 0.005))
    shift = way_out(cube, shelf)
    assert shift[0] < -0.02
    assert abs(shift[1]) < 0.02
    assert shift[2] == 0
    np.testing.assert_array_equal(way_out(cube, shelf - np.array([0, 0, 0.1])), np.zeros(3))  # not above it
    np.testing.assert_array_equal(way_out(cube, NOTHING), np.zeros(3))


@pytest.mark.parametrize("lean", [0.0, 0.6, np.pi / 2])
@pytest.mark.parametrize("outwards", [(0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0)])
def test_hand_leans_towards_the_drawer(outwards: tuple[float, float, float], lean: float) -> None:
    """Its fingers (third column) point down at lean 0 and at the drawer at a quarter turn."""
    for yaw in (0.0, np.pi / 2):
        rotation = facing(np.array(outwards), lean, yaw)
        fingers = -np.sin(lean) * np.array(outwards) - np.cos(lean) * np.array([0, 0, 1])
        np.testing.assert_allclose(rotation[:, 2], fingers, atol=1e-12)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    # They close up and down on a handle, and along the front when they push.
    closing = [facing(np.array(outwards), np.pi / 2, yaw) @ DOWN.T[:, 1] for yaw in (0.0, np.pi / 2)]
    np.testing.assert_allclose([abs(c[2]) for c in closing], [1, 0], atol=1e-12)


def test_handle_of_a_mug() -> None:
    wall = [
        box((0.045 * np.cos(a), 0.045 * np.sin(a), 0.05), (0.003, 0.003, 0.05))
        for a in np.arange(0, 6.28, 0.1)
    ]
    mug = np.concatenate([*wall, box((0.0, -0.08, 0.05), (0.008, 0.004, 0.03))])
    bar, foot = _handle(mug)
    np.testing.assert_allclose(bar[[0, 2]], [0, 0.05], atol=0.002)
    assert bar[1] == pytest.approx(-0.08, abs=0.005)
    np.testing.assert_allclose(foot[:2], [0, 0], atol=0.002)


class _Solved(Scene):
    """A scene in which every goal holds."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def holds(self, predicate: tuple[str, ...]) -> bool:
        self.asked.append(predicate)
        return True


def test_goals_that_hold_are_left_alone() -> None:
    scene = _Solved()
    assert list(solve(scene, (("in", "mug", "box"), ("open", "box")))) == []
    assert scene.asked[:2] == [("open", "box"), ("in", "mug", "box")]  # opened before anything goes in


@pytest.fixture(scope="module")
def env(libero: Callable[..., LiberoEnv]) -> Iterator[LiberoEnv]:
    env = libero("libero_object", image=128)
    yield env
    env.close()


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("start", [Start(task=7, state=0), Start(task=7, seed=3)])
def test_demonstration_is_a_replay_of_the_plan(env: LiberoEnv, start: Start) -> None:
    expert = LiberoExpert(env)
    plan = expert.plan(start)
    assert plan.success
    assert 60 < len(plan.actions) <= 180
    assert np.abs(plan.actions[:, :6]).max() <= 1
    assert np.abs(np.diff(plan.actions[:, :6], axis=0)).max() <= SLEW + 1e-6
    assert set(np.unique(plan.actions[:, 6])) == {0.0, 1.0}

    record = expert.record(plan)
    steps = len(plan.actions)
    assert record.success
    assert record.instruction == "pick up the milk and place it in the basket"
    assert record.frames["agentview"].shape == (steps + 1, 128, 128, 3)
    assert (record.states.shape, record.actions.shape) == ((steps + 1, 8), (steps, 7))
    first = env.reset(start)
    np.testing.assert_array_equal(record.frames["agentview"][0], first.images["agentview"])
    np.testing.assert_array_equal(record.states[0], first.state)
    # The pictures follow the arm: nothing is a copy of its neighbour while the arm moves.
    moved = np.linalg.norm(np.diff(record.states[:, :3], axis=0), axis=1) > 0.005
    changed = np.abs(np.diff(record.frames["agentview"].astype(int), axis=0)).mean(axis=(1, 2, 3)) > 0.05
    assert moved.sum() > 30
    assert changed[moved].all()


@pytest.mark.sim
@pytest.mark.slow
def test_after_a_disturbed_beginning_only_the_way_from_there_is_shown(env: LiberoEnv) -> None:
    expert, start = LiberoExpert(env), Start(task=7, state=0)
    plan = expert.plan(start, noise=0.3, seed=1)
    again = expert.plan(start, noise=0.3, seed=1)
    np.testing.assert_array_equal(plan.actions, again.actions)
    assert plan.success
    assert plan.astray > 5
    assert not np.array_equal(plan.actions[:6], expert.plan(start, noise=0.3, seed=3).actions[:6])
    record = expert.record(plan)
    assert len(record.actions) == len(plan.actions) - plan.astray == len(record.frames["agentview"]) - 1
    # What is shown begins where the disturbance has left the arm, not where the episode began.
    assert np.linalg.norm(record.states[0, :3] - env.reset(start).state[:3]) > 0.02
    assert record.success


@pytest.mark.sim
def test_failed_plans_are_not_recorded(env: LiberoEnv) -> None:
    with pytest.raises(ValueError, match="failed"):
        LiberoExpert(env).record(
            Plan(start=Start(task=0), actions=np.zeros((1, 7), np.float32), success=False)
        )


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "task", "longest"),
    [
        ("libero_goal", 3, 280),  # a drawer opened over the bowl that goes in
        ("libero_10", 1, 260),  # a box so close to another that its middle cannot be held
        ("libero_10", 3, 260),  # a bowl into the drawer, the drawer shut
        ("libero_10", 8, 280),  # two pots side by side
        ("libero_10", 9, 300),  # a mug into the microwave, its door shut
    ],
)
def test_the_harder_tasks(libero: Callable[..., LiberoEnv], suite: str, task: int, longest: int) -> None:
    env = libero(suite, image=64)
    plan = LiberoExpert(env).plan(Start(task=task, state=0))
    env.close()
    assert plan.success
    assert len(plan.actions) <= longest
