"""The arms of franky-sim, and where their tools are to circle."""

import numpy as np

from lastr1.config import RobotConfig

CENTRE = np.array([0.45, 0.0, 0.40])  # m
RADIUS = 0.06  # m


def station(arms: int) -> RobotConfig:
    """Arms of franky-sim, without real-time priorities and without cameras."""
    return RobotConfig(
        hosts=("127.0.0.1", "127.0.0.2")[:arms],
        bases=((0.0, 0.4, 0.0, 0.0), (0.0, -0.4, 0.0, 0.0))[:arms],
        cameras=("front=pattern",),
        image=(96, 96),
        realtime=False,
    )
