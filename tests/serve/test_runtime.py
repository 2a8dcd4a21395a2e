"""The control loop: whatever servers, cameras and clocks do, every control step commands the robot."""

import json
import threading
from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from lastr1.config import DriveConfig, RobotConfig
from lastr1.serve.client import PolicyLost
from lastr1.serve.record import Log, Recorder
from lastr1.serve.robot import Dark, FakeRobot, RobotLost
from lastr1.serve.runtime import BackgroundThinker, Loop
from lastr1.types import ActionChunk

CONFIG = RobotConfig(hosts=("fake",), cameras=("front=pattern",), image=(32, 32))
DRIVE = DriveConfig(instruction="move", seconds=2.0, play=8, patience=1.0)
DT = 0.05


class Clock:
    """Passes only while somebody waits; `jumps`: (moment, seconds) added once that moment is reached."""

    def __init__(self, jumps=()):
        self.time, self.jumps = 100.0, deque(jumps)

    def now(self):
        if self.jumps and self.time >= self.jumps[0][0]:
            self.time += self.jumps.popleft()[1]
        return self.time

    def wait_until(self, moment):
        assert moment - self.time < 1.0, "the loop must never sleep for long"
        self.time = max(self.time, moment)


class Scripted:
    """A policy whose k-th decision takes `delays[k]` seconds (the last for good); None: the server dies."""

    def __init__(self, clock, delays=(0.0,), chunk=8, move=0.01):
        self.clock, self.delays, self.chunk, self.move = clock, list(delays), chunk, move
        self.connected, self.lost = True, False
        self.asked = []
        self.due = None

    def ask(self, observation):
        assert self.due is None
        self.asked.append((self.clock.time, observation))
        delay = self.delays[min(len(self.asked), len(self.delays)) - 1]
        self.due = self.clock.time + delay if delay is not None else None
        self.connected = delay is not None
        self.lost = delay is None

    def answer(self):
        if self.lost:
            self.lost = False
            raise PolicyLost("the server is gone")
        if self.due is None or self.clock.time < self.due - 1e-9:
            return None
        self.due = None
        actions = np.zeros((self.chunk, 7), np.float32)
        actions[:, 0] = -self.move * (-1) ** len(self.asked)
        actions[:, 6] = 1.0
        return ActionChunk(actions=actions)


def driven(clock=None, config=DRIVE, robot=None, thinker=None, told=lambda: False, **script):
    clock = clock or Clock()
    robot = robot or FakeRobot(CONFIG, clock)
    thinker = thinker or Scripted(clock, **script)
    steps = []
    summary = Loop(robot, thinker, clock, config).run(steps.append, told)
    return summary, steps, thinker


def reasons(steps):
    """`chunk` as c, `thinking` as t, `no server` as s, `no camera` as d."""
    letters = {"chunk": "c", "thinking": "t", "no server": "s", "no camera": "d"}
    return "".join(letters[step.why] for step in steps)


def test_a_chunk_is_played_then_the_arm_holds_while_the_policy_thinks():
    summary, steps, thinker = driven(delays=[0.15])
    assert reasons(steps).startswith("ttt" + "cccccccc" + "ttt" + "cccccccc")
    assert summary.steps == 40
    assert summary.ending == "time"
    assert thinker.asked[0][1].instruction == "move"
    assert all(step.wanted is None for step in steps if step.why != "chunk")


def test_receding_cap_of_a_chunk():
    _, steps, thinker = driven(config=replace(DRIVE, play=3))
    assert reasons(steps).startswith("tccctccct")
    assert len(thinker.asked) == 10


def test_thinking_ahead_never_holds():
    _, steps, _ = driven(config=replace(DRIVE, ahead=4), delays=[0.15])
    assert "t" not in reasons(steps)[3:]


@pytest.mark.parametrize("ahead", [0, 4])
def test_a_late_answer_is_a_hold_within_one_control_step(ahead):
    """The third decision takes for ever: what is left of the second chunk is played, then it holds."""
    _, steps, _ = driven(config=replace(DRIVE, ahead=ahead), delays=[0.0, 0.0, 99.0])
    why = reasons(steps)
    last = why.rindex("c")
    assert set(why[last + 1 :]) == {"t"}
    assert len(why) - last > 10
    after = [step.executed.action[0] for step in steps[last + 1 :]]
    assert abs(after[0]) < abs(steps[last].executed.action[0]) + 1e-9
    assert after[4:] == [0.0] * len(after[4:])


class Dying(Scripted):
    """The server is killed between two control steps, in the middle of a chunk."""

    killed_at = 100.0 + 5 * DT

    def answer(self):
        if self.clock.time >= self.killed_at - 1e-9 and self.connected:
            self.connected = False
        return super().answer() if self.connected else None

    def ask(self, observation):
        if self.connected:
            return super().ask(observation)
        self.asked.append((self.clock.time, observation))
        raise AssertionError("asked a dead server without need")


def test_a_server_that_dies_mid_motion_is_a_hold_in_the_next_control_step():
    clock = Clock()
    robot = FakeRobot(CONFIG, clock)
    summary, steps, _ = driven(
        clock, robot=robot, thinker=Dying(clock, move=0.012), config=replace(DRIVE, seconds=0.6)
    )
    assert reasons(steps) == "tccc" + "s" * 8  # step 4 begins 0.25 s in: the chunk had four more actions
    moving = [abs(step.executed.action[0]) for step in steps]
    assert moving[3] == pytest.approx(0.012)
    assert moving[4] < moving[3]  # braking within the limits begins at once
    assert moving[8:] == [0.0] * len(moving[8:])
    assert summary.ending == "time"


def test_patience_ends_the_episode():
    summary, _, _ = driven(delays=[None], config=replace(DRIVE, seconds=60.0))
    assert summary.ending == "patience"
    assert summary.why["no server"] == 20  # a second
    assert summary.lost == "the server is gone"


def test_an_attempt_to_reach_a_dead_server_every_half_second():
    _, _, thinker = driven(delays=[None], config=replace(DRIVE, patience=10.0))
    times = np.array([moment for moment, _ in thinker.asked])
    assert len(times) == 4
    assert np.all(np.diff(times) >= 0.5)


def test_a_dark_camera_brakes_and_the_old_chunk_is_forgotten():
    clock = Clock()
    robot = FakeRobot(CONFIG, clock, dark=(Dark(camera="front", since=100.29, until=100.49),))
    _, steps, thinker = driven(clock, robot=robot)
    assert reasons(steps)[:16] == "t" + "cccc" + "dddd" + "t" + "cccccc"
    assert steps[5].observation is None
    assert sum(moment < 100.5 for moment, _ in thinker.asked) == 2


def test_an_answer_from_before_the_dark_is_not_played():
    clock = Clock()
    robot = FakeRobot(CONFIG, clock, dark=(Dark(camera="front", since=100.09, until=100.29),))
    _, steps, thinker = driven(clock, robot=robot, delays=[0.4, 0.0])
    assert reasons(steps)[:10] == "t" + "dddd" + "tttt" + "c"
    assert len(thinker.asked) == 5  # in control steps 0, 8 (for what is seen then), 17, 26 and 35


@pytest.mark.parametrize("jump", [3600.0, 0.4, -3600.0, -0.5])
def test_clock_jumps(jump):
    """One jump in the middle of a chunk: no burst, no long sleep, and a chunk decided for now."""
    clock = Clock(jumps=[(100.3, jump)])
    robot = FakeRobot(CONFIG, clock)
    summary, steps, _ = driven(clock, robot=robot)
    assert summary.jumps == 1
    assert summary.steps == 40
    assert reasons(steps)[:5] == "tcccc"
    assert "t" in reasons(steps)[5:8]
    moves = np.array([step.executed.action[0] for step in steps])
    assert np.abs(np.diff(moves)).max() <= 0.0125 * (1 + 1e-5)


def test_a_small_delay_is_no_jump():
    clock = Clock(jumps=[(100.3, 0.03)])
    summary, steps, _ = driven(clock)
    assert summary.jumps == 0
    assert "c" * 8 in reasons(steps)


def test_any_exception_is_an_emergency_stop():
    clock = Clock()
    robot = FakeRobot(CONFIG, clock)

    def press():
        if clock.time > 100.5:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        driven(clock, robot=robot, told=press)
    assert robot.stopped
    with pytest.raises(RobotLost):
        robot.hold()


def test_someone_may_end_the_episode_and_the_arm_comes_to_rest():
    clock = Clock()
    robot = FakeRobot(CONFIG, clock)
    summary, steps, _ = driven(clock, robot=robot, told=lambda: clock.time > 100.29)
    assert summary.ending == "told"
    assert reasons(steps)[-1] == "c"
    place = robot.tools.copy()
    clock.time += DT
    robot.hold()
    np.testing.assert_allclose(robot.tools, place, atol=1e-4)
    assert not robot.stopped


def test_what_was_executed_is_recorded_and_what_was_clipped_is_logged(tmp_path):
    log, recorder = Log(tmp_path / "drive.jsonl"), Recorder()
    clock = Clock()
    robot = FakeRobot(CONFIG, clock)
    thinker = Scripted(clock, move=0.5)

    def hear(step):
        log.hear(step)
        recorder.hear(step)

    summary = Loop(robot, thinker, clock, DRIVE).run(hear)
    log.close()
    demonstration = recorder.demonstration(robot.observe(), instruction="move", success=False)
    assert demonstration.actions.shape == (40, 7)
    assert demonstration.frames["front"].shape == (41, 32, 32, 3)
    assert np.abs(demonstration.actions[:, 0]).max() <= 0.025 + 1e-6
    lines = [json.loads(line) for line in (tmp_path / "drive.jsonl").read_text().splitlines()]
    assert summary.clipped["speed"] > 10
    clipped = [line for line in lines if line["clipped"]]
    assert len(clipped) >= summary.clipped["speed"]
    assert clipped[0]["wanted"][0] == pytest.approx(0.5)
    np.testing.assert_allclose(clipped[0]["executed"], demonstration.actions[clipped[0]["step"]], atol=1e-6)


# -------------------------------------------------------------------------------------------- background


class Gate:
    """A policy that decides when it may."""

    connected = True

    def __init__(self):
        self.may = threading.Event()

    def decide(self, observation, deadline_s):
        if not self.may.wait(10):
            raise PolicyLost("late")
        if observation.instruction == "fail":
            raise PolicyLost("gone")
        return ActionChunk(actions=np.full((1, 1), deadline_s, np.float32))


def finished(thinker):
    for _ in range(10_000):
        answer = thinker.answer()
        if answer is not None:
            return answer
        threading.Event().wait(0.001)
    raise AssertionError("no answer")


def test_decisions_in_the_background():
    policy = Gate()
    thinker = BackgroundThinker(policy, 0.25)
    seen = FakeRobot(CONFIG, Clock()).observe()
    assert thinker.answer() is None
    thinker.ask(seen)
    assert thinker.answer() is None
    policy.may.set()
    assert finished(thinker).actions[0, 0] == 0.25
    assert thinker.answer() is None
    thinker.ask(replace(seen, instruction="fail"))
    with pytest.raises(PolicyLost):
        finished(thinker)
    thinker.close()
