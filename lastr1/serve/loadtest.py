"""The job behind `lastr1 loadtest`: many clients at once against a policy server.  Torch-free."""

import asyncio
import time
from dataclasses import dataclass

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from lastr1.config import ServeConfig
from lastr1.serve.access import stored_key
from lastr1.serve.keys import request_of
from lastr1.serve.wire import Greeting, WireError, pack, understand, unpack
from lastr1.spec import RobotSpec
from lastr1.types import Observation, UserError


@dataclass(frozen=True, kw_only=True)
class Load:
    """What many clients saw."""

    clients: int
    seconds: float
    trips_ms: tuple[float, ...]
    """of every answered request, there and back"""
    latents: tuple[float, ...]
    """of every thought"""
    batches: tuple[float, ...]
    """requests that were decided together, as each of them saw it"""
    refused: int

    def __str__(self) -> str:
        p50, p95, p99 = np.quantile(self.trips_ms or (np.nan,), (0.5, 0.95, 0.99))
        rate = len(self.trips_ms) / self.seconds
        return (
            f"{self.clients} clients, {len(self.trips_ms)} decisions in {self.seconds:.1f} s ({rate:.1f}/s), "
            f"{self.refused} refused; round trip p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms; "
            f"{np.mean(self.latents or 0):.1f} latents, batches of {np.mean(self.batches or 0):.1f}"
        )


def loadtest(url: str, config: ServeConfig) -> Load:
    """`load_clients` clients send `load_requests` random pictures each, one after the other.

    `UserError` when there is no server.
    """
    return asyncio.run(_load(url, config, stored_key(config)))


async def _load(url: str, config: ServeConfig, api_key: str) -> Load:
    began = time.perf_counter()
    try:
        found = await asyncio.gather(
            *(_client(url, config, api_key, seed) for seed in range(config.load_clients))
        )
    except (OSError, WebSocketException, WireError) as error:
        raise UserError(f"{url}: {error}; is `lastr1 serve` there, and does it take so many?") from None
    answers = [answer for client in found for answer in client if answer is not None]
    return Load(
        clients=config.load_clients,
        seconds=time.perf_counter() - began,
        trips_ms=tuple(trip for trip, _ in answers),
        latents=tuple(timing["latents"] for _, timing in answers),
        batches=tuple(timing["batch"] for _, timing in answers),
        refused=config.load_clients * config.load_requests - len(answers),
    )


async def _client(
    url: str, config: ServeConfig, api_key: str, seed: int
) -> list[tuple[float, dict[str, float]] | None]:
    """Round trip (ms) and the server's own timing of every request; None where it was refused."""
    headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
    rng = np.random.default_rng(seed)
    answers: list[tuple[float, dict[str, float]] | None] = []
    async with connect(url, compression=None, additional_headers=headers, proxy=None) as connection:
        greeting = _greeting(await connection.recv())
        for _ in range(config.load_requests):
            frame = pack(request_of(_random(greeting.robot, rng), config.deadline_ms))
            sent = time.perf_counter()
            await connection.send(frame)
            reply = await connection.recv()
            trip = 1000 * (time.perf_counter() - sent)
            answers.append((trip, unpack(reply)["server_timing"]) if isinstance(reply, bytes) else None)
    return answers


def _greeting(first: str | bytes) -> Greeting:
    if isinstance(first, str):
        raise WireError(first)
    return understand(first)


def _random(robot: RobotSpec, rng: np.random.Generator) -> Observation:
    return Observation(
        images={
            camera.name: rng.integers(0, 256, (camera.height, camera.width, 3), dtype=np.uint8)
            for camera in robot.cameras
        },
        state=np.array([rng.uniform(dim.low, dim.high) for dim in robot.state], np.float32),
        instruction="put the red block into the tray",
    )
