"""Decision points, action labels and target frames, worked by hand."""

from dataclasses import replace

import numpy as np
import pytest

from lastr1.demos.dataset import Demonstration, DemonstrationSet, choose_per_task
from lastr1.types import UserError


def counting(*, task: int, steps: int) -> Demonstration:
    """Frame t shows 100 task + t; state t is [t]; action t is [t, -t]."""
    t = np.arange(steps + 1)
    frames = (100 * task + t).astype(np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    return Demonstration(
        task=task,
        instruction=f"task {task}",
        frames={"front": frames},
        states=t[:, None].astype(np.float32),
        actions=np.stack([t[:-1], -t[:-1]], 1).astype(np.float32),
    )


def shown(data: DemonstrationSet, rows: np.ndarray) -> list[int]:
    return [int(pixel) for pixel in data.frames["front"][rows, 0, 0, 0]]


def test_samples_near_the_end_of_a_demonstration() -> None:
    # H = 5: frames o_0..o_5.  C = 3, two latents every 2 control steps.
    data = DemonstrationSet(
        [counting(task=0, steps=4), counting(task=1, steps=5)], chunk=3, latents=2, target_stride=2
    )
    assert len(data) == 4 + 5
    first = data.sample(4)  # i = 0 of the second: actions 0 1 2, targets o_2 o_4
    assert (first.task, first.observation.instruction) == (1, "task 1")
    assert first.observation.images["front"][0, 0, 0] == 100
    assert first.observation.state.tolist() == [0]
    assert first.actions.tolist() == [[0, 0], [1, -1], [2, -2]]
    assert first.action_valid.tolist() == [True, True, True]
    assert shown(data, first.targets) == [102, 104]
    assert first.target_valid.tolist() == [True, True]
    middle = data.sample(6)  # i = 2: targets o_4, o_6 which is past o_5
    assert shown(data, middle.targets) == [104, 105]
    assert middle.target_valid.tolist() == [True, False]
    assert middle.action_valid.tolist() == [True, True, True]
    near = data.sample(7)  # i = 3: actions 3 4 -, target o_5 is the last frame and valid
    assert near.actions[:, 0].tolist() == [3, 4, 4]
    assert near.action_valid.tolist() == [True, True, False]
    assert shown(data, near.targets) == [105, 105]
    assert near.target_valid.tolist() == [True, False]
    assert shown(data, np.array([near.frame])) == [103]
    last = data.sample(8)  # i = 4: nothing is left to foresee but o_5, one step ahead
    assert last.observation.state.tolist() == [4]
    assert last.action_valid.tolist() == [True, False, False]
    assert last.target_valid.tolist() == [False, False]
    assert shown(data, last.targets) == [105, 105]
    with pytest.raises(IndexError):
        data.sample(9)


@pytest.mark.parametrize("stride", [2, 4])
def test_a_frame_stride_keeps_the_same_samples_at_fewer_points(stride: int) -> None:
    demos = [counting(task=0, steps=9), counting(task=1, steps=8), counting(task=2, steps=1)]
    every = DemonstrationSet(demos, chunk=3, latents=3, target_stride=4)
    some = DemonstrationSet(demos, chunk=3, latents=3, target_stride=4, frame_stride=stride)
    points = [(d, i) for d, demo in enumerate(demos) for i in range(len(demo.actions))]
    kept = [n for n, (_, i) in enumerate(points) if i % stride == 0]
    assert len(some) == len(kept)
    for row, n in enumerate(kept):
        a, b = every.sample(n), some.sample(row)
        assert a.observation.images["front"].tolist() == b.observation.images["front"].tolist()
        assert a.observation.state.tolist() == b.observation.state.tolist()
        assert a.actions.tolist() == b.actions.tolist()
        assert shown(every, a.targets) == shown(some, b.targets)
        assert a.target_valid.tolist() == b.target_valid.tolist()
        assert shown(every, np.array([a.frame])) == shown(some, np.array([b.frame]))
    # 0 2 4 6 8 9 / 0 2 4 6 8 / 0 1 and 0 4 8 9 / 0 4 8 / 0 1
    assert len(some.frames["front"]) == {2: 13, 4: 9}[stride]


def test_a_batch_is_its_samples_and_the_generator_decides(demos: list[Demonstration]) -> None:
    data = DemonstrationSet(demos, chunk=4, latents=2, target_stride=3)
    batch = data.batch(np.array([19, 0, 7, 7]))
    for row, index in enumerate((19, 0, 7, 7)):
        one = data.sample(index)
        assert (batch.images["wrist"][row] == one.observation.images["wrist"]).all()
        assert (batch.states[row] == one.observation.state).all()
        assert batch.instructions[row] == one.observation.instruction
        assert (batch.tasks[row], batch.frames[row]) == (one.task, one.frame)
        assert (batch.actions[row] == one.actions).all()
        assert (batch.target_valid[row] == one.target_valid).all()
    draws = [data.draw(64, np.random.default_rng(seed)).frames.tolist() for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]
    assert set(draws[0]) <= set(range(7)) | {8} | set(range(10, 22))  # never the last frame of one
    assert data.states.shape == (8 + 2 + 13, 3)
    assert data.actions.shape == (20, 2)


def test_no_latents_need_no_targets(demos: list[Demonstration]) -> None:
    data = DemonstrationSet(demos, chunk=4, latents=0, target_stride=8, frame_stride=3)
    assert data.draw(5, np.random.default_rng(0)).targets.shape == (5, 0)
    assert len(data) == 3 + 1 + 4


def test_refusals(demos: list[Demonstration]) -> None:
    with pytest.raises(UserError, match="no demonstrations"):
        DemonstrationSet([], chunk=1, latents=1, target_stride=1)
    with pytest.raises(ValueError, match="target_stride 8 must be a multiple of frame_stride 3"):
        DemonstrationSet(demos, chunk=4, latents=1, target_stride=8, frame_stride=3)
    blind = replace(demos[1], frames={"front": demos[1].frames["front"]})
    with pytest.raises(ValueError, match=r"cameras \['front'\]"):
        DemonstrationSet([demos[0], blind], chunk=4, latents=1, target_stride=8)
    with pytest.raises(ValueError, match="7 actions need 8 states, there are 7"):
        replace(demos[0], states=demos[0].states[1:])
    with pytest.raises(ValueError, match="camera front"):
        replace(demos[0], frames={"front": demos[0].frames["front"][1:]})


def test_the_choice_of_one_demonstration_per_task() -> None:
    tasks = [0, 1, 0, 2, 1, 0]
    chosen = choose_per_task(tasks, count=1, seed=5)
    assert sorted(tasks[i] for i in chosen) == [0, 1, 2]
    assert chosen == choose_per_task(tasks, count=1, seed=5)
    assert len({choose_per_task(tasks, count=1, seed=s) for s in range(30)}) == 3 * 2
    with pytest.raises(UserError, match="task 2 has 1 demonstrations, 2 are asked for"):
        choose_per_task(tasks, count=2, seed=0)
