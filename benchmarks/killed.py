"""A policy server is killed (SIGKILL) while a fake robot moves: python -m benchmarks.killed [--times 20].

How long until the robot holds, in control steps and milliseconds; every time with a new server.
"""

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.station import station
from lastr1.config import DriveConfig
from lastr1.serve.client import PolicyClient
from lastr1.serve.robot import FakeRobot
from lastr1.serve.runtime import BackgroundThinker, ControlStep, Loop, SystemClock

ROOT = Path(__file__).resolve().parents[1]


def killed(after: int, ahead: int = 0, arms: int = 1) -> tuple[list[ControlStep], list[float], int]:
    """Every control step, when it was over (s since the kill), and the one after which the server was killed.

    It is killed after control step `after`, or after the first one later that played the third action of a
    chunk (or, thinking ahead, any).
    """
    clock = SystemClock()
    robot = FakeRobot(station(arms), clock)
    config = DriveConfig(instruction="circle", seconds=(after + 30) / robot.spec.rate, ahead=ahead)
    command = [sys.executable, "-m", "benchmarks.circle", "--arms", str(arms)]
    steps: list[ControlStep] = []
    moments: list[float] = []
    dead: list[int] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()

        def listen(step: ControlStep) -> None:
            steps.append(step)
            moments.append(clock.now())
            played = [s.why == "chunk" for s in steps]
            middle = all(played[-3:]) and (ahead > 0 or not played[-4])
            if len(steps) >= after and middle and not dead:
                dead.append(len(steps) - 1)
                server.kill()
                server.wait()
                moments[-1] = clock.now()

        try:
            with PolicyClient(f"ws://127.0.0.1:{port}", timeout_s=10.0) as policy:
                thinker = BackgroundThinker(policy, 1.0)
                Loop(robot, thinker, clock, config).run(listen)
                thinker.close()
        finally:
            server.kill()
    return steps, [moment - moments[dead[0]] for moment in moments], dead[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    waited, late = [], []
    for number in range(parser.parse_args().times):
        steps, moments, last = killed(after=20 + number % 7, ahead=4 * (number % 2))
        first = next(i for i in range(last + 1, len(steps)) if steps[i].wanted is None)
        waited.append(first - last)
        late.append(moments[first] * 1000)
    print(f"control steps until the robot held: {dict(Counter(waited))}")
    print(f"milliseconds: p50 {np.median(late):.1f}, most {max(late):.1f} (a control step is 50)")


if __name__ == "__main__":
    main()
