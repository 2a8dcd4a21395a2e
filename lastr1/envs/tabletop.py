"""The embedded world as an environment: numpy only, rendered camera, one or two arms, tasks by colour."""

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from lastr1.envs.base import Setup, Start
from lastr1.envs.tabletop_tasks import SUITES, Task, scene, solved
from lastr1.envs.tabletop_things import TABLE
from lastr1.envs.tabletop_view import EYE, MOVED, View
from lastr1.envs.tabletop_world import CEILING, World
from lastr1.spec import Camera, Dim, RobotSpec
from lastr1.types import ActionChunk, Image, Observation, Outcome, UserError

STORED_STATES = 50
CAPS = {False: 80, True: 128}  # control steps, with one arm and with two: at least twice what an expert needs


def robot(*, dual: bool, size: int) -> RobotSpec:
    """The gripper (or two): it moves, 3 cm per control step at 1, and opens; it points down and never turns.

    Translations beyond -1..1 are clipped.  Gripper commands of 0.75 and more open, of 0.25 and less close,
    and any in between keep the last command: so that the hold action neither drops nor grabs anything.
    """
    state, action = [], []
    for prefix in ("left_", "right_") if dual else ("",):
        state += [Dim(name=f"{prefix}{axis}", unit="m", low=-TABLE, high=TABLE) for axis in "xy"]
        state.append(Dim(name=f"{prefix}z", unit="m", low=0.0, high=CEILING))
        state.append(Dim(name=f"{prefix}gripper", unit="open fraction", low=0.0, high=1.0))
        action += [Dim(name=f"{prefix}{axis}", unit="controller", low=-1.0, high=1.0) for axis in "xyz"]
        action.append(Dim(name=f"{prefix}gripper", unit="open fraction", low=0.0, high=1.0, binary=True))
    return RobotSpec(
        name="tabletop_dual" if dual else "tabletop",
        cameras=(Camera(name="front", height=size, width=size),),
        state=tuple(state),
        action=tuple(action),
        rate=20.0,
        hold=(0.0, 0.0, 0.0, 0.5) * (2 if dual else 1),
    )


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """An episode at one moment, to come back to."""

    task: int
    world: World
    steps: int
    over: bool


class TabletopEnv:
    """A suite of the embedded world: `tabletop`, `tabletop_base`, `tabletop_dual` or `tabletop_dual_base`.

    The camera of `tabletop` stands elsewhere than that of `tabletop_base`: target tasks are done in another
    cell than the one the base was taught in.
    """

    def __init__(self, suite: str, size: int = 128) -> None:
        """`size`: width and height of the camera image in pixels; `UserError` names an unknown suite."""
        if suite not in SUITES:
            raise UserError(f"no tabletop suite {suite!r}: choose one of {', '.join(SUITES)}")
        self.suite = suite
        self.kinds = SUITES[suite]
        self.dual = suite.startswith("tabletop_dual")
        self.spec = robot(dual=self.dual, size=size)
        self.tasks = tuple(task.instruction for task in self.kinds)
        self.stored_states = STORED_STATES
        self.cap = CAPS[self.dual]
        self._size = size
        self.eye = MOVED if suite == "tabletop" else EYE
        self._views: dict[int, View] = {}
        self._limits = np.array([(dim.low, dim.high) for dim in self.spec.action]).T
        self._task, self._steps = 0, 0
        self._world: World | None = None
        self._over = False

    @property
    def world(self) -> World:
        """The physics now, for experts and tests; `RuntimeError` before the first reset."""
        if self._world is None:
            raise RuntimeError("reset the environment first")
        return self._world

    @property
    def task(self) -> Task:
        """The task of this episode."""
        return self.kinds[self._task]

    def reset(self, start: Start) -> Observation:
        """Begin an episode; stored states and fresh seeds are two disjoint streams of scenes."""
        if not 0 <= start.task < len(self.tasks):
            raise ValueError(f"task {start.task} does not exist: there are {len(self.tasks)}")
        if start.state is not None and not 0 <= start.state < STORED_STATES:
            raise ValueError(f"stored state {start.state} does not exist: there are {STORED_STATES}")
        if start.seed < 0:
            raise ValueError(f"seed {start.seed} is negative")
        if start.placed:
            raise ValueError("the embedded world begins from a stored state or a seed, not from `placed`")
        self._task, self._steps, self._over = start.task, 0, False
        self._world = scene(self.task, start)
        return self._observe()

    def play(self, chunk: ActionChunk) -> Outcome:
        """Play a chunk [C, 4 or 8], up to success or the cap; translations beyond -1..1 are clipped.

        `ValueError`: a wrong shape, or a number that is not finite; `RuntimeError`: the episode is over.
        """
        actions = np.asarray(chunk.actions, dtype=np.float64)
        if actions.ndim != 2 or actions.shape[1] != len(self.spec.action) or not len(actions):
            raise ValueError(f"actions have shape {actions.shape}, expected [C, {len(self.spec.action)}]")
        if not np.isfinite(actions).all():
            raise ValueError("actions hold a number that is not finite")
        world = self.world
        if self._over:
            raise RuntimeError("the episode is over: reset the environment first")
        steps, done = 0, False
        for action in np.clip(actions, *self._limits).tolist():
            world.step(action)
            steps += 1
            done = bool(solved(self.task, world))  # its comparisons give numpy's booleans
            if done or self._steps + steps == self.cap:
                break
        self._steps += steps
        cut = self._steps == self.cap and not done
        self._over = done or cut
        return Outcome(
            observation=self._observe(), reward=float(done), terminated=done, truncated=cut, steps=steps
        )

    def frame(self, size: int) -> Image:
        """The scene now, [size, size, 3]."""
        if size not in self._views:
            self._views[size] = View(size, self.eye)
        return self._views[size].image(self.world)

    def snapshot(self) -> Snapshot:
        """The episode now, to come back to."""
        return Snapshot(task=self._task, world=self.world.copy(), steps=self._steps, over=self._over)

    def restore(self, snapshot: Snapshot) -> Observation:
        """Come back to a snapshot, of this environment or of another one of the same suite."""
        self._task, self._steps, self._over = snapshot.task, snapshot.steps, snapshot.over
        self._world = snapshot.world.copy()
        return self._observe()

    def describe(self) -> Setup:
        """How this environment is set up."""
        (camera,) = self.spec.cameras
        return Setup(
            suite=self.suite,
            cap=self.cap,
            settle=0,
            camera=camera.name,
            image=self._size,
            render="full",
            renderer="numpy",
            patches=(),
            packages={"numpy": version("numpy")},
        )

    def close(self) -> None:
        """Nothing to free."""

    def _observe(self) -> Observation:
        state = [v for arm in self.world.arms for v in (*arm.at, arm.open)]
        return Observation(
            images={"front": self.frame(self._size)},
            state=np.array(state, dtype=np.float32),
            instruction=self.tasks[self._task],
        )
