"""`lastr1 doctor --demo` on files of LIBERO's layout, with a simulator that takes no time."""

from dataclasses import replace

import numpy as np
import pytest

from lastr1.config import EnvConfig
from lastr1.demos.dataset import Demonstration
from lastr1.demos.lerobot_writer import write_recording
from lastr1.envs.libero_stack import libero_spec
from lastr1.report import conventions
from lastr1.report.conventions import check_demo
from lastr1.spec import Camera
from lastr1.types import Observation, Outcome


def marked(lines, mark="FIX"):
    """Names of the facts with that mark."""
    return [line.split()[1] for line in lines if line.startswith(mark)]


class Arm:
    """LIBERO's robot without its physics: it moves as told; the task is to close the fingers above 0.2 m."""

    tasks, stored_states, cap = ("open the middle drawer of the cabinet",), 0, 100

    def __init__(self, config):
        self.spec = libero_spec(image=config.image)
        self.rotation = np.array([3.0, 0.3, -0.2])
        self.rng = np.random.default_rng(0)
        self.scene = self.rng.integers(0, 255, (config.image, config.image, 3), dtype=np.uint8)

    def reset(self, start):
        self.place, self.width = np.array(start.placed[:3]) if start.placed else np.zeros(3), 0.04
        return self.look()

    def look(self):
        state = np.concatenate([self.place, self.rotation, [self.width, -self.width]])
        return Observation(
            images={"agentview": self.scene}, state=state.astype(np.float32), instruction=self.tasks[0]
        )

    def play(self, chunk):
        steps = 0
        for action in chunk.actions:
            steps += 1
            self.place = self.place + 0.05 * action[:3]
            before, self.width = self.width, 0.04 * float(action[6] > 0.5)
            done = self.width < before and self.place[2] > 0.2
            if done:
                break
        return Outcome(
            observation=self.look(), reward=float(done), terminated=done, truncated=False, steps=steps
        )

    def close(self):
        pass


@pytest.fixture
def libero_arm(tmp_path, libero_file):
    """`libero_arm(order, turned, sign)`: a file of LIBERO's layout that the arm's simulator would write."""

    def write(*, order=(0, 1, 2, 3), turned=True, sign=1.0):
        arm = Arm(EnvConfig(image=8))
        actions = np.zeros((12, 7))
        actions[:, 2], actions[:, 6] = 0.5, np.where(np.arange(12) < 9, -1, 1)
        quaternion = conventions._quaternion(arm.rotation)[list(order)]
        angle = 2 * np.arccos(np.clip(quaternion[3], -1, 1))
        vector = quaternion[:3] / np.sin(angle / 2) * angle
        after = 0.025 * np.arange(1, 13)
        place = np.column_stack([0 * after, 0 * after, after])
        width = np.where(actions[:, 6] > 0, 0.0, 0.04)
        states = np.zeros((12, 20))
        states[:, ARM] = np.arange(12)[:, None]
        states[0, :3] = 0
        actions[:, 6] *= sign
        return libero_file(
            tmp_path / "x_demo.hdf5",
            actions=actions,
            states=states,
            obs__ee_states=np.column_stack([place, np.tile(vector, (12, 1))]),
            obs__gripper_states=np.column_stack([width, -width]),
            obs__agentview_rgb=np.tile(np.rot90(arm.scene, 2) if turned else arm.scene, (12, 1, 1, 1)),
        )

    return write


ARM = slice(1, 8)


def test_liberos_own_file(libero_arm):
    lines, healthy = check_demo(libero_arm(), EnvConfig(), None, make=Arm)
    assert healthy
    assert marked(lines) == marked(lines, "note") == []
    assert "is solved after 10 of 12 control steps" in lines[1]


@pytest.mark.parametrize(
    ("changes", "wrong", "words"),
    [
        ({"order": (3, 0, 1, 2)}, ["rotation"], "with its quaternion in another order"),
        ({"order": (1, 2, 3, 0)}, ["rotation"], "with its quaternion in another order"),
        ({"order": (2, 1, 0, 3)}, ["rotation"], "the state holds an axis-angle vector"),
        ({"turned": False}, ["pictures"], "when turned by 180 degrees"),
        ({"sign": -1.0}, ["replay", "gripper", "fingers"], "the other way round it succeeds"),
    ],
)
def test_liberos_conventions(libero_arm, changes, wrong, words):
    lines, healthy = check_demo(libero_arm(**changes), EnvConfig(), None, make=Arm)
    assert not healthy
    assert marked(lines) == wrong
    assert words in " ".join(lines)


@pytest.mark.parametrize("turned", [False, True])
def test_a_public_dataset_is_compared_as_far_as_it_goes(tmp_path, turned):
    """Downloaded datasets do not say where episodes began; their pictures and rotation can be looked at."""
    arm = Arm(EnvConfig(image=16))
    frame = np.rot90(arm.scene, 2) if turned else arm.scene
    states = np.tile(np.float32([0, 0, 1, *arm.rotation, 0.04, -0.04]), (9, 1))
    states[5:, 6:] = 0
    actions = np.zeros((8, 7), np.float32)
    actions[:, 0], actions[:, 6] = np.linspace(-0.9, 0.9, 8), np.where(np.arange(8) < 4, -1, 1)
    demo = Demonstration(
        task=0,
        instruction=Arm.tasks[0],
        frames={"image": np.stack([frame] * 9)},
        states=states,
        actions=actions,
    )
    cameras = (Camera(name="image", height=16, width=16),)
    spec = replace(arm.spec, name="panda", cameras=cameras, rate=10.0)
    write_recording(tmp_path / "set", [demo], spec=spec, tasks=Arm.tasks)
    lines, healthy = check_demo(tmp_path / "set", EnvConfig(), None, make=Arm)
    assert healthy is not turned
    assert marked(lines) == (["pictures"] if turned else [])
    assert marked(lines, "note") == ["replay"]
    assert "rotation      0.00 rad" in " ".join(lines)


def test_mistakes_on_the_command_line(tmp_path, libero_file, refused):
    """One line each, which names the file."""
    file = libero_file(tmp_path / "x_demo.hdf5")
    missing = tmp_path / "no_demo.hdf5"
    out = ("--out", tmp_path / "out")
    assert "shows no task of tabletop" in refused("collect", "tabletop", "--demos", file, *out)
    assert "shows no task of tabletop" in refused(
        "warmup", "tabletop", "--demos", file, "--out", tmp_path / "run"
    )
    assert "no_demo.hdf5 is missing" in refused("doctor", "--demo", missing)
    assert "no_demo.hdf5 is missing" in refused("collect", "tabletop", "--demos", missing, *out)
    (tmp_path / "empty").mkdir()
    assert "meta/info.json is missing" in refused("collect", "tabletop", "--demos", tmp_path / "empty", *out)
    assert "meta/info.json is missing" in refused("doctor", "--demo", tmp_path / "empty")
    assert not (tmp_path / "out" / "meta").exists()
