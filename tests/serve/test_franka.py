"""Franka arms: without franky a line says what to do; with franky-sim they follow a served policy."""

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from lastr1.cli import main
from lastr1.config import RobotConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.franka import ROOT, measure

VARIABLE = "LASTR1_FRANKY_PYTHON"
PYTHON = os.environ.get(VARIABLE)
simulated = pytest.mark.skipif(
    PYTHON is None,
    reason=f"{VARIABLE} does not name the python of an environment with franky-sim (docs/ROBOTS.md)",
)


@pytest.mark.skipif(importlib.util.find_spec("franky") is not None, reason="franky is installed here")
def test_without_franky_a_line_says_what_to_install(capsys):
    assert main(["drive", "franka", "--robot", "franka", "--drive.instruction", "move"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "lastr1[franka]" in err


class Stiff(Exception):
    """What a hand raises that is busy or out of reach."""


class Hand:
    """A gripper that fails the first time it is told something."""

    max_width = width = 0.08

    def __init__(self, host):
        self.tries, self.closed = 0, threading.Event()

    def grasp_async(self, *_):
        self.tries += 1
        if self.tries == 1:
            raise Stiff("busy")
        self.closed.set()
        return SimpleNamespace(wait=lambda seconds: True)


def test_a_gripper_that_failed_once_is_told_again(monkeypatch):
    mode = SimpleNamespace(Reflex=1, UserStopped=2, Other=3)
    stub = SimpleNamespace(Exception=Stiff, RobotMode=mode, Gripper=Hand)
    monkeypatch.setitem(sys.modules, "franky", stub)
    monkeypatch.delitem(sys.modules, "lastr1.serve.franka", raising=False)
    gripper = importlib.import_module("lastr1.serve.franka")._Gripper("host", RobotConfig())
    monkeypatch.delitem(sys.modules, "lastr1.serve.franka")
    gripper.wanted = 0.0
    assert gripper._hand.closed.wait(10)
    gripper.close()
    assert gripper._hand.tries == 2


@simulated
@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("arms", [1, 2])
def test_arms_follow_a_served_policy(arms):
    """A busy machine simulates slowly; what is asked of the loop and of the limits holds all the same."""
    found = measure(PYTHON, arms, 6.0, ahead=4)
    assert found["steps"] == 120
    assert found["why"]["chunk"] > 90
    assert found["jumps"] == 0
    assert found["moved_mm"] > 20
    assert found["lag_mm"]["0.5"] < 120


REFUSED = """
from dataclasses import replace
from benchmarks.station import station
from lastr1.serve.franka import FrankaRobot
from lastr1.serve.runtime import SystemClock
from lastr1.types import UserError
try:
    FrankaRobot(replace(station(1), hosts=("127.0.0.9",)), SystemClock())
except UserError as error:
    print(error)
"""


@simulated
@pytest.mark.sim
def test_an_arm_that_is_not_there():
    done = subprocess.run(
        [PYTHON, "-c", REFUSED], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.startswith("no Franka arm at 127.0.0.9")
    assert len(done.stdout.splitlines()) == 1
