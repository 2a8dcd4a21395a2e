"""A real server, killed while a robot moves."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.killed import killed


@pytest.mark.parametrize("ahead", [0, 4])
def test_the_next_control_step_holds(ahead):
    steps, _, last = killed(after=12, ahead=ahead)
    assert steps[last].why == "chunk"
    assert np.abs(steps[last].executed.action[:3]).max() > 1e-3  # it was moving
    assert all(step.wanted is None for step in steps[last + 1 :])
    assert steps[-1].why == "no server"
    speeds = [float(np.linalg.norm(step.executed.action[:3])) for step in steps[last:]]
    assert speeds[1] < speeds[0]
    assert speeds[8:] == [0.0] * len(speeds[8:])
