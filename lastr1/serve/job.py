"""The job behind `lastr1 serve`: a policy on disk, measured, then served until SIGTERM."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from lastr1.config import Config
from lastr1.envs import make_env
from lastr1.model import manifest, weights
from lastr1.model.weights import Bundle
from lastr1.serve.access import required_key
from lastr1.serve.batcher import Batcher
from lastr1.serve.engine import PolicyThinker, measured_costs
from lastr1.serve.server import PolicyServer
from lastr1.serve.wire import Greeting
from lastr1.train import run
from lastr1.train.device import device_of
from lastr1.train.progress import say
from lastr1.types import UserError


def serve_policy(config: Config, checkpoint: Path, ready: Callable[[int], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered.  `ready` is told the port."""
    key = required_key(config.serve)
    run.begin(config)
    # The recipe's threads are for all of its processes, and here is one.
    torch.set_num_threads(max(1, config.threads // config.processes))
    bundle = _load(config, checkpoint)
    thinker = PolicyThinker(bundle, config.serve.max_groups)
    server = PolicyServer(
        Batcher(thinker, measured_costs(thinker, config.serve.max_batch), config.serve.max_batch),
        replace(greeting_of(bundle, config.serve.deadline_ms), groups=thinker.groups),
        config.serve,
        key,
    )

    def announce(port: int) -> None:
        host = config.serve.host
        say(f"serve: {checkpoint} for {bundle.spec.name} at ws://{host}:{port}; /healthz, /metrics")
        ready(port)

    try:
        asyncio.run(_until_told(server, announce))
    except OSError as error:
        raise UserError(
            f"cannot listen on {config.serve.host}:{config.serve.port} ({error}): choose another --serve.port"
        ) from None
    say(f"serve: stopped after {server.metrics.decisions} decisions")


async def _until_told(server: PolicyServer, ready: Callable[[int], None]) -> None:
    stop = asyncio.Event()
    for told in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(told, stop.set)
    await server.run(stop, ready)


def _load(config: Config, checkpoint: Path) -> Bundle:
    """A policy says itself how it thinks and what it drives; a released one does not say the latter."""
    manifest.check(checkpoint, manifest.QUICK)
    robot = None
    if weights.is_foreign(checkpoint):
        env = make_env(config.env)
        robot = env.spec
        env.close()
    bundle = weights.load(checkpoint, robot=robot)
    for remark in bundle.remarks:
        say(f"policy: {remark}")
    bundle.policy.eval().to(device_of(config))
    return bundle


def greeting_of(bundle: Bundle, deadline_ms: float) -> Greeting:
    """What clients are told first."""
    policy = bundle.policy.config
    return Greeting(
        robot=bundle.spec,
        chunk=policy.chunk,
        groups=policy.stop_candidates,
        latents_per_group=policy.latents_per_group,
        deadline_ms=deadline_ms,
    )
