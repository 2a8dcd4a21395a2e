"""Keyboard, SpaceMouse and gamepad as ways to intervene: each gives the same few signals.  Torch-free.

Axes: A action size.
"""

import os
import select
import termios
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lastr1.config import InteractiveConfig
from lastr1.envs.base import Env
from lastr1.rollout.human import Intervention, Nobody, Verdict, scripted
from lastr1.spec import RobotSpec
from lastr1.types import Floats, Observation, Outcome, UserError

AXES = ("x", "y", "z", "roll", "pitch", "yaw")
HELD = 0.3
"""seconds that the controls stay with a person after the last signal: keys repeat, hands rest for a moment"""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What a device says since it was last read."""

    move: tuple[float, float, float, float, float, float] = (0.0,) * 6
    """`AXES`, -1..1 of what the robot's limits allow"""
    toggle: bool = False
    """open or close the gripper"""
    switch: bool = False
    """drive the other arm"""
    verdict: Verdict | None = None

    @property
    def active(self) -> bool:
        """The person wants the controls."""
        return self.toggle or self.switch or any(abs(v) > 0.05 for v in self.move)

    def then(self, later: "Signals") -> "Signals":
        """Both, one after the other."""
        return Signals(
            move=later.move if any(later.move) else self.move,
            toggle=self.toggle != later.toggle,
            switch=self.switch != later.switch,
            verdict=later.verdict or self.verdict,
        )


class Device(Protocol):
    """Something a hand is on."""

    def read(self) -> Signals:
        """Without waiting."""

    def close(self) -> None:
        """Let go of it."""


class Hand:
    """Turns the signals of any device into actions of the robot: the one arm that it drives at a time."""

    def __init__(self, spec: RobotSpec, device: Device, clock: Callable[[], float] = time.monotonic) -> None:
        self._spec, self._device, self._clock = spec, device, clock
        self._prefixes = tuple(dict.fromkeys(prefix_of(dim.name)[0] for dim in spec.action))
        self._grip: dict[str, float] = {}
        self._until, self._arm = 0.0, 0
        self._said = Signals()

    def begin(self) -> None:
        """Nothing is held over from the last episode, nor from the time between."""
        self._device.read()
        self._said, self._until, self._grip = Signals(), 0.0, {}

    def act(self, observation: Observation, proposed: Floats) -> Floats | None:  # noqa: ARG002
        """The action [A] under the person's hand; None when it rests."""
        self._hear()
        said, now = self._said, self._clock()
        self._said = Signals(verdict=said.verdict)
        if said.active:
            self._until = now + HELD
        if now >= self._until or not self._grip:
            # A person takes over the grippers as the policy last told them.
            self._grip = {
                prefix_of(dim.name)[0]: float(value > 0.5)
                for dim, value in zip(self._spec.action, proposed, strict=True)
                if dim.binary
            }
        if now >= self._until:
            return None
        self._arm = (self._arm + said.switch) % len(self._prefixes)
        prefix = self._prefixes[self._arm]
        if said.toggle:
            self._grip[prefix] = 1.0 - self._grip[prefix]
        action = np.array(self._spec.hold, dtype=np.float32)
        for i, dim in enumerate(self._spec.action):
            arm, name = prefix_of(dim.name)
            if dim.binary:
                action[i] = self._grip[arm]
            elif arm == prefix:
                value = said.move[AXES.index(name)]
                action[i] = value * (dim.high if value > 0 else -dim.low)
        return action

    def judge(self, outcome: Outcome) -> Verdict | None:
        """What the operator says; after the simulator has ended the episode, it waits for that."""
        self._hear()
        while self._said.verdict is None and (outcome.terminated or outcome.truncated):
            time.sleep(0.02)
            self._hear()
        return self._said.verdict

    def close(self) -> None:
        """Let go of the device."""
        self._device.close()

    def _hear(self) -> None:
        """Add what is said now to what the next action has to follow."""
        self._said = self._said.then(self._device.read())


def prefix_of(name: str) -> tuple[str, str]:
    """`left_x` -> (`left_`, `x`); `x` -> (``, `x`)."""
    arm, mark, axis = name.rpartition("_")
    return arm + mark, axis


MOVES = {"w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "r": (2, 1), "f": (2, -1),
         "u": (3, 1), "o": (3, -1), "i": (4, 1), "k": (4, -1), "j": (5, 1), "l": (5, -1)}  # fmt: skip
"""key -> axis and sign"""
VERDICTS: dict[str, Verdict] = {"\n": "success", "\r": "success", "\x7f": "failure", "x": "discard"}
"""Enter, Backspace, x"""


class Keyboard:
    """The terminal that the job was started in: w a s d r f move, u o i k j l turn, space grips, Tab changes
    arms; Enter confirms success, Backspace failure, x discards the episode.
    """

    def __init__(self, terminal: str = "/dev/tty") -> None:
        """`UserError` without a terminal."""
        try:
            self._handle = os.open(terminal, os.O_RDONLY | os.O_NONBLOCK)
            self._before = termios.tcgetattr(self._handle)
        except (OSError, termios.error) as error:
            raise UserError(
                f"interactive.human keyboard needs a terminal ({error}): start lastr1 in one, or use none"
            ) from None
        tty.setcbreak(self._handle)

    def read(self) -> Signals:
        """Every key since the last look."""
        ready, _, _ = select.select([self._handle], [], [], 0.0)
        return understood(os.read(self._handle, 4096).decode(errors="ignore") if ready else "")

    def close(self) -> None:
        """The terminal as it was."""
        termios.tcsetattr(self._handle, termios.TCSADRAIN, self._before)
        os.close(self._handle)


def understood(keys: str) -> Signals:
    """What keys mean; of several verdicts the last counts."""
    move = [0.0] * 6
    for axis, sign in (MOVES[key] for key in keys if key in MOVES):
        move[axis] = float(sign)
    verdicts = [VERDICTS[key] for key in keys if key in VERDICTS]
    x, y, z, roll, pitch, yaw = move
    return Signals(
        move=(x, y, z, roll, pitch, yaw),
        toggle=keys.count(" ") % 2 == 1,
        switch=keys.count("\t") % 2 == 1,
        verdict=verdicts[-1] if verdicts else None,
    )


class _Buttons:
    """Presses, not how long they last."""

    def __init__(self) -> None:
        self._down: tuple[bool, ...] = ()

    def pressed(self, now: tuple[bool, ...]) -> tuple[bool, ...]:
        before = self._down or (False,) * len(now)
        self._down = now
        return tuple(is_down and not was for is_down, was in zip(now, before, strict=True))


class SpaceMouse:
    """A 3Dconnexion SpaceMouse through pyspacemouse: its left button grips, its right one changes arms.

    Verdicts come from the terminal's keyboard.
    """

    def __init__(self) -> None:
        """`UserError` without the library or the device."""
        library = _library("pyspacemouse", "spacemouse")
        self._device = library.open()
        if not self._device:
            raise UserError("interactive.human spacemouse: none is plugged in; plug it in, or use keyboard")
        self._buttons, self._keys = _Buttons(), Keyboard()

    def read(self) -> Signals:
        """Where the cap is pushed."""
        now = self._device.read()
        grip, other = self._buttons.pressed(tuple(bool(b) for b in now.buttons[:2]))
        return Signals(
            move=(now.y, -now.x, now.z, now.roll, now.pitch, -now.yaw),
            toggle=grip,
            switch=other,
            verdict=self._keys.read().verdict,
        )

    def close(self) -> None:
        """Free both."""
        self._device.close()
        self._keys.close()


class Gamepad:
    """A gamepad through pygame: sticks move and turn; A grips, B changes arms, Start confirms success, Back
    failure, Y discards.
    """

    def __init__(self) -> None:
        """`UserError` without the library or the device."""
        self._library = _library("pygame", "gamepad")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        self._library.init()
        if not self._library.joystick.get_count():
            raise UserError("interactive.human gamepad: none is plugged in; plug one in, or use keyboard")
        self._pad = self._library.joystick.Joystick(0)
        self._buttons = _Buttons()

    def read(self) -> Signals:
        """Sticks and buttons."""
        self._library.event.pump()
        left_x, left_y, right_x, right_y = (self._pad.get_axis(i) for i in (0, 1, 3, 4))
        names = (0, 1, 3, 6, 7)  # A, B, Y, Back, Start of an Xbox pad
        grip, other, drop, back, start = self._buttons.pressed(
            tuple(bool(self._pad.get_button(i)) for i in names)
        )
        verdicts: dict[Verdict, bool] = {"success": start, "failure": back, "discard": drop}
        said = [verdict for verdict, pressed in verdicts.items() if pressed]
        return Signals(
            move=(-left_y, -left_x, -right_y, 0.0, 0.0, -right_x),
            toggle=grip,
            switch=other,
            verdict=said[0] if said else None,
        )

    def close(self) -> None:
        """Free the library."""
        self._library.quit()


def _library(name: str, device: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"interactive.human {device} needs {name} ({error}): pip install {name}, or use keyboard"
        ) from None


def make_human(job: InteractiveConfig, env: Env) -> Intervention:
    """The person of a run.  `UserError` when the device is not here."""
    if job.human == "none":
        return Nobody()
    if job.human == "scripted":
        return scripted(env, patience=job.patience, help_steps=job.help_steps)
    devices: dict[str, Callable[[], Device]] = {
        "keyboard": Keyboard,
        "spacemouse": SpaceMouse,
        "gamepad": Gamepad,
    }
    return Hand(env.spec, devices[job.human]())
