"""The policy server: openpi's websocket protocol around a batcher.  Torch-free.

A client connects, reads the greeting, then sends one request at a time and reads one answer to each: a packed
{`actions`, `server_timing`}, or a line of text that says what is wrong.  After a frame that cannot be
understood the line is followed by close code 1011; a late or too frequent request costs nothing but itself.
"""

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from lastr1.config import ServeConfig
from lastr1.serve.batcher import Answer, Batcher, Failed, Late
from lastr1.serve.keys import actions_for, deadline_of, naming_of, observation_of
from lastr1.serve.metrics import Metrics, Timing
from lastr1.serve.wire import Greeting, WireError, greet, pack, unpack
from lastr1.train.progress import say

MEGABYTE = 2**20
BROKEN, LEAVING = 1011, 1001
"""close codes: internal error (openpi's for everything), going away"""


class TooOften(Exception):
    """More requests than a client may send: one line."""


@dataclass(kw_only=True)
class Allowance:
    """A token bucket: so many requests per second, a second's worth at once."""

    rate: float
    left: float
    since: float

    def take(self, now: float) -> None:
        """`TooOften` when there is none left."""
        self.left = min(self.rate, self.left + self.rate * (now - self.since))
        self.since = now
        if self.left < 1:
            raise TooOften(f"more than {self.rate:g} requests per second: slow down")
        self.left -= 1


class PolicyServer:
    """Talks to clients; `run` until it is told to stop."""

    def __init__(self, batcher: Batcher, greeting: Greeting, config: ServeConfig, api_key: str = "") -> None:
        self.metrics = Metrics(groups=greeting.groups, latents_per_group=greeting.latents_per_group)
        self._batcher, self._greeting, self._config, self._api_key = batcher, greeting, config, api_key
        self._connections: set[ServerConnection] = set()
        self._busy: set[ServerConnection] = set()
        self._draining = False

    async def run(self, stop: asyncio.Event, ready: Callable[[int], None]) -> None:
        """Serve until `stop` is set, then finish what was asked.  `ready` is told the port."""
        config = self._config
        deciding = asyncio.create_task(self._batcher.run())
        server = await serve(
            self._talk,
            config.host,
            config.port,
            process_request=self._look_at,
            origins=[None],  # robots send no Origin; web pages do, and have no business here
            compression=None,
            max_size=int(config.max_frame_mb * MEGABYTE),
            max_queue=1,  # the protocol is one at a time: more frames in memory serve nobody
            logger=_quiet_logger(),
            server_header=None,
        )
        ready(next(iter(server.sockets)).getsockname()[1])
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({stopping, deciding}, return_when=asyncio.FIRST_COMPLETED)
            if deciding.done():
                deciding.result()  # it never returns: this raises what ended it
            await self._drain(server)
        finally:
            for task in (stopping, deciding):
                task.cancel()
            await asyncio.gather(stopping, deciding, return_exceptions=True)

    async def _drain(self, server: Server) -> None:
        """No new clients, no new requests; answers to those under way; then goodbye."""
        self._draining = True
        server.close(close_connections=False)
        idle = self._connections - self._busy
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_s):
                await asyncio.gather(*(c.close(LEAVING, "the server stops") for c in idle))
                await server.wait_closed()
        for connection in self._connections:
            connection.transport.abort()
        await server.wait_closed()

    def _look_at(self, connection: ServerConnection, request: Request) -> Response | None:
        """The plain HTTP side; None goes on to the websocket."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        if not self._knows(request):
            return self._refuse(connection, "key", HTTPStatus.UNAUTHORIZED, "send Authorization: Api-Key KEY")
        if path == "/metrics":
            return connection.respond(HTTPStatus.OK, self.metrics.text())
        if path != "/":
            return self._refuse(connection, "path", HTTPStatus.NOT_FOUND, "there are /, /healthz, /metrics")
        if len(self._connections) >= self._config.max_clients:
            return self._refuse(connection, "clients", HTTPStatus.SERVICE_UNAVAILABLE, "too many clients")
        return None

    def _knows(self, request: Request) -> bool:
        if not self._api_key:
            return True
        said = request.headers.get_all("Authorization")
        wanted = f"Api-Key {self._api_key}".encode()
        return len(said) == 1 and hmac.compare_digest(said[0].encode(errors="surrogateescape"), wanted)

    def _refuse(self, connection: ServerConnection, why: str, status: HTTPStatus, line: str) -> Response:
        self.metrics.refused[why] += 1
        return connection.respond(status, line + "\n")

    async def _talk(self, connection: ServerConnection) -> None:
        """One client, until it leaves (openpi's do so without a word)."""
        self._connections.add(connection)
        self._count()
        gone = asyncio.create_task(connection.wait_closed())
        allowance = Allowance(
            rate=self._config.max_rate, left=self._config.max_rate, since=time.perf_counter()
        )
        try:
            await connection.send(greet(self._greeting))
            async for frame in connection:
                self._busy.add(connection)
                await self._answer(connection, frame, allowance, gone)
                self._busy.discard(connection)
                if self._draining:
                    await connection.close(LEAVING, "the server stops")
        except ConnectionClosed:
            pass
        finally:
            gone.cancel()
            self._busy.discard(connection)
            self._connections.discard(connection)
            self._count()

    def _count(self) -> None:
        self.metrics.clients = self._batcher.clients = len(self._connections)

    async def _answer(
        self,
        connection: ServerConnection,
        frame: str | bytes,
        allowance: Allowance,
        gone: "asyncio.Task[None]",
    ) -> None:
        arrived = time.perf_counter()
        try:
            allowance.take(arrived)
            reply = await self._reply(frame, arrived, gone)
        except (Late, TooOften, Failed) as error:
            self.metrics.refused[type(error).__name__] += 1
            await connection.send(str(error))
        except WireError as error:
            self.metrics.refused["WireError"] += 1
            await connection.send(_one_line(error))
            await connection.close(BROKEN, "not understood")
        else:
            await connection.send(reply)

    async def _reply(self, frame: str | bytes, arrived: float, gone: "asyncio.Task[None]") -> bytes:
        if isinstance(frame, str):
            raise WireError("a text frame: requests are binary msgpack")
        message = unpack(frame)
        if not isinstance(message, dict):
            raise WireError(f"a request is a map, not a {type(message).__name__}")
        robot = self._greeting.robot
        naming = naming_of(message, robot)
        firm_ms = deadline_of(message)
        deadline_ms = firm_ms or self._config.deadline_ms
        observation = observation_of(message, naming, robot)
        due = arrived + deadline_ms / 1000
        deciding = asyncio.create_task(self._batcher.decide(observation, due, firm=firm_ms is not None))
        await asyncio.wait({deciding, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not deciding.done():
            deciding.cancel()
            raise Late("late: the client has left")
        answer = deciding.result()
        timing = self._timing(answer, arrived, deadline_ms)
        return pack({"actions": actions_for(answer.chunk, naming, robot), "server_timing": timing})

    def _timing(self, answer: Answer, arrived: float, deadline_ms: float) -> dict[str, float]:
        timing = Timing(
            queue_ms=1000 * answer.queue_s,
            infer_ms=1000 * answer.infer_s,
            total_ms=1000 * (time.perf_counter() - arrived),
            deadline_ms=deadline_ms,
            batch=answer.batch,
            groups=answer.groups,
            cap=answer.cap,
            latents=answer.groups * self._greeting.latents_per_group,
        )
        self.metrics.answered(timing)
        figures: dict[str, Any] = asdict(timing)
        lately = {**self.metrics.percentiles(), "latents_mean": self.metrics.mean_latents()}
        return {key: float(value) for key, value in {**figures, **lately}.items()}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


class _OneLine(logging.Handler):
    """What goes wrong below us (a port scan, half a handshake), without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        reason = record.exc_info[1] if record.exc_info else None
        say(
            f"serve: {record.getMessage()}"
            + (f": {_one_line(reason)}" if isinstance(reason, Exception) else "")
        )


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("lastr1.serve")
    logger.handlers, logger.propagate = [_OneLine(logging.ERROR)], False
    return logger
