"""Where things are in a LIBERO scene, from privileged state, and where to take hold of them.

Axes: N points of a surface, K candidate grasps.  Lengths in m, angles in rad, world coordinates.

LIBERO's collision shapes are boxes; every object is read as points on their surfaces, so one test (points in
the frame of the hand) answers both what the fingers would close on and what the hand would hit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

SPACING = 0.008
CROWDED = 0.3  # cost above which a grasp off the middle is looked for
BOX = 6  # mujoco's mjGEOM_BOX
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
"""The grip site's rotation when the hand points straight down and its fingers close along the world's y."""

OPENING = 0.036  # half the clear distance between the open fingers, with 2 mm to spare
FINGER = 0.064  # outer edge of the open fingers along the closing direction
FINGER_HALF = 0.014  # their half width across it
TIP = 0.012  # they end this far below the grip site (4 mm of metal, 8 mm of care)
PAD = 0.008  # half size of the pads that hold
PALM = 0.045  # the hand's body begins this far above the grip site
PALM_LONG, PALM_SHORT = 0.11, 0.04  # its half sizes along and across the closing direction
HAND = 0.25  # no part of a hand that holds an object is farther than that from the object's middle, sideways


def about_z(yaw: float) -> Points:
    """Rotation [3, 3] by `yaw` about the vertical."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def about_x(angle: float) -> Points:
    """Rotation [3, 3] about x."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def rotation_vector(rotation: Points) -> Points:
    """Axis times angle [3] of a rotation matrix, angle in 0..pi."""
    angle = float(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1.0, 1.0)))
    skew = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    if angle < 1e-6:
        return np.zeros(3)
    if np.pi - angle < 1e-3:  # the skew part vanishes: the axis is the eigenvector of eigenvalue 1
        return np.asarray(np.linalg.eigh((rotation + rotation.T) / 2)[1][:, -1] * angle)
    return np.asarray(angle / (2 * np.sin(angle)) * skew)


@dataclass(frozen=True, kw_only=True)
class Grasp:
    """Where the grip site goes, and how the hand is turned about the vertical."""

    site: Points
    """[3]"""
    yaw: float
    cost: float
    """About 0..0.5 for a free grasp; every point the hand would hit adds 0.05."""


class Scene:
    """A robosuite environment read as points."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self.model: Any = world.sim.model._model
        self.data: Any = world.sim.data._data
        self._grip = self.model.site("gripper0_grip_site").id
        self.objects = frozenset(world.objects_dict)
        self._local = {
            g: _box_surface(self.model.geom_size[g])
            for g in range(self.model.ngeom)
            if self.model.geom_type[g] == BOX and self.model.geom_group[g] == 0
        }

    def hand(self) -> tuple[Points, Points]:
        """Grip site [3] and rotation [3, 3] now (the controller's own frame)."""
        return self.data.site_xpos[self._grip].copy(), self.data.site_xmat[self._grip].reshape(3, 3).copy()

    def points(self, name: str, part: str = "") -> Points:
        """Surface [N, 3] of an object or fixture, or only of its bodies whose name holds `part`."""
        root = self.model.body_rootid[self._world.obj_body_id[name]]
        return self._gather(
            g
            for g in self._local
            if self.model.body_rootid[self._body(g)] == root and part in self.model.body(self._body(g)).name
        )

    def others(self, name: str) -> Points:
        """Surfaces [N, 3] of every object and fixture except `name`."""
        found = [self.points(other) for other in self._world.obj_body_id if other != name]
        return np.concatenate([np.zeros((0, 3)), *found])

    def site(self, name: str) -> Points:
        """Centre [3] of a region."""
        return np.array(self.data.site(name).xpos)

    def owner(self, region: str) -> str:
        """The object or fixture a region belongs to."""
        return str(self._world.object_sites_dict[region].parent_name)

    def joint_axis(self, name: str, part: str) -> Points:
        """World direction [3] of the first joint of `name` whose own name holds `part`."""
        return np.array(self.data.xaxis[self._joint(name, part)])

    def hinge(self, name: str) -> tuple[Points, float, Points]:
        """A door's hinge [3], its angle (rad, 0 is closed) and the rotation [3, 3] of what it hangs on."""
        joint = self._joint(name, "")
        frame = self.data.body(self._world.obj_body_id[name]).xmat.reshape(3, 3)
        return (
            self.data.xanchor[joint].copy(),
            float(self.data.qpos[self.model.jnt_qposadr[joint]]),
            frame.copy(),
        )

    def is_drawer(self, name: str) -> bool:
        """Whether this is the region of a drawer."""
        return name in self._world.object_sites_dict and bool(self._world.object_sites_dict[name].joints)

    def is_open(self, drawer: str) -> bool:
        """LIBERO's own word on it."""
        return bool(self._world.object_states_dict[drawer].is_open())

    def holds(self, predicate: tuple[str, ...]) -> bool:
        """LIBERO's own word on one predicate of a goal."""
        return bool(self._world._eval_predicate(list(predicate)))

    def _joint(self, name: str, part: str) -> int:
        for joint in range(self.model.njnt):
            label = self.model.joint(joint).name
            if label.startswith(name) and part in label:
                return joint
        raise ValueError(f"{name} has no joint {part}")

    def _body(self, geom: int) -> int:
        return int(self.model.geom_bodyid[geom])

    def _gather(self, geoms: Any) -> Points:
        found = [
            self._local[g] @ self.data.geom_xmat[g].reshape(3, 3).T + self.data.geom_xpos[g] for g in geoms
        ]
        return np.concatenate([np.zeros((0, 3)), *found])


def _box_surface(half: Points) -> Points:
    """Points [N, 3] on a box's six faces, at most `SPACING` apart."""
    lines = [np.linspace(-h, h, max(2, int(np.ceil(2 * h / SPACING)) + 1)) for h in half]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(grid[(np.abs(grid) > half - 1e-9).any(axis=1)])


def middle(points: Points) -> Points:
    """Centre [3] of the bounding box."""
    return np.asarray((points.min(axis=0) + points.max(axis=0)) / 2)


def best_grasp(own: Points, others: Points, tried: Sequence[Grasp] = ()) -> Grasp:
    """The cheapest way to take hold from above, unlike those `tried` in vain.  own [N, 3], others [M, 3].

    Through the object's middle; off it where neighbours leave no room for that.
    """
    best = _search(own, others, tried, (0.0,))
    if best.cost > CROWDED:
        best = min(best, _search(own, others, tried, (-0.03, -0.015, 0.015, 0.03)), key=lambda g: g.cost)
    return best


def _search(own: Points, others: Points, tried: Sequence[Grasp], asides: Sequence[float]) -> Grasp:
    """Over yaw, height, slide along the closing direction and shift `asides` across it."""
    centre, low, high = middle(own), own[:, 2].min(), own[:, 2].max()
    near = others[np.linalg.norm(others[:, :2] - centre[:2], axis=1) < HAND]
    heights = np.arange(max(high - 0.05, low + 0.006), max(high - 0.004, low + 0.007), 0.006)
    reach = np.ptp(own[:, :2], axis=0).max() / 2
    slides = np.unique(np.concatenate([[0.0], np.arange(-reach, reach + 1e-9, 0.005)]))
    best = Grasp(site=centre, yaw=0.0, cost=np.inf)
    for yaw, aside in product(np.linspace(-np.pi / 2, np.pi / 2, 25)[:-1], asides):
        frame = about_z(yaw)[:2, :2]
        shifted = centre[:2] + frame @ np.array([aside, 0.0])
        local_own = np.column_stack([(own[:, :2] - shifted) @ frame, own[:, 2]])
        local_near = np.column_stack([(near[:, :2] - shifted) @ frame, near[:, 2]])
        for height, slide in product(heights, slides):
            detour = 0.02 * abs(yaw) + 1.5 * abs(aside)
            left = best.cost - detour
            cost = detour + _cost(local_own, local_near, slide, float(height), centre[2], left)
            if cost < best.cost:
                site = np.array([*(shifted + frame @ np.array([0.0, slide])), height])
                grasp = Grasp(site=site, yaw=float(yaw), cost=float(cost))
                if not any(_alike(grasp, other) for other in tried):
                    best = grasp
    return best


def _alike(a: Grasp, b: Grasp) -> bool:
    """Whether two grasps, one of which failed, are nearly the same."""
    return bool(np.linalg.norm(a.site - b.site) < 0.012) and abs(a.yaw - b.yaw) < 0.3


def way_out(own: Points, others: Points) -> Points:
    """Shortest horizontal way [3] out from under what hangs over an object; zero when nothing does.

    own [N, 3], others [M, 3].
    """
    centre, high = middle(own), own[:, 2].max()
    reach = np.linalg.norm(own[:, :2] - centre[:2], axis=1).max() + 0.01
    above = others[others[:, 2] > high][:, :2] - centre[:2]
    for way in np.arange(0.0, 0.2, 0.01):
        for angle in np.linspace(0.0, 2 * np.pi, 24, endpoint=False):
            shift = way * np.array([np.cos(angle), np.sin(angle)])
            if not (np.linalg.norm(above - shift, axis=1) < reach).any():
                return np.array([*shift, 0.0])
    return np.zeros(3)


def _cost(
    own: Points, near: Points, slide: float, height: float, middle_height: float, limit: float
) -> float:
    """What one grasp costs, in the hand's frame: columns are across, along the closing direction, height.

    Infinite from `limit` on: what the hand would hit, the slow part, is then not counted.
    """
    along = own[:, 1] - slide
    held = along[
        (np.abs(own[:, 0]) < PAD) & (np.abs(own[:, 2] - height - 0.004) < PAD) & (np.abs(along) < OPENING)
    ]
    if len(held) < 2:
        return np.inf
    squeeze = abs(float(held.max() + held.min())) / 2  # the fingers push the object (or the arm) this far
    lever = abs(slide) + 0.5 * abs(height - middle_height)
    width = float(held.max() - held.min())  # a narrow hold is a straight one: not across a corner
    cost = 3.0 * squeeze + 1.5 * lever + 2.5 * width
    if cost >= limit:
        return np.inf
    hit = _hits(own[:, 0], along, own[:, 2] - height) + _hits(
        near[:, 0], near[:, 1] - slide, near[:, 2] - height
    )
    return cost + 0.05 * hit


def _hits(across: Points, along: Points, up: Points) -> int:
    """How many points lie where the hand comes down."""
    fingers = (
        (up > -TIP) & (np.abs(along) > OPENING) & (np.abs(along) < FINGER) & (np.abs(across) < FINGER_HALF)
    )
    palm = (up > PALM) & (np.abs(along) < PALM_LONG) & (np.abs(across) < PALM_SHORT)
    return int(np.count_nonzero(fingers | palm))
