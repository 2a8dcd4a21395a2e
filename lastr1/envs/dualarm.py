"""Two Franka arms at one table: robosuite 1.4.0's two-arm tasks (Zhu et al. 2020) in MuJoCo 3.3.2.

Axes: H image rows, W image columns, S state size (14), C control steps per chunk, A action size (14).

The stack is LIBERO's, and so are controllers, units and conventions of each arm.  The arms face each other;
left and right are those of the front camera's picture.  What is ours, because nobody publishes a protocol:

- Stored initial states are scenes drawn from fixed seeds, fresh ones are drawn from a start's seed; the two
  streams never meet.  Placements are robosuite's; the arms begin in their rest posture, without its noise.
- The hammer has one shape.  robosuite draws another whenever it compiles a scene; we compile from one seed.
- The front camera stands where both arms and all of the way between them are seen.
- Pictures are flipped to be upright, not turned as LIBERO's are: left stays left.
"""

import atexit
import contextlib
import gc
import io
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lastr1.envs.base import Setup, Start
from lastr1.envs.dualarm_tasks import CAMERAS, TASKS, DualTask, dual_spec, looking
from lastr1.envs.libero_stack import (
    PINNED,
    axis_angle,
    global_generator,
    import_stack,
    leave_out,
    take_context,
)
from lastr1.envs.stepped import check_start, play_chunk
from lastr1.types import ActionChunk, Floats, Image, Observation, Outcome

if TYPE_CHECKING:
    from lastr1.envs.libero_step import LeanStep

SUITE = "dualarm"
STORED_STATES = 50
CAP = 240
"""control steps: at least twice what the expert needs"""
SETTLE = 10
"""control steps in which objects come to rest before the policy first looks; not counted"""
IDLE = np.array([*[0.0] * 6, -1.0] * 2)  # robosuite's own convention: gripper -1 opens, +1 closes
FINGERS = 0.08  # m between the open fingers
FALLEN = 0.05  # m below the table's top: what lies there cannot be reached
_STORED, _FRESH = 0x570ED, 0xF4E54  # tell the two streams of scenes apart


class DualArmEnv:
    """robosuite's two-arm tasks; the scene of the last task stays built until another task is asked for."""

    suite = SUITE
    tasks = tuple(task.instruction for task in TASKS)
    stored_states = STORED_STATES
    cap = CAP

    def __init__(self, *, image: int = 256, render: str = "full") -> None:
        """`UserError` when the packages or a renderer are missing.  `render`: as `EnvConfig.render` says."""
        self._renderer = import_stack()
        self.spec = dual_spec(image)
        self._image, self._render = image, render
        self._task = -1
        self._world: Any = None  # robosuite's environment, while a scene is built
        self._lean: LeanStep
        self._seen: dict[str, Image] = {}
        self._solved = False
        self._steps = self.cap  # nothing can be played before the first reset

    # ------------------------------------------------------------------ the contract

    def reset(self, start: Start) -> Observation:
        """Begin an episode: place, settle, look.  `ValueError` names a task or state that does not exist."""
        check_start(self, start)
        if start.placed:
            raise ValueError(f"{SUITE} begins from a stored state or a seed, not from `placed`")
        self._build(start.task)
        attempt = 0
        while not self._place(start, attempt):
            attempt += 1
        return self.observe()

    def play(self, chunk: ActionChunk) -> Outcome:
        """Play up to C control steps open loop; draw the cameras once, at the end.

        `ValueError`: actions that are not finite [C, 14]; `RuntimeError`: the episode is over.
        """
        return play_chunk(self, chunk, self.cap - self._steps)

    def frame(self, size: int) -> Image:
        """The scene now as the front camera sees it, [size, size, 3]."""
        return self._draw("front", size)

    def close(self) -> None:
        """Free the scene; a later `reset` builds it anew."""
        if self._world is not None:
            take_context(self._world)
            self._finalizer()
            atexit.unregister(self._finalizer)
            self._world, self._task, self._steps = None, -1, self.cap
            del self._lean
            gc.collect()  # the scene sits in reference cycles: without this, a GL context per task stays

    # ------------------------------------------------------------------ one control step at a time

    def step(self, action: Floats, *, look: bool) -> bool:
        """One control step; True when the task is solved.  The cameras are drawn only if `look`.

        action: [14] in `spec.action` order.  `RuntimeError`: the episode is over.
        """
        if self._solved or self._steps >= self.cap:
            raise RuntimeError("the episode is over, or has not begun: reset first")
        command = action.astype(np.float64)
        command[6::7] = -np.sign(2 * command[6::7] - 1)
        self._steps += 1
        return self._advance(command, look=look)

    def observe(self) -> Observation:
        """What the policy sees now."""
        if not self._seen:
            self._seen = {name: self._draw(name, self._image) for name in CAMERAS}
        data, state = self.simulation.sim.data, list[NDArray[np.float64]]()
        for robot in self._world.robots:
            turn = np.roll(data.get_body_xquat(robot.robot_model.eef_name), -1)  # MuJoCo's begin with w
            fingers = data.qpos[robot._ref_gripper_joint_pos_indexes]
            apart = np.clip((fingers[0] - fingers[1]) / FINGERS, 0.0, 1.0)
            state += [data.site_xpos[robot.eef_site_id], axis_angle(turn), np.array([apart])]
        return Observation(
            images=dict(self._seen),
            state=np.concatenate(state).astype(np.float32),
            instruction=self.tasks[self._task],
        )

    @property
    def simulation(self) -> Any:
        """robosuite's environment of the current task, privileged state included (for experts and tests)."""
        if self._world is None:
            raise RuntimeError("no scene yet: reset first")
        return self._world

    @property
    def task(self) -> DualTask:
        """The task whose scene stands."""
        return TASKS[self._task]

    def describe(self) -> Setup:
        """How this environment is set up."""
        return Setup(
            suite=SUITE,
            cap=self.cap,
            settle=SETTLE,
            camera=self.spec.cameras[0].name,
            image=self._image,
            render=self._render,
            renderer=self._renderer,
            patches=(),
            packages={name: PINNED[name] for name in ("mujoco", "robosuite")},
        )

    # ------------------------------------------------------------------ inside

    def _build(self, task: int) -> None:
        """Compile the scene of a task, always the same."""
        if task == self._task:
            return
        self.close()
        import robosuite

        with global_generator(), contextlib.redirect_stdout(io.StringIO()):
            np.random.seed(0)  # noqa: NPY002  (robosuite draws from the global generator)
            self._world = robosuite.make(
                TASKS[task].name,
                robots=["Panda", "Panda"],
                env_configuration="single-arm-opposed",
                controller_configs=robosuite.load_controller_config(default_controller="OSC_POSE"),
                initialization_noise=None,
                use_camera_obs=False,  # we draw ourselves, where and when a picture is needed
                use_object_obs=False,
                control_freq=20,
                hard_reset=False,
                ignore_done=True,
            )
        # Also when nobody calls `close`: at exit, the driver is gone before the contexts are.
        self._finalizer = atexit.register(weakref.finalize(self, self._world.close))
        self._task = task
        for name in self._world._observables:
            self._world.modify_observable(name, "enabled", False)
            self._world.modify_observable(name, "active", False)
        leave_out(self._world, self._render)
        camera = self._world.sim.model._model.camera(CAMERAS["front"])
        camera.pos[:], camera.quat[:] = TASKS[task].eye, looking(TASKS[task])

    def _place(self, start: Start, attempt: int) -> bool:
        """Put the scene into its first state and let it settle; False if nothing can be done in it."""
        from lastr1.envs.libero_step import LeanStep  # needs the simulator, which not everybody has

        world = self._world
        stream = (start.seed, _FRESH) if start.state is None else (start.state, _STORED)
        words = np.random.SeedSequence((*stream, start.task, attempt))
        with global_generator():
            np.random.seed(int(words.generate_state(1)[0]))  # noqa: NPY002
            world.reset()
        world.sim.data.qacc_warmstart[:] = 0
        for robot in world.robots:
            robot.gripper.current_action[:] = 0
        self._lean = LeanStep(world, world._check_success)
        self._steps = 0
        for step in range(SETTLE):
            self._advance(IDLE, look=step == SETTLE - 1)
        data = world.sim.data
        height = data.get_body_xpos(self.task.thing)[2] - data.get_site_xpos("table_top")[2]
        return not self._solved and bool(height > -FALLEN)

    def _advance(self, command: NDArray[np.float64], *, look: bool) -> bool:
        self._solved = bool(self._lean(command))
        self._seen = {name: self._draw(name, self._image) for name in CAMERAS} if look else {}
        return self._solved

    def _draw(self, camera: str, size: int) -> Image:
        world = self.simulation
        take_context(world)
        picture: Image = world.sim.render(camera_name=CAMERAS[camera], width=size, height=size)
        return np.ascontiguousarray(picture[::-1])
