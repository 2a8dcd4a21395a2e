"""EnvPool with a tiny environment whose episodes can be told to go wrong.

The environment counts its control steps in a one-pixel image; `Start.seed` chooses the accident.
"""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from lastr1.envs.base import Setup, Start
from lastr1.envs.pool import EnvLost, EnvPool
from lastr1.spec import Camera, Dim, RobotSpec
from lastr1.types import ActionChunk, Image, Observation, Outcome, UserError

SPEC = RobotSpec(
    name="fake",
    cameras=(Camera(name="front", height=1, width=1),),
    state=(Dim(name="x", unit="m", low=-9, high=9),),
    action=(Dim(name="x", unit="m", low=-1, high=1),),
    rate=10.0,
    hold=(0.0,),
)
CAP = 6
SETUP = Setup(
    suite="fake", cap=CAP, settle=0, camera="front", image=1, render="full", renderer="none", patches=(),
    packages={},
)  # fmt: skip
CRASH, HANG, RAISE, USER = 101, 102, 103, 104  # seeds whose episodes go wrong in `play`
CRASH_RESET_ONCE, NEVER_RESETS, LIE = 105, 106, 107


class FakeEnv:
    """State: where the start's seed and the actions lead.  Ends after CAP control steps."""

    def __init__(self, scratch: Path | None = None) -> None:
        self.spec = SPEC
        self.tasks: tuple[str, ...] = ("go", "stop")
        self.stored_states = 3
        self.cap = CAP
        self.broken = False
        self.scratch = scratch
        self.x = 0.0
        self.steps = self.seed = 0

    def reset(self, start: Start) -> Observation:
        assert not self.broken
        if start.task > 1:
            raise ValueError(f"no task {start.task}")
        if start.seed == CRASH_RESET_ONCE:
            assert self.scratch is not None
            if not self.scratch.exists():
                self.scratch.touch()
                os._exit(7)
        if start.seed == NEVER_RESETS:
            raise RuntimeError("the arm is stuck in the table")
        self.seed, self.x, self.steps = start.seed, float(start.seed), 0
        return self._look()

    def play(self, chunk: ActionChunk) -> Outcome:
        if self.seed == CRASH:
            os._exit(3)
        if self.seed == HANG:
            time.sleep(600)
        if self.seed == RAISE:
            self.broken = True
            raise KeyError("joint")
        if self.seed == USER:
            raise UserError("no renderer: set MUJOCO_GL=egl")
        played = chunk.actions[: CAP - self.steps]
        self.steps += len(played)
        self.x += float(played.sum())
        truncated = self.steps == CAP
        reward = float("nan") if self.seed == LIE else 0.0
        return Outcome(
            observation=self._look(), reward=reward, terminated=False, truncated=truncated, steps=len(played)
        )

    def frame(self, size: int) -> Image:
        return np.zeros((size, size, 3), np.uint8)

    def describe(self) -> Setup:
        return SETUP

    def close(self) -> None:
        pass

    def _look(self) -> Observation:
        image = np.full((1, 1, 3), self.steps, np.uint8)
        threads = float(os.environ.get("OMP_NUM_THREADS", "0")) if self.seed == 9 else self.x
        return Observation(images={"front": image}, state=np.array([threads], np.float32), instruction="go")


def build_fails() -> FakeEnv:
    raise OSError("no display")


def build_refuses() -> FakeEnv:
    raise UserError("LIBERO is not installed: pip install lastr1[libero]")


def chunk(*steps: float) -> ActionChunk:
    return ActionChunk(actions=np.array(steps, np.float32)[:, None])


def played(outcomes: dict[int, Outcome | EnvLost]) -> dict[int, Outcome]:
    assert not any(isinstance(o, EnvLost) for o in outcomes.values())
    return cast("dict[int, Outcome]", outcomes)


def seen(observations: dict[int, Observation | EnvLost]) -> dict[int, Observation]:
    assert not any(isinstance(o, EnvLost) for o in observations.values())
    return cast("dict[int, Observation]", observations)


@pytest.fixture
def pool() -> Iterator[EnvPool]:
    """Slots 0, 2, 4 on worker 0 and slots 1, 3 on worker 1."""
    with EnvPool(FakeEnv, slots=5, workers=2, deadline=2.0) as pool:
        yield pool


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_workers_gives_the_same_episodes(workers: int) -> None:
    with EnvPool(FakeEnv, slots=4, workers=workers) as pool:
        assert (pool.spec, pool.tasks, pool.stored_states, pool.cap) == (SPEC, ("go", "stop"), 3, CAP)
        found = seen(pool.reset({s: Start(task=0, seed=s) for s in (3, 1, 0, 2)}))
        assert list(found) == [3, 1, 0, 2]
        assert [float(o.state[0]) for o in found.values()] == [3, 1, 0, 2]
        first = played(pool.play({s: chunk(0.5, 0.25 * s) for s in range(4)}))
        assert [o.observation.state[0] for o in first.values()] == [0.5, 1.75, 3.0, 4.25]
        assert first[2].observation.images["front"].tolist() == [[[2, 2, 2]]]
        last = played(pool.play({s: chunk(1, 1, 1, 1, 1) for s in (2, 0)}))
        assert [(o.steps, o.truncated) for o in last.values()] == [(4, True), (4, True)]
        with pytest.raises(ValueError, match="slot 2 plays no episode"):
            pool.play({2: chunk(1)})
        with pytest.raises(ValueError, match="no task 7"):
            pool.reset({1: Start(task=7)})


@pytest.mark.parametrize(
    ("seed", "why"), [(CRASH, "crashed .exit code 3"), (HANG, "silent for 2 s"), (LIE, "lied: reward is nan")]
)
def test_a_dead_worker_loses_its_running_episodes_and_no_others(pool: EnvPool, seed: int, why: str) -> None:
    pool.reset({s: Start(task=0, seed=s) for s in (0, 1, 4)} | {2: Start(task=0, seed=seed)})
    for _ in range(2):
        pool.play({0: chunk(1, 1, 1), 1: chunk(1)})  # slot 0 reaches the cap, 1 and 4 go on
    outcomes = pool.play({1: chunk(1), 2: chunk(1)})
    assert isinstance(outcomes[1], Outcome)
    assert outcomes[1].observation.state[0] == 4.0
    assert isinstance(outcomes[2], EnvLost)
    assert why in outcomes[2].reason.replace("(", ".")
    with pytest.raises(ValueError, match="slot 0 plays no episode"):
        pool.play({0: chunk(1)})
    pool.reset({2: Start(task=0, seed=5)})  # the worker is back; slot 4 was not asked and is lost too
    outcomes = pool.play({2: chunk(1), 4: chunk(1)})
    assert isinstance(outcomes[2], Outcome)
    assert outcomes[2].observation.state[0] == 6.0
    assert isinstance(outcomes[4], EnvLost)
    assert float(seen(pool.reset({4: Start(task=0, seed=8)}))[4].state[0]) == 8.0


def test_an_outcome_that_ended_its_episode_survives_the_crash_of_its_worker(pool: EnvPool) -> None:
    pool.reset({0: Start(task=0), 2: Start(task=0), 4: Start(task=0, seed=CRASH)})
    outcomes = pool.play({0: chunk(*[1.0] * CAP), 2: chunk(1), 4: chunk(1)})
    assert isinstance(outcomes[0], Outcome)
    assert outcomes[0].truncated
    assert isinstance(outcomes[2], EnvLost)
    assert isinstance(outcomes[4], EnvLost)


def test_whoever_is_ready_is_heard_while_others_are_busy(pool: EnvPool) -> None:
    pool.reset({0: Start(task=0), 1: Start(task=0, seed=HANG), 2: Start(task=0, seed=2)})
    pool.send({0: chunk(1), 1: chunk(1), 2: chunk(1)})
    found = pool.receive(2)
    assert {slot: answer.observation.state[0] for slot, answer in found.items()} == {0: 1.0, 2: 3.0}
    assert pool.receive(1, patience=0.0) == {}
    pool.send({2: chunk(1)})
    assert list(pool.receive(1)) == [2]
    pool.send({0: chunk(1)})
    rest = pool.receive(2)  # all that is owed
    assert rest[0].observation.state[0] == 2.0
    assert "silent" in rest[1].reason


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_loses_one_slot(workers: int) -> None:
    with EnvPool(FakeEnv, slots=2, workers=workers) as pool:
        pool.reset({0: Start(task=0, seed=RAISE), 1: Start(task=0)})
        outcomes = pool.play({0: chunk(1), 1: chunk(1)})
        assert outcomes[0] == EnvLost(reason="KeyError: 'joint'")
        assert isinstance(outcomes[1], Outcome)
        assert isinstance(pool.play({1: chunk(1)})[1], Outcome)
        pool.reset({0: Start(task=0, seed=USER)})  # in a new environment: the old one is broken for good
        with pytest.raises(UserError, match=r"^no renderer: set MUJOCO_GL=egl$"):
            pool.play({0: chunk(1)})


@pytest.mark.parametrize("workers", [0, 1])
def test_a_liar_is_replaced_and_its_end_does_not_count(workers: int) -> None:
    with EnvPool(FakeEnv, slots=2, workers=workers) as pool:
        before = multiprocessing.active_children()
        pool.reset({0: Start(task=0, seed=LIE), 1: Start(task=0)})
        end = chunk(*[1.0] * CAP)
        outcomes = pool.play({0: end, 1: end})
        assert isinstance(outcomes[0], EnvLost)
        assert isinstance(outcomes[1], Outcome)  # whole, and over
        assert outcomes[1].truncated
        assert len(multiprocessing.active_children()) == workers
        assert not set(before) & set(multiprocessing.active_children())
        pool.reset({0: Start(task=0, seed=3)})
        assert played(pool.play({0: chunk(1)}))[0].observation.state[0] == 4.0


def test_a_reset_that_is_lost_can_be_tried_again(tmp_path: Path) -> None:
    make = functools.partial(FakeEnv, tmp_path / "crashed")
    starts = {0: Start(task=0, seed=4), 1: Start(task=0, seed=CRASH_RESET_ONCE)}
    with EnvPool(make, slots=2, workers=1, restarts=1) as pool:
        assert all(isinstance(answer, EnvLost) for answer in pool.reset(starts).values())
        with pytest.raises(ValueError, match="slot 0 plays no episode"):
            pool.play({0: chunk(1)})
        found = seen(pool.reset(starts))
        assert [float(o.state[0]) for o in found.values()] == [4.0, CRASH_RESET_ONCE]
        assert isinstance(pool.play({0: chunk(1)})[0], Outcome)


def test_too_many_losses_end_the_run() -> None:
    with EnvPool(FakeEnv, slots=1, workers=1, restarts=3) as pool:
        for _ in range(3):
            pool.reset({0: Start(task=0, seed=NEVER_RESETS)})
        with pytest.raises(
            UserError, match=r"lost 4 times .* lastly: RuntimeError: the arm is stuck .*now 3"
        ):
            pool.reset({0: Start(task=0, seed=NEVER_RESETS)})
    assert multiprocessing.active_children() == []


def test_an_episode_that_ends_forgives_losses() -> None:
    with EnvPool(FakeEnv, slots=2, workers=0, restarts=1) as pool:
        for _ in range(3):
            pool.reset({0: Start(task=0, seed=NEVER_RESETS), 1: Start(task=0)})
            pool.play({1: chunk(*[1.0] * CAP)})


@pytest.mark.parametrize("workers", [0, 1])
def test_an_environment_that_cannot_be_built_fails_at_once(workers: int) -> None:
    with pytest.raises(RuntimeError, match="could not be built: OSError: no display"):
        EnvPool(build_fails, slots=2, workers=workers)
    with pytest.raises(UserError, match="LIBERO is not installed"):
        EnvPool(build_refuses, slots=2, workers=workers)
    assert multiprocessing.active_children() == []


def test_workers_run_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with EnvPool(FakeEnv, slots=1, workers=1) as pool:
        assert seen(pool.reset({0: Start(task=0, seed=9)}))[0].state[0] == 1.0
    assert "OMP_NUM_THREADS" not in os.environ


def test_close_ends_every_worker(pool: EnvPool) -> None:
    assert len(multiprocessing.active_children()) == 2
    pool.close()
    assert multiprocessing.active_children() == []


ORPHAN = """
import sys
sys.path.insert(0, {folder!r})
import multiprocessing
import test_pool as t
if __name__ == "__main__":
    pool = t.EnvPool(t.FakeEnv, slots=1, workers=1)
    pool.reset({{0: t.Start(task=0, seed=t.HANG)}})
    print(multiprocessing.active_children()[0].pid, flush=True)
    pool.play({{0: t.chunk(1)}})
"""


def test_a_hung_worker_dies_with_its_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN.format(folder=str(Path(__file__).parent)))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        time.sleep(0.1)
        parent.send_signal(signal.SIGKILL)
        until = time.monotonic() + 60.0
        while Path(f"/proc/{worker}/cmdline").exists() and time.monotonic() < until:
            time.sleep(0.02)
        assert not Path(f"/proc/{worker}/cmdline").exists() or not Path(f"/proc/{worker}/cmdline").read_text()
