"""A policy server in a thread, with a policy of a few lines."""

import asyncio
import contextlib
import queue
import threading

import numpy as np
import pytest

from lastr1.config import ServeConfig
from lastr1.serve.batcher import Batch, Batcher, Cost, Costs
from lastr1.serve.server import PolicyServer
from lastr1.serve.wire import Greeting
from lastr1.types import ActionChunk

GROUPS, CHUNK = 4, 3


class Echo:
    """Acts on the first pixel of its first camera, after as many groups as it may; `gate` holds it up."""

    groups = GROUPS

    def __init__(self, robot):
        self.robot = robot
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.calls = []  # (batch, cap)
        self.failure = None

    def decide(self, observations, cap):
        self.calls.append((len(observations), cap))
        self.entered.set()
        assert self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        camera = self.robot.cameras[0].name
        actions = [
            np.full((CHUNK, len(self.robot.action)), o.images[camera][0, 0, 0] / 255, np.float32)
            for o in observations
        ]
        return Batch(
            chunks=tuple(ActionChunk(actions=a) for a in actions),
            groups=(cap,) * len(observations),
            ran=cap,
        )


@pytest.fixture
def thinker(robot):
    return Echo(robot())


@pytest.fixture(scope="session")
def costs():
    """`costs(step=1e-6)`: a quiet machine, `step` seconds per group, nothing for company."""

    def make(step=1e-6):
        return Costs({k: Cost(alone=k * step, further=0.0) for k in range(1, GROUPS + 1)})

    return make


@pytest.fixture
def served(robot, costs):
    """`served(spec=None, key="", step=1e-6, **knobs)`: a context with (url, server, thinker).

    With a `thinker` and its `greeting`, these in place of an echo.
    """

    @contextlib.contextmanager
    def start(*, thinker=None, greeting=None, spec=None, key="", step=1e-6, **knobs):
        spec = spec or robot()
        thinker = thinker or Echo(spec)
        config = ServeConfig(**{"port": 0, "deadline_ms": 10_000.0, **knobs})
        ports, loops = queue.Queue(), queue.Queue()
        server = PolicyServer(
            Batcher(thinker, costs(step), config.max_batch),
            greeting
            or Greeting(robot=spec, chunk=CHUNK, groups=GROUPS, latents_per_group=2, deadline_ms=1.0),
            config,
            key,
        )
        failures = []

        async def live():
            stop = asyncio.Event()
            loops.put((asyncio.get_running_loop(), stop))
            await server.run(stop, ports.put)

        def work():
            try:
                asyncio.run(live())
            except Exception as error:
                failures.append(error)
                ports.put(None)

        thread = threading.Thread(target=work)
        thread.start()
        port = ports.get(timeout=10)
        loop, stop = loops.get(timeout=10)
        server.stop = lambda: loop.call_soon_threadsafe(stop.set)
        try:
            yield f"ws://127.0.0.1:{port}", server, thinker
        finally:
            if isinstance(thinker, Echo):
                thinker.gate.set()
            with contextlib.suppress(RuntimeError):  # it stopped by itself
                server.stop()
            thread.join(20)
        assert not thread.is_alive()
        if failures:
            raise failures[0]

    return start
