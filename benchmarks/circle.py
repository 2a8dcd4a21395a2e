"""A policy server whose policy is a few lines: every tool circles, gripper shut on one half of the circle.

python -m benchmarks.circle --arms 2 [--think 0.05] prints the port and serves until it is ended.
Axes: C control steps per chunk, R arms.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.station import CENTRE, RADIUS, station
from lastr1.config import ServeConfig
from lastr1.serve.batcher import Batch, Batcher, Cost, Costs
from lastr1.serve.robot import robot_spec
from lastr1.serve.server import PolicyServer
from lastr1.serve.wire import Greeting
from lastr1.spec import RobotSpec
from lastr1.types import ActionChunk, Observation

CHUNK = 8
TURN = 4.0  # seconds
LARGEST = 0.012  # m per control step


class Circle:
    """Decides from the state alone; takes `think` seconds."""

    groups = 1

    def __init__(self, spec: RobotSpec, think: float) -> None:
        self._spec, self._think = spec, think

    def decide(self, observations: Sequence[Observation], cap: int) -> Batch:
        time.sleep(self._think)
        chunks = tuple(ActionChunk(actions=self._chunk(seen)) for seen in observations)
        return Batch(chunks=chunks, groups=(cap,) * len(chunks), ran=cap)

    def _chunk(self, seen: Observation) -> np.ndarray:
        arms = seen.state.reshape(-1, 14)
        places = arms[:, :3].astype(np.float64)
        rows = []
        for _ in range(CHUNK):
            offset = places[:, 1:3] - CENTRE[1:3]
            angle = np.arctan2(offset[:, 1], offset[:, 0]) + 2 * np.pi / (TURN * self._spec.rate)
            goal = CENTRE + RADIUS * np.stack([0 * angle, np.cos(angle), np.sin(angle)], axis=1)
            move = np.clip(goal - places, -LARGEST, LARGEST)
            places = places + move
            grip = (np.cos(angle) > 0).astype(np.float64)[:, None]
            rows.append(np.concatenate([move, np.zeros_like(move), grip], axis=1).ravel())
        return np.array(rows, np.float32)


async def _serve(spec: RobotSpec, think: float) -> None:
    greeting = Greeting(robot=spec, chunk=CHUNK, groups=1, latents_per_group=1, deadline_ms=1000.0)
    costs = Costs({1: Cost(alone=think, further=0.0)})
    server = PolicyServer(Batcher(Circle(spec, think), costs, 8), greeting, ServeConfig(port=0))
    await server.run(asyncio.Event(), lambda port: print(port, flush=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", type=int, default=1)
    parser.add_argument("--think", type=float, default=0.05)
    asked = parser.parse_args()
    asyncio.run(_serve(robot_spec(station(asked.arms), "circle"), asked.think))


if __name__ == "__main__":
    main()
