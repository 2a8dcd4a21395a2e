"""Arms of franky-sim follow a served policy: python -m benchmarks.franka --python PYTHON [--arms 2].

PYTHON is that of an environment with franky-sim, franky-control, av, pillow and msgpack.  Processes:
the simulated controllers and the driver there, the policy server here.  Prints one JSON object.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.station import station

ROOT = Path(__file__).resolve().parents[1]

CONTROLLER = """
import sys
from franky_sim import SimulationServer
from franky_sim.mujoco_simulator import MujocoSimulator
with MujocoSimulator() as simulator:
    simulator.add_robot()
    with SimulationServer(simulator, hostname_candidates=[sys.argv[1]]) as server:
        print("ready", flush=True)
        server.run_forever()
"""

DRIVER = """
import json, sys, time
from pathlib import Path
import numpy as np
from benchmarks.station import CENTRE, RADIUS, station
from lastr1.config import Config, DriveConfig
from lastr1.serve.client import PolicyClient
from lastr1.serve.franka import FrankaRobot
from lastr1.serve.runtime import BackgroundThinker, Loop, SystemClock
arms, seconds, server, ahead = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4])
clock = SystemClock()
robot = FrankaRobot(station(arms), clock)
place = robot.observe().state.reshape(arms, 14)[:, :3].astype(float)
config = DriveConfig(instruction="circle", seconds=seconds, ahead=ahead, blend="soft" if ahead else "none")
begun, states, told = [], [], []
def listen(step):
    begun.append(clock.now())
    if step.observation is not None:
        states.append(step.observation.state.reshape(arms, 14))
        told.append(place.copy())
    place[:] += step.executed.action.reshape(arms, 7)[:, :3]
simulated = robot._arms[0].state.time.to_msec()
with PolicyClient(server, timeout_s=5) as policy:
    policy.match(robot.spec)
    thinker = BackgroundThinker(policy, 1.0)
    driven = Loop(robot, thinker, clock, config).run(listen)
    thinker.close()
simulated = (robot._arms[0].state.time.to_msec() - simulated) / 1000
robot.close()
period = np.diff(begun) * 1000
late = np.array(driven.late) * 1000
states = np.array(states)
half = len(states) // 2
radius = np.linalg.norm(states[half:, :, 1:3] - CENTRE[1:3], axis=-1)
lag = np.linalg.norm(np.array(told) - states[:, :, :3], axis=-1) * 1000
print(json.dumps({
    "arms": arms, "steps": driven.steps, "why": driven.why, "clipped": driven.clipped, "jumps": driven.jumps,
    "rate_hz": round(1000 / period.mean(), 3),
    "period_ms": {q: round(float(np.quantile(period, float(q))), 2) for q in ("0.01", "0.5", "0.99", "1")},
    "late_ms": {q: round(float(np.quantile(late, float(q))), 2) for q in ("0.5", "0.99", "1")},
    "lag_mm": {q: round(float(np.quantile(lag, float(q))), 1) for q in ("0.5", "0.99", "1")},
    "radius_mm": [round(float(x) * 1000, 1) for x in (radius.mean(), radius.std())],
    "wanted_radius_mm": RADIUS * 1000,
    "moved_mm": round(float(np.ptp(states[:, :, :3], axis=0).max()) * 1000, 1),
    "gripper": [round(float(states[half:, :, 6].min()), 2), round(float(states[half:, :, 6].max()), 2)],
    "simulated_seconds": round(simulated, 2),
    "seconds": round(begun[-1] - begun[0], 2),
}))
"""


@contextlib.contextmanager
def started(*command: str) -> Iterator[str]:
    """A process that is ended with the block; what it printed first."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def measure(python: str, arms: int, seconds: float, ahead: int) -> dict[str, object]:
    """Drive, and return the driver's figures."""
    with contextlib.ExitStack() as stack:
        for host in station(arms).hosts:  # a process each: one has not the speed for two arms in real time
            assert stack.enter_context(started(python, "-c", CONTROLLER, host)) == "ready"
        server = (sys.executable, "-m", "benchmarks.circle", "--arms", str(arms))
        port = stack.enter_context(started(*server))
        done = subprocess.run(
            [python, "-c", DRIVER, str(arms), str(seconds), f"ws://127.0.0.1:{port}", str(ahead)],
            cwd=ROOT, capture_output=True, text=True, timeout=60 + seconds, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=os.environ.get("LASTR1_FRANKY_PYTHON"))
    parser.add_argument("--arms", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--ahead", type=int, default=4)
    asked = parser.parse_args()
    if asked.python is None:
        parser.error("--python, or LASTR1_FRANKY_PYTHON: an environment with franky-sim")
    print(json.dumps(measure(asked.python, asked.arms, asked.seconds, asked.ahead)))


if __name__ == "__main__":
    main()
