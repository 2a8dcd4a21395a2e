"""A control step of robosuite 1.4.0 without what it computes twice: the same trajectory to the last bit.

One control step is 25 physics steps of 2 ms, before each of which the operational-space controller of every
arm sets new torques.  robosuite computes the whole scene several times per physics step: `forward` before
the controllers, `forward` in each of them, and once more at the start of `mj_step`.  Meanwhile nothing moves,
so positions, contacts, inertia and velocities (the expensive part) are the same and are computed once.
The constraint solver does run every time, since each run starts from the result of the one before: leaving
one out changes the last digits at once, and contacts carry that further.

What else is left out is read by nobody here: histories of the last joint positions, torques and forces, force
sensors before the last solution, observables that are switched off, and the second look at success.
"""

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

ANEW, IN_PLACE = mujoco.mjtStage.mjSTAGE_NONE, mujoco.mjtStage.mjSTAGE_VEL  # stages that `forward` may skip
_NO_SENSORS = 1
ARM = 7  # entries of a command for one arm: six of its controller, one of its gripper


class LeanStep:
    """Plays control steps of one scene; made anew after every reset, which replaces the controllers.

    For Panda arms with OSC_POSE controllers at fixed impedance.  `solved` is asked after every control step.
    """

    def __init__(self, world: Any, solved: Callable[[], bool]) -> None:
        self._world, self._solved = world, solved
        self._model, self._data = world.sim.model._model, world.sim.data._data
        self._substeps = int(world.control_timestep / world.model_timestep)
        self._arms = [_Arm(world, robot) for robot in world.robots]
        self._shown = [o for o in world._observables.values() if o.is_enabled()]

    def __call__(self, command: NDArray[np.float64]) -> bool:
        """Play one control step; True when the task is solved.

        command: [7] per arm, gripper -1 opens, 1 closes.
        """
        world = self._world
        world.timestep += 1
        for substep in range(self._substeps):
            mujoco.mj_forwardSkip(self._model, self._data, ANEW, _NO_SENSORS)
            for index, arm in enumerate(self._arms):
                arm.act(command[ARM * index : ARM * (index + 1)], begins=substep == 0)
            self._step()
            for observable in self._shown:
                observable.update(timestep=world.model_timestep, obs_cache=world._obs_cache)
        world.cur_time += world.control_timestep
        return self._solved()

    def _step(self) -> None:
        """`mj_step` after a `forward` in the same place: 2 ms on."""
        data, before = self._data, self._data.time
        mujoco.mj_checkPos(self._model, data)
        mujoco.mj_checkVel(self._model, data)
        if data.time == before:
            mujoco.mj_step2(self._model, data)
        else:  # the scene blew up and was put back: everything has to be computed again
            mujoco.mj_step(self._model, data)


class _Arm:
    """One arm with its controller and its gripper."""

    def __init__(self, world: Any, robot: Any) -> None:
        model, data = world.sim.model._model, world.sim.data._data
        self._model, self._data, self._control, self._gripper = model, data, robot.controller, robot.gripper
        self._site = world.sim.model.site_name2id(self._control.eef_name)
        # MuJoCo's arrays stay where they are while the scene lives: each look-up would make a new view.
        self._place, self._turn = data.site_xpos[self._site], data.site_xmat[self._site].reshape([3, 3])
        self._qpos, self._qvel, self._ctrl, self._packed = data.qpos, data.qvel, data.ctrl, data.qM
        self._along, self._about = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        self._inertia = np.zeros((model.nv, model.nv))
        self._joints, self._speeds = self._control.qpos_index, self._control.qvel_index
        self._motors = np.array(robot._ref_joint_actuator_indexes)
        self._low, self._high = robot.torque_limits
        self._fingers = np.array(robot._ref_joint_gripper_actuator_indexes)
        span = model.actuator_ctrlrange[self._fingers]
        self._middle, self._reach = 0.5 * (span[:, 1] + span[:, 0]), 0.5 * (span[:, 1] - span[:, 0])

    def act(self, command: NDArray[np.float64], *, begins: bool) -> None:
        """Set torques and fingers for a physics step; `begins`: a control step's first.  command: [7]"""
        if self._control.new_update:  # robosuite's controller acts once on what it saw at its making
            mujoco.mj_forwardSkip(self._model, self._data, IN_PLACE, _NO_SENSORS)  # the controller's own
            self._look()
        if begins:
            self._control.set_goal(command[:-1])
        torques = self._control.run_controller()
        self._ctrl[self._motors] = np.minimum(np.maximum(torques, self._low), self._high)
        self._ctrl[self._fingers] = self._middle + self._reach * self._gripper.format_action(command[-1:])

    def _look(self) -> None:
        """What the controller's `update` reads from the scene, with each Jacobian computed once."""
        control = self._control
        mujoco.mj_jacSite(self._model, self._data, self._along, self._about, self._site)
        control.ee_pos, control.ee_ori_mat = self._place.copy(), self._turn.copy()
        control.ee_pos_vel = np.dot(self._along, self._qvel)
        control.ee_ori_vel = np.dot(self._about, self._qvel)
        control.joint_pos, control.joint_vel = self._qpos[self._joints], self._qvel[self._speeds]
        # Copies in the memory layout that robosuite's own have: BLAS rounds by layout.
        control.J_pos, control.J_ori = self._along[:, self._speeds], self._about[:, self._speeds]
        control.J_full = np.vstack([control.J_pos, control.J_ori])
        mujoco.mj_fullM(self._model, self._inertia, self._packed)
        control.mass_matrix = self._inertia[self._speeds, :][:, self._speeds]
        control.new_update = False  # its own `update` finds nothing left to do
