"""LIBERO's files against the real simulator: one episode, recorded once as LIBERO records them."""

from pathlib import Path

import numpy as np
import pytest

from lastr1.config import EnvConfig
from lastr1.demos.hdf5 import open_hdf5
from lastr1.demos.lerobot import open_recording
from lastr1.demos.lerobot_writer import write_recording
from lastr1.demos.stats import compute
from lastr1.envs.base import Start
from lastr1.envs.libero import LiberoEnv
from lastr1.envs.libero_expert import LiberoExpert
from lastr1.report.conventions import check_demo
from lastr1.rollout import replay
from lastr1.types import UserError

pytestmark = [pytest.mark.sim, pytest.mark.slow]

TASK = 7
ENV = EnvConfig(suite="libero_object", image=128, workers=0, tasks=(TASK,))
NAME = "pick_up_the_milk_and_place_it_in_the_basket"


class Kept(LiberoEnv):
    """A scene takes a minute to build on a busy machine: every test plays in the same one."""

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def world():
    pytest.importorskip("h5py")
    try:
        env = Kept("libero_object", image=128)
    except UserError as missing:
        pytest.skip(str(missing))
    yield env
    LiberoEnv.close(env)


@pytest.fixture(scope="module")
def episode(world):
    """The fields of a demonstration, read as LIBERO's script does: `obs` after each action, upside down."""
    start = Start(task=TASK, state=0)
    plan = LiberoExpert(world).plan(start)
    assert plan.success
    still = np.zeros((2, 7), np.float32)
    still[:, 6] = 1.0
    played = np.concatenate([still, plan.actions])  # two no-ops at the beginning
    raw = played.astype(np.float64)
    raw[:, 6] = 1 - 2 * raw[:, 6]
    fields: dict[str, list] = {
        "states": [],
        "agentview_rgb": [],
        "ee_states": [],
        "gripper_states": [],
        "joint_states": [],
    }
    world.reset(start)
    sim = world.simulation.sim
    for action in played:
        fields["states"].append(sim.get_state().flatten())
        solved = world.step(action, look=True)
        seen = world.observe()
        fields["agentview_rgb"].append(np.rot90(seen.images["agentview"], 2))
        fields["ee_states"].append(seen.state[:6])
        fields["gripper_states"].append(seen.state[6:])
        fields["joint_states"].append(sim.data.qpos[:7].copy())
        if solved:
            break
    assert solved
    found = {key: np.stack(values) for key, values in fields.items()}
    return {"actions": raw[: len(found["states"])], **found}


@pytest.fixture
def file(tmp_path: Path, episode, libero_file):
    """`file(**changes)`: the episode in LIBERO's layout, some of its fields changed."""

    def write(**changes):
        values = episode | changes
        steps = len(values["actions"])
        fields = {
            f"obs__{key}" if key not in ("actions", "states") else key: value for key, value in values.items()
        }
        zeros = {"robot_states": np.zeros((steps, 9)), "rewards": np.zeros(steps), "dones": np.zeros(steps)}
        attrs = {"bddl_file_name": f"libero/bddl_files/libero_object/{NAME}.bddl", "num_demos": 1}
        return libero_file(
            tmp_path / f"{NAME}_demo.hdf5",
            attrs=attrs,
            obs__eye_in_hand_rgb=values["agentview_rgb"],
            **zeros,
            **fields,
        )

    return write


@pytest.fixture
def same_world(world, monkeypatch):
    monkeypatch.setattr(replay, "_env", lambda _: world)
    monkeypatch.setattr(replay, "make_env", lambda _: world)
    return lambda config: world


def marked(lines: list[str], mark: str = "FIX") -> list[str]:
    return [line.split()[1] for line in lines if line.startswith(mark)]


def test_replays_are_drawn_again_and_pass_as_a_dataset(tmp_path, world, file, episode, same_world):
    """What is written has our pictures, our gripper, no no-ops, and still knows where it began."""
    path = file()
    (stored,) = open_hdf5(path).demonstrations()
    assert len(stored.actions) == len(episode["actions"]) - 2
    (demo,) = replay.regenerated(ENV, path, count=1, seed=0)
    assert (demo.task, demo.instruction) == (TASK, "pick up the milk and place it in the basket")
    assert len(demo.actions) <= len(stored.actions)
    assert set(np.unique(demo.actions[:, 6])) == {0.0, 1.0}
    # The file's pictures are read upright and are those of the same control steps.
    difference = np.abs(stored.frames["agentview"][:60].astype(int) - demo.frames["agentview"][:60])
    assert difference.mean() < 5
    assert np.abs(stored.states[:60, :6] - demo.states[:60, :6]).max() < 0.02

    root = tmp_path / "set"
    write_recording(root, [demo], spec=world.spec, tasks=world.tasks)
    (read,) = open_recording(root).demonstrations()
    assert read.start == demo.start
    assert (read.frames["agentview"] == demo.frames["agentview"]).all()
    for recording in (root, path):
        lines, healthy = check_demo(recording, EnvConfig(), None, make=same_world)
        assert healthy, lines
        assert marked(lines) == []


def test_a_flipped_gripper_neither_passes_nor_teaches(file, episode, same_world):
    path = file(actions=episode["actions"] * [1, 1, 1, 1, 1, 1, -1])
    lines, healthy = check_demo(path, EnvConfig(), None, make=same_world)
    assert not healthy
    assert marked(lines)[:3] == ["replay", "gripper", "fingers"]
    with pytest.raises(
        UserError, match=r"no demonstration of 'pick up the milk.* succeeds when it is played again"
    ):
        list(replay.regenerated(ENV, path, count=1, seed=0))


def test_a_quaternion_in_another_order_and_pictures_upside_down(file, episode, same_world):
    vectors = episode["ee_states"][:, 3:]
    angle = np.linalg.norm(vectors, axis=1, keepdims=True)
    quaternion = np.roll(np.hstack([vectors / angle * np.sin(angle / 2), np.cos(angle / 2)]), 1, axis=1)
    half = np.arccos(np.clip(quaternion[:, 3:], -1, 1))
    wrong = quaternion[:, :3] / np.sin(half) * 2 * half
    path = file(
        ee_states=np.hstack([episode["ee_states"][:, :3], wrong]),
        agentview_rgb=np.rot90(episode["agentview_rgb"], 2, (1, 2)),
    )
    lines, healthy = check_demo(path, EnvConfig(), None, make=same_world)
    assert not healthy
    assert marked(lines) == ["rotation", "pictures"]
    assert "with its quaternion in another order" in " ".join(lines)
    assert "when turned by 180 degrees" in " ".join(lines)


def test_statistics_of_other_data(tmp_path, world, file, same_world):
    path = file()
    (demo,) = open_hdf5(path).demonstrations()
    own = compute(0.1 * demo.actions, demo.states, demonstrations=1, spec=world.spec)
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "dataset_statistics.json").write_text(own.to_json("other"))
    lines, healthy = check_demo(path, EnvConfig(), tmp_path / "policy", make=same_world)
    assert not healthy
    assert marked(lines) == ["statistics"]


def test_a_state_of_another_task(file, episode, same_world):
    path = file(states=np.column_stack([episode["states"], episode["states"][:, :2]]))
    with pytest.raises(UserError, match=r"does not fit .*numbers, not"):
        list(replay.regenerated(ENV, path, count=1, seed=0))
