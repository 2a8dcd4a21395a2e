"""Demonstrations in memory, and the supervised samples drawn from them (ALGORITHM.md 6.1, 6.2, 6.4).

Axes: H control steps of one demonstration, C control steps per chunk, A action size, S state size,
L latent slots, B samples of a batch, F frames kept, N control steps and M frames of all demonstrations.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lastr1.types import Array, Floats, Observation, Start, UserError


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """One episode, successful as a rule: what was seen before, between and after its H control steps."""

    task: int
    """index into the tasks of the environment"""
    instruction: str
    frames: dict[str, NDArray[np.uint8]]
    """camera -> o_0..o_H, [H + 1, height, width, 3] RGB"""
    states: Floats
    """[H + 1, S], robot units"""
    actions: Floats
    """[H, A], robot units"""
    start: Start | None = None
    """where its environment began, so that it can be played again (None: nobody wrote it down)"""
    success: bool = True
    """whether the task was solved at its end (what a robot was driven to do may fail)"""

    def __post_init__(self) -> None:
        steps = len(self.actions)
        if steps < 1 or len(self.states) != steps + 1:
            raise ValueError(f"{steps} actions need {steps + 1} states, there are {len(self.states)}")
        for camera, frames in self.frames.items():
            if len(frames) != steps + 1 or frames.ndim != 4 or frames.dtype != np.uint8:
                raise ValueError(
                    f"camera {camera}: uint8 [{steps + 1}, height, width, 3] is needed for {steps} actions, "
                    f"not {frames.dtype} {frames.shape}"
                )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One decision of a demonstration."""

    observation: Observation
    """at control step i"""
    task: int
    frame: int
    """row of o_i in `DemonstrationSet.frames`"""
    actions: Floats
    """[C, A] a_i..a_{i+C-1}; past the end the last action is repeated"""
    action_valid: NDArray[np.bool_]
    """[C] False past the end"""
    targets: NDArray[np.int64]
    """[L] rows in `DemonstrationSet.frames` of o_{i + (k+1) target_stride}; past the end the last frame"""
    target_valid: NDArray[np.bool_]
    """[L] False past the end"""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples; the fields are those of `Sample`."""

    images: dict[str, NDArray[np.uint8]]
    """camera -> [B, height, width, 3]"""
    states: Floats
    """[B, S]"""
    instructions: tuple[str, ...]
    tasks: NDArray[np.int64]
    """[B]"""
    frames: NDArray[np.int64]
    """[B]"""
    actions: Floats
    """[B, C, A]"""
    action_valid: NDArray[np.bool_]
    """[B, C]"""
    targets: NDArray[np.int64]
    """[B, L]"""
    target_valid: NDArray[np.bool_]
    """[B, L]"""


class DemonstrationSet:
    """Demonstrations of one robot, as decision points (demonstration, i) with i a multiple of `frame_stride`.

    A frame stride above 1 keeps only those frames (and the last one): it divides the memory, and the target
    frames are still there when it divides `target_stride`.  Actions and states are always kept.
    `frames[camera]` is one array [F, height, width, 3], so that a frozen teacher can embed every frame once
    and `Sample.targets` index the result.
    """

    def __init__(
        self,
        demonstrations: Iterable[Demonstration],
        *,
        chunk: int,
        latents: int,
        target_stride: int,
        frame_stride: int = 1,
    ) -> None:
        if chunk < 1 or latents < 0 or target_stride < 1 or frame_stride < 1:
            raise ValueError("chunk, target_stride and frame_stride must be at least 1, latents at least 0")
        if latents and target_stride % frame_stride:
            raise ValueError(
                f"target_stride {target_stride} must be a multiple of frame_stride {frame_stride}"
            )
        self._stride, self._chunk = frame_stride, np.arange(chunk)
        self._ahead = (1 + np.arange(latents)) * target_stride
        pools: dict[str, _Rows] = {}
        demos: list[tuple[int, int, str]] = []  # task, control steps, instruction
        states, actions, seen = [], [], []
        for demo in demonstrations:
            kept = np.arange(0, len(demo.states), frame_stride)
            if kept[-1] != len(demo.actions):
                kept = np.append(kept, len(demo.actions))
            if pools and set(pools) != set(demo.frames):
                raise ValueError(f"cameras {sorted(demo.frames)} of a demonstration against {sorted(pools)}")
            for camera, frames in demo.frames.items():
                pools.setdefault(camera, _Rows()).append(frames[kept])
            demos.append((demo.task, len(demo.actions), demo.instruction))
            states.append(demo.states)
            actions.append(demo.actions)
            seen.append(len(kept))
        if not demos:
            raise UserError("there are no demonstrations: record some first, or select other episodes")
        self.frames: dict[str, NDArray[np.uint8]] = {camera: rows.finish() for camera, rows in pools.items()}
        self.states: Floats = np.concatenate(states)
        self.actions: Floats = np.concatenate(actions)
        self.tasks = np.array([task for task, _, _ in demos])
        self.steps = np.array([steps for _, steps, _ in demos])
        self.instructions = tuple(text for _, _, text in demos)
        self._kept = np.array(seen)
        self._first_frame = np.cumsum(self._kept) - self._kept
        self._first_action = np.cumsum(self.steps) - self.steps
        points = -(-self.steps // frame_stride)  # ceil: i = 0, stride, ... < steps
        self._demo = np.repeat(np.arange(len(demos)), points)
        self._step = frame_stride * (np.arange(points.sum()) - np.repeat(np.cumsum(points) - points, points))

    def __len__(self) -> int:
        """Decision points."""
        return len(self._step)

    def sample(self, index: int) -> Sample:
        """Decision point 0..len - 1, in the order of the demonstrations."""
        if not 0 <= index < len(self):
            raise IndexError(f"decision point {index} of {len(self)}")
        batch = self.batch(np.array([index]))
        images = {camera: frames[0] for camera, frames in batch.images.items()}
        return Sample(
            observation=Observation(images=images, state=batch.states[0], instruction=batch.instructions[0]),
            task=int(batch.tasks[0]),
            frame=int(batch.frames[0]),
            actions=batch.actions[0],
            action_valid=batch.action_valid[0],
            targets=batch.targets[0],
            target_valid=batch.target_valid[0],
        )

    def draw(self, size: int, generator: np.random.Generator) -> Batch:
        """`size` decision points, drawn uniformly with replacement."""
        return self.batch(generator.integers(len(self), size=size))

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """The given decision points [B], each 0..len - 1."""
        demo, step = self._demo[indices], self._step[indices]
        steps, first = self.steps[demo, None], self._first_frame[demo]
        played = step[:, None] + self._chunk
        foreseen = step[:, None] + self._ahead
        rows = np.where(foreseen <= steps, foreseen // self._stride, self._kept[demo, None] - 1)
        frame = first + step // self._stride
        action_row = self._first_action[demo, None] + np.minimum(played, steps - 1)
        return Batch(
            images={camera: frames[frame] for camera, frames in self.frames.items()},
            states=self.states[
                self._first_action[demo] + demo + step
            ],  # each demonstration has one more state
            instructions=tuple(self.instructions[d] for d in demo),
            tasks=self.tasks[demo],
            frames=frame,
            actions=self.actions[action_row],
            action_valid=played < steps,
            targets=first[:, None] + rows,
            target_valid=foreseen <= steps,
        )


class _Rows:
    """One array that grows in place: gathering parts and joining them would need the memory twice."""

    def __init__(self) -> None:
        self._array: Array | None = None
        self._used = 0

    def append(self, rows: Array) -> None:
        if self._array is None:
            self._array = np.empty((0, *rows.shape[1:]), rows.dtype)
        if rows.shape[1:] != self._array.shape[1:]:
            raise ValueError(f"frames of {rows.shape[1:]} among frames of {self._array.shape[1:]}")
        used = self._used + len(rows)
        if used > len(self._array):
            # Nobody else holds the array; for large blocks the system extends the mapping without a copy.
            self._array.resize((used + used // 8, *rows.shape[1:]), refcheck=False)
        self._array[self._used : used] = rows
        self._used = used

    def finish(self) -> Array:
        assert self._array is not None
        self._array.resize((self._used, *self._array.shape[1:]), refcheck=False)
        return self._array


def choose_per_task(tasks: Sequence[int], *, count: int, seed: int) -> tuple[int, ...]:
    """Positions of `count` demonstrations of every task that occurs in `tasks`, drawn by seed, ascending.

    `UserError` names a task that has fewer.  (ALGORITHM.md 6.1: one per task.)
    """
    generator = np.random.default_rng(seed)
    chosen: list[int] = []
    for task in sorted(set(tasks)):
        candidates = np.flatnonzero(np.array(tasks) == task)
        if len(candidates) < count:
            raise UserError(
                f"task {task} has {len(candidates)} demonstrations, {count} are asked for: record more"
            )
        chosen += generator.choice(candidates, count, replace=False).tolist()
    return tuple(sorted(chosen))
