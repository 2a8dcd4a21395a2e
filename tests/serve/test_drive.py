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
from lastr1.config import RobotConfig
from lastr1.serve.cameras import fit, open_cameras
from lastr1.serve.robot import CameraLost
from lastr1.types import UserError

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


# ----------------------------------------------------------------------------------------------- cameras


class Clock:
    time = 0.0

    def now(self):
        return self.time


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
