"""Played by tests in an environment of its own: PyPI's `openpi-client` and numpy below 2, nothing of ours but
the embedded world.

    python openpi_robot.py PORT NAMES [KEY]      NAMES: lastr1, libero or droid

One line of JSON per episode or exchange goes to standard output.
"""

import json
import sys
import time

import numpy as np
from openpi_client import websocket_client_policy

from lastr1.envs.tabletop import TabletopEnv
from lastr1.types import ActionChunk, Start

TASKS = (0, 3, 10)
"""of `tabletop_base`"""


def ours(seen):
    return {
        "observation/images/front": seen.images["front"],
        "observation/state": seen.state,
        "prompt": seen.instruction,
    }


def libero(seen):
    return {
        "observation/image": seen.images["front"],
        "observation/wrist_image": np.zeros_like(seen.images["front"]),
        # LIBERO's clients call an open gripper -1 and a closed one +1
        "observation/state": np.append(seen.state[:3], 1 - 2 * seen.state[3]),
        "prompt": seen.instruction,
    }


def droid(seen):
    return {
        "observation/exterior_image_1_left": seen.images["front"],
        "observation/wrist_image_left": np.zeros_like(seen.images["front"]),
        "observation/joint_position": seen.state[:3],
        "observation/gripper_position": np.array([1 - seen.state[3]]),
        "prompt": seen.instruction,
    }


NAMES = {
    "lastr1": (ours, lambda g: g),
    "libero": (libero, lambda g: (1 - g) / 2),
    "droid": (droid, lambda g: 1 - g),
}
"""naming -> request, and open fraction of a gripper's command"""


def main(port, names, key=None):
    ask, opened = NAMES[names]
    policy = websocket_client_policy.WebsocketClientPolicy("ws://127.0.0.1", int(port), key)
    greeting = policy.get_server_metadata()
    env = TabletopEnv("tabletop_base", size=96)
    for task in TASKS:
        outcome, seen, trips = None, env.reset(Start(task=task, seed=1)), []
        while outcome is None or not (outcome.terminated or outcome.truncated):
            began = time.perf_counter()
            reply = policy.infer(ask(seen))
            trips.append(1000 * (time.perf_counter() - began))
            actions = reply["actions"].copy()
            actions[:, 3] = opened(actions[:, 3])
            outcome = env.play(ActionChunk(actions=actions))
            seen = outcome.observation
        line = {
            "task": task,
            "success": outcome.terminated,
            "trips_ms": trips,
            "robot": greeting["robot"]["name"],
        }
        print(json.dumps({**line, "timing": reply["server_timing"]}), flush=True)
    try:
        policy.infer({"prompt": "nothing to see"})
    except RuntimeError as error:
        print(json.dumps({"refused": str(error)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
