"""The robot's side of a policy: a loop of fixed rate that plays chunks, or holds.  Torch-free.

Every control step commands the robot, whatever the server does: an action of the chunk that is being played,
or hold when there is none because the policy is late, the server is gone, or a camera is dark.
Axes: A action size.
"""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from lastr1.config import DriveConfig
from lastr1.serve.broker import Broker
from lastr1.serve.client import PolicyLost
from lastr1.serve.limits import Executed
from lastr1.serve.robot import CameraLost, Clock, Robot
from lastr1.spec import RobotSpec
from lastr1.types import ActionChunk, Floats, Observation

AGAIN = 0.5
"""seconds between attempts to reach a server that is gone"""
Why = Literal["chunk", "thinking", "no server", "no camera"]
Ending = Literal["time", "patience", "told"]


class Policy(Protocol):
    """What the runtime needs of `PolicyClient`."""

    @property
    def spec(self) -> RobotSpec:
        """The robot it was taught to drive."""

    @property
    def connected(self) -> bool:
        """Whether the server is still there, as far as the network has said."""

    def decide(self, observation: Observation, deadline_s: float) -> ActionChunk:
        """A chunk within `deadline_s` seconds, or `PolicyLost`."""


class Thinker(Protocol):
    """Decisions that are made while the control loop goes on; one at a time."""

    @property
    def connected(self) -> bool:
        """Whether the policy can be reached, as far as is known."""

    def ask(self, observation: Observation) -> None:
        """Begin a decision; only when none is under way."""

    def answer(self) -> ActionChunk | None:
        """The chunk asked for, once; None as long as it is not there.  `PolicyLost`: there will be none."""


class BackgroundThinker:
    """A policy in a thread of its own."""

    def __init__(self, policy: Policy, deadline_s: float) -> None:
        self._policy, self._deadline_s = policy, deadline_s
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy")
        self._future: Future[ActionChunk] | None = None

    @property
    def connected(self) -> bool:
        """Whether the policy can be reached, as far as is known."""
        return self._policy.connected

    def ask(self, observation: Observation) -> None:
        """Begin a decision; only when none is under way."""
        assert self._future is None
        self._future = self._pool.submit(self._policy.decide, observation, self._deadline_s)

    def answer(self) -> ActionChunk | None:
        """The chunk asked for, once; None as long as it is not there.  `PolicyLost`: there will be none."""
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        return future.result()

    def close(self) -> None:
        """Wait for a decision that is under way (at most its deadline)."""
        self._pool.shutdown()


class SystemClock:
    """The clock of this machine, which no change of date moves."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def wait_until(self, moment: float) -> None:
        """Sleep; at once when `moment` has passed."""
        time.sleep(max(0.0, moment - time.monotonic()))


@dataclass(frozen=True, kw_only=True)
class ControlStep:
    """What one control step was."""

    observation: Observation | None
    """what was seen before it; None when a camera was dark"""
    wanted: Floats | None
    """[A] what the policy asked for; None: hold"""
    executed: Executed
    why: Why
    late: float
    """seconds after its moment that the command was given"""


@dataclass(frozen=True, kw_only=True)
class Driven:
    """One episode of driving, summed up."""

    ending: Ending
    steps: int
    """control steps"""
    why: Counter[Why]
    """control steps by what was played: `chunk`, or the reason to hold"""
    clipped: Counter[str]
    """control steps by the limit that changed their action"""
    jumps: int
    """times that the clock jumped, or the loop lost more than a control step"""
    late: tuple[float, ...]
    """seconds, of every control step"""
    lost: str
    """why the policy was lost the last time; empty when it never was"""


class Loop:
    """One episode: `run` is the loop, the other methods are what one control step consists of."""

    def __init__(self, robot: Robot, thinker: Thinker, clock: Clock, config: DriveConfig) -> None:
        self._robot, self._thinker, self._clock, self._config = robot, thinker, clock, config
        self._broker = Broker(
            play=config.play,
            ahead=config.ahead,
            blend=config.blend,
            binary=[dim.binary for dim in robot.spec.action],
        )
        self._period = 1 / robot.spec.rate
        self._asking = self._stale = False
        self._retry = -float("inf")
        self._trouble: Why = "thinking"
        self._jumps = 0
        self._lost = ""

    def run(
        self, listen: Callable[[ControlStep], None], told_to_end: Callable[[], bool] = lambda: False
    ) -> Driven:
        """Drive until time is up, patience is, or someone says so; `listen` hears of every control step.

        `RobotLost` as it comes.  However this ends, the robot is at rest or brakes by itself: any exception
        (also Ctrl-C) is an emergency stop.
        """
        why: Counter[Why] = Counter()
        clipped: Counter[str] = Counter()
        late, idle = [], 0
        steps, patience = (round(x / self._period) for x in (self._config.seconds, self._config.patience))
        ending: Ending = "time"
        try:
            moment = self._clock.now()
            for _ in range(steps):
                moment = self._wait(moment)
                step = self._control(moment)
                why[step.why] += 1
                clipped.update(step.executed.clipped)
                late.append(step.late)
                idle = idle + 1 if step.why in ("no server", "no camera") else 0
                listen(step)
                if idle >= patience or told_to_end():
                    ending = "patience" if idle >= patience else "told"
                    break
            self._rest(moment)
        except BaseException:
            self._robot.stop()
            raise
        return Driven(
            ending=ending,
            steps=len(late),
            why=why,
            clipped=clipped,
            jumps=self._jumps,
            late=tuple(late),
            lost=self._lost,
        )

    def _wait(self, moment: float) -> float:
        """When the next control step begins; after a jump of the clock that is now: no burst of steps."""
        moment += self._period
        gap = self._clock.now() - moment
        if -2 * self._period < gap < self._period:
            self._clock.wait_until(moment)
            return moment
        self._jumps += 1
        self._forget()
        return self._clock.now()

    def _control(self, moment: float) -> ControlStep:
        seen = self._look()
        self._think(seen, moment)
        playing = not self._broker.empty and seen is not None
        wanted = self._broker.next() if playing else None
        late = self._clock.now() - moment
        executed = self._robot.hold() if wanted is None else self._robot.command(wanted)
        why: Why = "chunk" if playing else ("no camera" if seen is None else self._trouble)
        return ControlStep(observation=seen, wanted=wanted, executed=executed, why=why, late=late)

    def _look(self) -> Observation | None:
        """What is seen now; a dark camera ends the chunk that is being played: nobody sees what it does."""
        try:
            return replace(self._robot.observe(), instruction=self._config.instruction)
        except CameraLost:
            self._forget()
            return None

    def _think(self, seen: Observation | None, moment: float) -> None:
        """Take an answer, notice that the server is gone, ask anew."""
        try:
            answer = self._thinker.answer()
        except PolicyLost as error:
            self._asking = False
            self._lose(moment, str(error))
            return
        if answer is not None:
            if not self._stale:
                self._broker.take(answer.actions)
                self._trouble = "thinking"
            self._asking = self._stale = False
        if not self._broker.empty and not self._thinker.connected:
            self._lose(moment, "the server hung up")
        if seen is not None and self._broker.wants and not self._asking and moment >= self._retry:
            self._thinker.ask(seen)
            self._broker.asked()
            self._asking = True

    def _forget(self) -> None:
        """Chunks decided for a moment that is gone are not played, nor is the one that is under way."""
        self._broker.drop()
        self._stale = self._asking

    def _lose(self, moment: float, why: str) -> None:
        """The server is late or gone: what is left of its chunk is not played."""
        self._forget()
        self._lost, self._trouble = why, "no server"
        self._retry = moment + AGAIN

    def _rest(self, moment: float) -> None:
        """Hold until the arms stand, so that an episode does not end in motion."""
        for _ in range(round(1 / self._period)):
            moment = self._wait(moment)
            self._robot.hold()
