"""Who takes over, when, and what a device's signals become."""

import os
import pty
import sys
from dataclasses import replace

import numpy as np
import pytest

from lastr1.config import EnvConfig, InteractiveConfig
from lastr1.envs import make_env
from lastr1.envs.base import Start
from lastr1.envs.expert import TabletopExpert
from lastr1.envs.libero_stack import libero_spec
from lastr1.envs.tabletop import TabletopEnv, robot
from lastr1.rollout.devices import HELD, Hand, Keyboard, Signals, make_human, understood
from lastr1.rollout.human import Nobody, ScriptedHuman
from lastr1.types import ActionChunk, Observation, Outcome, UserError


def step(env, human, action):
    """One control step; whether the person drove, and the outcome."""
    given = human.act(None, action)
    outcome = env.play(ActionChunk(actions=np.asarray(given if given is not None else action)[None]))
    return given is not None, outcome


@pytest.fixture
def push():
    env = TabletopEnv("tabletop", size=16)
    env.reset(Start(task=1, seed=0))
    return env


def test_the_script_leaves_a_policy_alone_that_makes_progress(push):
    human, expert = ScriptedHuman(push, patience=4, help_steps=8), TabletopExpert()
    human.begin()
    while True:
        drove, outcome = step(push, human, expert.act(push))
        assert not drove
        if outcome.terminated:
            break
    assert human.judge(outcome) == "success"


def test_the_script_takes_over_from_an_idle_policy_lets_go_and_loses_patience_again(push):
    human, hold = ScriptedHuman(push, patience=4, help_steps=6), np.array(push.spec.hold, dtype=np.float32)
    human.begin()
    due = human.remaining()
    drove = [step(push, human, hold)[0] for _ in range(20)]
    # idle steps are wasted one by one: seen at the look after the fifth, then 6 steps of help
    assert drove == [False] * 8 + [True] * 6 + [False] * 6
    assert human.remaining() == pytest.approx(due - 6, abs=1)


def test_an_episode_that_is_lost_is_taken_over_at_once(push):
    human = ScriptedHuman(push, patience=1000, help_steps=3)
    human.remaining = lambda: float("inf")
    human.begin()
    assert human.act(None, None) is not None


def test_nobody_takes_the_simulators_word():
    seen = Observation(images={}, state=np.zeros(1), instruction="")
    outcome = Outcome(observation=seen, reward=0, terminated=False, truncated=True, steps=1)
    assert Nobody().act(seen, np.zeros(4)) is None
    assert Nobody().judge(outcome) is None
    assert Nobody().judge(replace(outcome, truncated=False, terminated=True)) == "success"


class Script:
    """A device that says what it was told to; first, what was said before the episode."""

    def __init__(self, *said):
        self.said = list(said)

    def read(self):
        return self.said.pop(0) if self.said else Signals()

    def close(self):
        self.said = None


def seen(spec, **values):
    state = np.array([values.get(dim.name, 0.0) for dim in spec.state], dtype=np.float32)
    return Observation(images={}, state=state, instruction="")


def test_a_hand_takes_over_and_rests():
    spec, now = robot(dual=False, size=16), [0.0]
    hand = Hand(spec, Script(Signals(), Signals(), Signals(move=(0.5, 0, 0, 0, 0, 0))), clock=lambda: now[0])
    hand.begin()
    view, opening = seen(spec), np.array([0, 0, 0, 1.0])
    assert hand.act(view, opening) is None
    # the gripper stays as it is until it is told otherwise
    np.testing.assert_allclose(hand.act(view, opening), [0.5, 0, 0, 1])
    np.testing.assert_allclose(hand.act(view, spec.hold), [0, 0, 0, 1])
    now[0] = HELD + 0.01
    assert hand.act(view, spec.hold) is None


def test_one_arm_at_a_time():
    spec = robot(dual=True, size=16)
    push_z = (0.0, 0.0, -1.0, 0.0, 0.0, 0.0)
    hand = Hand(
        spec,
        Script(Signals(), Signals(move=push_z, toggle=True), Signals(move=push_z, switch=True)),
        clock=lambda: 0.0,
    )
    hand.begin()
    view, opening = seen(spec), np.array([0, 0, 0, 1.0, 0, 0, 0, 1.0])
    np.testing.assert_allclose(hand.act(view, opening), [0, 0, -1, 0, 0, 0, 0, 1])
    np.testing.assert_allclose(hand.act(view, spec.hold), [0, 0, 0, 0, 0, 0, -1, 1])


def test_the_operator_confirms():
    spec = robot(dual=False, size=16)
    view = seen(spec)
    over = Outcome(observation=view, reward=1, terminated=True, truncated=False, steps=1)
    going = replace(over, terminated=False)
    hand = Hand(spec, Script(Signals(), Signals(), Signals(), Signals(verdict="failure")), clock=lambda: 0.0)
    hand.begin()
    assert hand.judge(going) is None
    # the simulator says it is solved: it waits for the operator, who says otherwise
    assert hand.judge(over) == "failure"
    hand.begin()
    assert hand.judge(going) is None


def test_what_is_said_while_a_control_step_is_played_counts_in_the_next():
    """At the robot's rate nearly everything is typed then, and it is `judge` that reads it first."""
    spec = robot(dual=False, size=16)
    view = seen(spec)
    going = Outcome(observation=view, reward=0, terminated=False, truncated=False, steps=1)
    typed = Signals(move=(0, -1.0, 0, 0, 0, 0), toggle=True)
    hand = Hand(spec, Script(Signals(), typed, Signals()), clock=lambda: 0.0)
    hand.begin()
    assert hand.judge(going) is None
    np.testing.assert_allclose(hand.act(view, np.array([0, 0, 0, 1.0])), [0, -1, 0, 0])
    # once
    np.testing.assert_allclose(hand.act(view, spec.hold), [0, 0, 0, 0])


def test_what_is_said_between_episodes_judges_none():
    spec = robot(dual=False, size=16)
    going = Outcome(observation=seen(spec), reward=0, terminated=False, truncated=False, steps=1)
    hand = Hand(spec, Script(Signals(verdict="success")), clock=lambda: 0.0)
    hand.begin()
    assert hand.judge(going) is None


def test_a_hand_on_libero_keeps_the_gripper_as_the_policy_last_told_it():
    """LIBERO's state says where the fingers are, which something between them keeps apart."""
    spec, now = libero_spec(), [0.0]
    said = [Signals(), Signals(), Signals(move=(0, 0, 1.0, 0, 0, 0)), Signals()]
    hand = Hand(spec, Script(*said), clock=lambda: now[0])
    hand.begin()
    view, closing = seen(spec, left_finger=0.03, right_finger=-0.03), np.zeros(7)
    assert hand.act(view, closing) is None
    opening = np.array([0, 0, 0, 0, 0, 0, 1.0])
    np.testing.assert_allclose(hand.act(view, opening), [0, 0, 1, 0, 0, 0, 0])
    now[0] = HELD + 0.01
    assert hand.act(view, opening) is None


def test_keys():
    said = understood("wwd \t")
    assert said == Signals(move=(1.0, -1.0, 0, 0, 0, 0), toggle=True, switch=True)
    assert understood("\n").verdict == "success"
    assert understood("\x7f").verdict == "failure"
    assert understood("x").verdict == "discard"
    assert not understood("x").active
    assert understood("  ").toggle is False


def test_a_terminal():
    ours, theirs = pty.openpty()
    keyboard = Keyboard(os.ttyname(theirs))
    assert keyboard.read() == Signals()
    os.write(ours, b"r")
    while not (said := keyboard.read()).active:
        pass
    assert said.move[2] == 1.0
    keyboard.close()
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(("human", "library"), [("spacemouse", "pyspacemouse"), ("gamepad", "pygame")])
def test_devices_that_are_not_here(monkeypatch, human, library):
    monkeypatch.setitem(sys.modules, library, None)
    env = make_env(EnvConfig(suite="tabletop", image=16))
    with pytest.raises(UserError, match=f"pip install {library}"):
        make_human(InteractiveConfig(human=human), env)


def test_a_keyboard_needs_a_terminal(tmp_path):
    with pytest.raises(UserError, match="needs a terminal"):
        Keyboard(str(tmp_path / "tty"))


def test_the_script_knows_the_embedded_world_alone():
    class Elsewhere:
        def describe(self):
            return make_env(EnvConfig(suite="tabletop", image=16)).describe()

    with pytest.raises(UserError, match=r"interactive\.human scripted"):
        make_human(InteractiveConfig(), Elsewhere())
