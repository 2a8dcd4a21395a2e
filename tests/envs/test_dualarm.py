"""Two arms in robosuite: the contract, the conventions, the lean step against robosuite's, the experts."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from lastr1.config import EnvConfig
from lastr1.envs import make_env
from lastr1.envs.base import Start
from lastr1.envs.check import check_env
from lastr1.envs.dualarm import CAP, DualArmEnv
from lastr1.envs.dualarm_expert import DualArmExpert
from lastr1.envs.dualarm_tasks import TASKS, dual_spec
from lastr1.types import ActionChunk, UserError

pytestmark = pytest.mark.sim
CHUNK = 8
LIFT, HANDOVER = 0, 1


@pytest.fixture(scope="module")
def env() -> Iterator[DualArmEnv]:
    try:
        env = DualArmEnv(image=64)
    except UserError as missing:
        pytest.skip(str(missing))
    yield env
    env.close()


def random_actions(count: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    actions = draw.uniform(-1, 1, (count, 14)).astype(np.float32)
    actions[:, [6, 13]] = draw.integers(0, 2, (count, 2))
    return actions


def acting(**moves: float) -> np.ndarray:
    """A chunk of the hold action with some entries at other values."""
    spec = dual_spec(64)
    names = [dim.name for dim in spec.action]
    action = np.array(spec.hold, np.float32)
    for name, value in moves.items():
        action[names.index(name)] = value
    return np.tile(action, (CHUNK, 1))


def state(env: DualArmEnv, seen: Any) -> dict[str, float]:
    return dict(zip([dim.name for dim in env.spec.state], seen.state.tolist(), strict=True))


def physics(env: DualArmEnv) -> np.ndarray:
    return env.simulation.sim.get_state().flatten()


def test_two_arms_of_seven_entries_each() -> None:
    spec = dual_spec(128)
    assert [dim.name for dim in spec.action][5:9] == ["left_yaw", "left_gripper", "right_x", "right_y"]
    assert (len(spec.action), len(spec.state)) == (14, 14)
    assert [camera.name for camera in spec.cameras] == ["front", "left_wrist", "right_wrist"]


def test_same_start_same_episode_whatever_came_before(env: DualArmEnv) -> None:
    chunk = ActionChunk(actions=random_actions(CHUNK))
    first = env.reset(Start(task=LIFT, state=3)), env.play(chunk).observation
    env.reset(Start(task=LIFT, seed=5))
    env.play(ActionChunk(actions=random_actions(CHUNK, seed=1)))
    again = env.reset(Start(task=LIFT, state=3)), env.play(chunk).observation
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.state, b.state)
        for camera in a.images:
            np.testing.assert_array_equal(a.images[camera], b.images[camera])


def test_chunk_is_its_control_steps(env: DualArmEnv) -> None:
    actions = random_actions(CHUNK)
    env.reset(Start(task=LIFT, state=0))
    with mock.patch.object(env, "_draw", wraps=env._draw) as drawn:
        whole = env.play(ActionChunk(actions=actions))
    assert drawn.call_count == 3
    end = physics(env)
    env.reset(Start(task=LIFT, state=0))
    for action in actions:
        env.step(action, look=False)
    np.testing.assert_array_equal(physics(env), end)
    assert (whole.steps, whole.terminated, whole.truncated, whole.reward) == (CHUNK, False, False, 0.0)


def test_each_arm_obeys_its_own_entries(env: DualArmEnv) -> None:
    """In the world's frame, whichever way an arm faces: +y is towards the right arm, +z is up."""
    for side, other in (("left_", "right_"), ("right_", "left_")):
        before = state(env, env.reset(Start(task=LIFT, state=0)))
        chunk = ActionChunk(actions=acting(**{side + "x": 1.0, side + "z": 1.0}))
        after = state(env, env.play(chunk).observation)
        assert after[side + "x"] - before[side + "x"] > 0.05
        assert after[side + "z"] - before[side + "z"] > 0.05
        assert abs(after[side + "y"] - before[side + "y"]) < 0.02
        assert all(abs(after[other + n] - before[other + n]) < 0.01 for n in "xyz")


def test_left_is_left_in_the_picture_and_up_is_up(env: DualArmEnv) -> None:
    before = env.reset(Start(task=LIFT, state=0)).images["front"].astype(int)
    assert before[:16].mean() + 20 < before[-16:].mean()  # a grey wall above, the white table below
    changes = {}
    for side in ("left_", "right_"):
        env.reset(Start(task=LIFT, state=0))
        seen = env.play(ActionChunk(actions=acting(**{side + "z": 1.0}))).observation
        changes[side] = np.abs(seen.images["front"] - before).sum(axis=(0, 2))
        wrist = np.abs(seen.images[f"{side}wrist"].astype(int) - env.reset(Start(task=LIFT)).images["front"])
        assert wrist.mean() > 5  # not the front camera's
    half = 32
    assert changes["left_"][:half].sum() > 3 * changes["left_"][half:].sum()
    assert changes["right_"][half:].sum() > 3 * changes["right_"][:half].sum()


def test_gripper_convention(env: DualArmEnv) -> None:
    """1 opens, 0 closes, 0.5 (hold) leaves the target alone, of each hand for itself."""
    env.reset(Start(task=LIFT, state=0))
    seen = state(env, env.play(ActionChunk(actions=acting(left_gripper=0.0, right_gripper=1.0))).observation)
    assert seen["left_gripper"] < 0.3 < 0.9 < seen["right_gripper"]
    held = state(env, env.play(ActionChunk(actions=acting())).observation)
    assert held["right_gripper"] == pytest.approx(seen["right_gripper"], abs=0.02)


def test_stored_and_fresh_scenes_differ(env: DualArmEnv) -> None:
    scenes = []
    for start in (Start(task=LIFT, state=0), Start(task=LIFT, state=1), Start(task=LIFT, seed=0)):
        env.reset(start)
        scenes.append(env.simulation.sim.data.get_body_xpos("pot_root").copy())
    apart = [np.abs(a - b).max() for i, a in enumerate(scenes) for b in scenes[:i]]
    assert min(apart) > 1e-3


def test_cap_truncates_inside_a_chunk_and_ends_the_episode(env: DualArmEnv) -> None:
    env.reset(Start(task=LIFT, state=0))
    env._steps = env.cap - 3  # nothing else in the environment depends on how many steps went before
    outcome = env.play(ActionChunk(actions=acting()))
    assert (outcome.steps, outcome.terminated, outcome.truncated) == (3, False, True)
    with pytest.raises(RuntimeError, match="over"):
        env.play(ActionChunk(actions=acting()))


def test_bad_requests_are_named(env: DualArmEnv) -> None:
    for start in (Start(task=2), Start(task=-1), Start(task=0, state=50), Start(task=0, placed=(1.0,))):
        with pytest.raises(ValueError, match=r"there are|placed"):
            env.reset(start)


def test_setup_record(env: DualArmEnv) -> None:
    setup = env.describe()
    assert (setup.suite, setup.cap, setup.settle, setup.camera) == ("dualarm", CAP, 10, "front")
    assert (setup.render, setup.patches) == ("full", ())
    assert setup.renderer.count(": ") == 1
    assert setup.packages == {"mujoco": "3.3.2", "robosuite": "1.4.0"}


@pytest.mark.parametrize("task", range(len(TASKS)))
def test_lean_step_is_robosuites_to_the_last_bit(env: DualArmEnv, task: int) -> None:
    """Downward and closing, so that hands meet table, pot and hammer."""
    draw = np.random.default_rng(task)
    moves = draw.uniform(-1, 1, (16, 14)) - 0.4 * np.eye(14)[[2, 9]].sum(axis=0)
    trails = []
    for lean in (True, False):
        env.reset(Start(task=task, state=0))
        world, rows = env.simulation, []
        for command in moves:
            if lean:
                solved = env._lean(command)
            else:
                world.step(command)
                solved = world._check_success()
            data = world.sim.data
            inside = [data.time, data.qpos, data.qvel, data.qacc_warmstart, data.ctrl, data.xpos, solved]
            rows.append(np.concatenate([np.ravel(x) for x in inside]))
        trails.append(np.array(rows))
    assert trails[0].tobytes() == trails[1].tobytes()
    assert np.ptp(trails[0][:, 1:], axis=0).max() > 0.05  # it did move


@pytest.mark.slow
def test_contract() -> None:
    env = make_env(EnvConfig(suite="dualarm", image=32, render="coarse"))
    check_env(env, drift=0.02)  # m or rad: the arms settle a little further
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "longest"), [(LIFT, 90), (HANDOVER, 160)])
def test_expert_shows_the_task(env: DualArmEnv, task: int, longest: int) -> None:
    expert = DualArmExpert(env)
    plan = expert.plan(Start(task=task, state=1))
    assert plan.success
    assert len(plan.actions) <= longest
    record = expert.record(replace(plan))
    assert record.instruction == TASKS[task].instruction
    assert {name: f.shape[0] for name, f in record.frames.items()} == dict.fromkeys(
        ("front", "left_wrist", "right_wrist"), len(plan.actions) + 1
    )
    assert record.states.shape == (len(plan.actions) + 1, 14)
