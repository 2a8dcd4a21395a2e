"""Kinematics of a seven-joint Franka arm: where the tool is, and how it moves with the joints.

Denavit-Hartenberg parameters (Craig's convention), joint limits and the hand's length are Franka Robotics'
published ones of the Research 3.  Positions in m, angles in rad, in the frame of the arm's base.
"""

from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

_A = (0.0, 0.0, 0.0, 0.0825, -0.0825, 0.0, 0.088)
_D = (0.333, 0.0, 0.316, 0.0, 0.384, 0.0, 0.0)
_ALPHA = (0.0, -np.pi / 2, np.pi / 2, np.pi / 2, -np.pi / 2, np.pi / 2, np.pi / 2)
_TOOL = 0.107 + 0.1034  # flange, then the point between the fingertips
JOINT_LOW = np.array([-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159])
JOINT_HIGH = np.array([2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159])
DRIVEN_HIGH = np.minimum(JOINT_HIGH, [9, 9, 9, -0.9, 9, 3.0, 9])
"""how far joints are driven: with the arm stretched out (joint 4 at -0.467) or the hand folded back (joint 6
near 3.3) a tool loses a direction, and joints race on the way there; the workspace is 2 cm smaller for it"""
READY = np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4])
"""the pose in which the tool points straight down, 0.31 m in front of the base"""
DAMPING = 0.02
"""of the pseudo-inverse: joints slow down near a singularity instead of racing"""


def _links() -> Doubles:
    """[7, 4, 4]: the part of every joint's transform that does not depend on its angle."""
    links = np.zeros((7, 4, 4))
    for link, a, d, alpha in zip(links, _A, _D, _ALPHA, strict=True):
        sin, cos = np.sin(alpha), np.cos(alpha)
        link[:] = [[1, 0, 0, a], [0, cos, -sin, -sin * d], [0, sin, cos, cos * d], [0, 0, 0, 1]]
    return links


_LINKS = _links()


def forward(joints: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Tool position [3], tool orientation [3, 3] and Jacobian [6, 7] (m and rad per rad)."""
    turns = np.tile(np.eye(4), (7, 1, 1))
    turns[:, 0, 0] = turns[:, 1, 1] = np.cos(joints)
    turns[:, 1, 0] = np.sin(joints)
    turns[:, 0, 1] = -turns[:, 1, 0]
    chain = np.stack(list(accumulate(_LINKS @ turns, np.matmul)))
    axes, origins, frame = chain[:, :3, 2], chain[:, :3, 3], chain[-1]
    position = frame[:3, 3] + _TOOL * frame[:3, 2]
    arms = position - origins
    # the cross product of every axis with its arm, without np.cross, which is slow for a few rows
    swing = axes[:, [1, 2, 0]] * arms[:, [2, 0, 1]] - axes[:, [2, 0, 1]] * arms[:, [1, 2, 0]]
    jacobian: Doubles = np.concatenate([swing, axes], axis=1).T
    return position, frame[:3, :3].copy(), jacobian


def damped_inverse(jacobian: Doubles) -> Doubles:
    """[7, 6]: the joint angles that a small move of the tool takes (damped least squares)."""
    return np.asarray(np.linalg.solve(jacobian @ jacobian.T + DAMPING**2 * np.eye(6), jacobian).T, np.float64)


def rotation_vector(rotation: Doubles) -> Doubles:
    """Axis times angle [3] of a rotation matrix [3, 3], rad; the angle is in 0..pi."""
    skew = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    sine, cosine = np.sqrt(skew @ skew) / 2, (np.trace(rotation) - 1) / 2
    if sine > 1e-8:
        return np.asarray(skew * (np.arctan2(sine, cosine) / (2 * sine)))
    if cosine > 0:
        return np.asarray(skew / 2)
    # half a turn: the axis is the column of (R + 1) / 2 that is longest
    columns = (rotation + np.eye(3)) / 2
    axis = columns[:, int(np.argmax(np.diag(columns)))]
    vector: Doubles = np.pi * axis / np.sqrt(axis @ axis)
    return vector


def turned(vectors: Doubles) -> Doubles:
    """Rotation matrices [..., 3, 3] of rotation vectors [..., 3] (Rodrigues' formula)."""
    angle = np.sqrt(np.einsum("...i,...i", vectors, vectors))[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    skew = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vectors.shape, 3)
    half = np.sinc(angle / (2 * np.pi))
    rotation: Doubles = np.eye(3) + np.sinc(angle / np.pi) * skew + 0.5 * half**2 * (skew @ skew)
    return rotation


UPRIGHT = forward(READY)[1]
"""[3, 3] orientation that counts as not turned: that of `READY`"""
