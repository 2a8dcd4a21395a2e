"""`lastr1 drive` from the command line, against a real server in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.killed import ROOT
from lastr1.cli import main
from lastr1.config import DriveConfig, RobotConfig
from lastr1.serve.cameras import fit, open_cameras
from lastr1.serve.drive import _episodes
from lastr1.serve.robot import CameraLost, Dark, FakeRobot, RobotLost
from lastr1.types import ActionChunk, UserError

FAKE = ["drive", "franka", "--robot.cameras", "front=pattern", "--robot.image", "96", "96"]
SAY = ["--drive.instruction", "circle"]


@pytest.fixture
def circling():
    """The address of a server that makes one arm circle."""
    command = [sys.executable, "-m", "benchmarks.circle"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"ws://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def test_episodes_are_recorded(circling, tmp_path, capsys):
    knobs = ["--drive.seconds", "1", "--drive.episodes", "2", "--drive.record"]
    assert main([*FAKE, *SAY, *knobs, "--server", circling, "--out", str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["episode 0", "episode 1"]
    assert "20 control steps at 20 Hz" in lines[0]
    info = json.loads((tmp_path / "run" / "episodes" / "meta" / "info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["total_episodes"] == 2
    assert info["total_frames"] == 42
    assert (tmp_path / "run" / "drive.jsonl").exists()


def test_a_policy_for_another_robot_is_refused(circling, refused):
    line = refused("drive", "franka_dual", *SAY, "--server", circling)
    assert "camera" in line or "state" in line


def test_nobody_to_ask(refused):
    assert "start lastr1 serve" in refused(*FAKE, *SAY, "--server", "ws://127.0.0.1:9")


def test_it_has_to_be_told_what_to_do(refused):
    assert "--drive.instruction" in refused(*FAKE)


# ------------------------------------------------------------------------------------- between episodes


class Clock:
    """Passes only while somebody waits."""

    time = 0.0

    def now(self):
        return self.time

    def wait_until(self, moment):
        self.time = max(self.time, moment)


class Still:
    """A policy that decides at once, and not to move."""

    connected = True

    def decide(self, observation, deadline_s):
        return ActionChunk(actions=np.array([[0, 0, 0, 0, 0, 0, 1]] * 8, np.float32))


STATION = RobotConfig(hosts=("fake",), cameras=("front=pattern",), image=(96, 96))
BRIEF = DriveConfig(instruction="wait", seconds=0.05, episodes=2)


def test_a_decision_of_one_episode_is_not_played_in_the_next(tmp_path):
    """Each is over after the control step that asks: the answer comes when nobody waits for it."""
    clock = Clock()
    lines = _episodes(FakeRobot(STATION, clock), Still(), clock, BRIEF, tmp_path)
    assert [line.partition("time): ")[2].partition(";")[0] for line in lines] == ["1 thinking"] * 2


def recorded(folder):
    return json.loads((folder / "episodes" / "meta" / "info.json").read_text())


def test_an_episode_that_ends_in_the_dark_is_recorded(tmp_path):
    clock = Clock()
    robot = FakeRobot(STATION, clock, dark=(Dark(camera="front", since=0.29, until=99.0),))
    config = DriveConfig(instruction="wait", seconds=60.0, patience=0.5, episodes=2, record=True)
    lines = _episodes(robot, Still(), clock, config, tmp_path)
    assert "ended by patience" in lines[0]
    # of the second nothing was seen at all
    assert recorded(tmp_path)["total_episodes"] == 1
    assert recorded(tmp_path)["total_frames"] == 5 + 10 + 1


class Tired(FakeRobot):
    """Obeys for a while."""

    left = 40

    def command(self, action):
        self.left -= 1
        if self.left < 0:
            raise RobotLost("reflex")
        return super().command(action)


def test_an_episode_that_is_broken_off_takes_none_with_it(tmp_path):
    clock = Clock()
    config = DriveConfig(instruction="wait", seconds=0.5, episodes=3, record=True)
    with pytest.raises(RobotLost):
        _episodes(Tired(STATION, clock), Still(), clock, config, tmp_path)
    assert recorded(tmp_path)["total_episodes"] == 1


def test_the_key_is_read_from_a_file(refused, tmp_path):
    key = tmp_path / "key"
    assert "write the key on one line" in refused(*FAKE, *SAY, "--serve.api-key-file", key)


# ----------------------------------------------------------------------------------------------- cameras


def test_a_camera_that_ends_is_lost(tmp_path):
    path = tmp_path / "seen.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            image = np.full((48, 64, 3), 200, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    clock = Clock()
    config = RobotConfig(cameras=(f"film={path}", "empty=pattern"), image=(32, 32))
    cameras = open_cameras(config, clock)
    assert list(cameras) == ["film", "empty"]
    assert abs(int(cameras["film"].look().mean()) - 200) < 5
    assert cameras["film"].look().shape == cameras["empty"].look().shape == (32, 32, 3)
    clock.time = 0.31
    with pytest.raises(CameraLost, match="film"):
        cameras["film"].look()
    for camera in cameras.values():
        camera.close()


def test_a_camera_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"robot\.cameras"):
        open_cameras(RobotConfig(cameras=(f"front={tmp_path / 'none.mp4'}",)), Clock())


def test_the_window_is_in_the_middle():
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, 5:15] = 100
    np.testing.assert_array_equal(fit(image, (5, 5)), np.full((5, 5, 3), 100, np.uint8))
