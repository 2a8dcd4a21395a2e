"""The robot's side of the policy server: numpy, msgpack and websockets only.

Axes: C control steps, A action size.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
from websockets.protocol import State

from lastr1.serve.keys import request_of
from lastr1.serve.wire import Greeting, WireError, agree, pack, understand, unpack
from lastr1.spec import RobotSpec
from lastr1.types import ActionChunk, Observation, UserError

T = TypeVar("T")
LARGEST_REPLY = 2**24
"""bytes"""


class PolicyLost(Exception):
    """No answer in time: the server is late, gone, or refuses what it was asked.  The robot has to hold."""


class PolicyClient:
    """A connection to `lastr1 serve`; one decision at a time, from any thread.

    A late answer costs the connection: what was asked is out of date, and the server drops it with the
    connection.  The next `decide` connects anew, within its own deadline.
    """

    def __init__(self, url: str, *, timeout_s: float, api_key: str = "") -> None:
        """`PolicyLost` when no server of ours answers in `timeout_s`; `UserError`: wrong key or address."""
        self._url = url
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._connection: ClientConnection | None = None
        self._overhead = 0.0
        self.timing: dict[str, float] = {}
        """what the server said about the last decision (docs/SERVING.md)"""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="policy client", daemon=True)
        self._thread.start()
        try:
            self._greeting = self._within(timeout_s, self._connect())
        except BaseException:
            self.close()
            raise

    @property
    def spec(self) -> RobotSpec:
        """The robot that the served policy was taught to drive."""
        return self._greeting.robot

    @property
    def chunk(self) -> int:
        """C: control steps of a decision."""
        return self._greeting.chunk

    @property
    def connected(self) -> bool:
        """Whether the server is there, as far as the network has said; `decide` connects anew."""
        return self._connection is not None and self._connection.state is State.OPEN

    def match(self, robot: RobotSpec) -> None:
        """`UserError` names every camera, state, action and rate in which `robot` differs from `spec`."""
        agree(self.spec, robot)

    def decide(self, observation: Observation, deadline_s: float) -> ActionChunk:
        """A chunk [C, A] in `spec.action` units, within `deadline_s` seconds.  `PolicyLost` otherwise."""
        return self._within(deadline_s, self._decide(observation, deadline_s))

    def close(self) -> None:
        """Hang up; safe to call twice."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> "PolicyClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Run on the loop's thread; whatever goes wrong there leaves no connection behind."""

        async def limited() -> T:
            try:
                async with asyncio.timeout(seconds):
                    return await work
            except BaseException:
                self._drop()
                raise

        try:
            return asyncio.run_coroutine_threadsafe(limited(), self._loop).result()
        except TimeoutError:
            raise PolicyLost(f"{self._url} did not answer within {seconds:g} s") from None
        except (OSError, WebSocketException, WireError, CancelledError) as error:
            raise PolicyLost(f"{self._url}: {error or type(error).__name__}") from None

    async def _connect(self) -> Greeting:
        try:
            self._connection = await connect(
                self._url,
                compression=None,
                max_size=LARGEST_REPLY,
                additional_headers=self._headers,
                proxy=None,  # a robot and its server share a network
                open_timeout=None,  # the caller's limit counts
            )
        except InvalidURI as error:
            raise UserError(f"no server address {self._url!r} ({error}): use ws://HOST:PORT") from None
        except InvalidStatus as error:
            if error.response.status_code == 401:
                raise UserError(f"{self._url} refuses this API key: give the server's") from None
            raise
        first = await self._connection.recv()
        if isinstance(first, str):
            raise WireError(first)
        return understand(first)

    async def _decide(self, observation: Observation, deadline_s: float) -> ActionChunk:
        began = time.perf_counter()
        if self._connection is None:
            greeting = await self._connect()
            if greeting != self._greeting:
                raise WireError("another policy is served there now: start the robot anew")
        assert self._connection is not None
        left = deadline_s - (time.perf_counter() - began) - self._overhead
        sent = time.perf_counter()
        await self._connection.send(pack(request_of(observation, max(1.0, 1000 * left))))
        reply = await self._connection.recv()
        actions, self.timing = _read(reply, self._greeting)
        # What the way there and back takes is not the server's to spend.
        self._overhead = min(0.5 * deadline_s, time.perf_counter() - sent - self.timing["total_ms"] / 1000)
        return ActionChunk(actions=actions)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.transport.abort()

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await connection.close()
            connection.transport.abort()


def _read(reply: str | bytes, greeting: Greeting) -> tuple[Any, dict[str, float]]:
    if isinstance(reply, str):
        raise WireError(reply)
    message = unpack(reply)
    shape = (greeting.chunk, len(greeting.robot.action))
    actions = message["actions"] if isinstance(message, dict) and "actions" in message else None
    if not isinstance(actions, np.ndarray) or actions.shape != shape or actions.dtype != np.float32:
        raise WireError(f"the answer holds no actions f32 {list(shape)}")
    if not np.isfinite(actions).all():
        raise WireError("the answer holds actions that are not finite")
    timing = message.get("server_timing")
    if not isinstance(timing, dict) or not isinstance(timing.get("total_ms"), float):
        raise WireError("the answer does not say how long it took (server_timing)")
    return actions, timing
