"""The policy server as robots meet it: round trips, a crowd, deadlines, broken frames and memory.

python -m benchmarks.serve

Starts `lastr1 serve tabletop` with the shipped base in a process of its own and talks to it over loopback.
`--openpi DIR` adds PyPI's client, from an environment made by `make openpi`.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from lastr1.config import ServeConfig
from lastr1.envs.tabletop import TabletopEnv
from lastr1.serve.client import PolicyClient
from lastr1.serve.keys import request_of
from lastr1.serve.loadtest import loadtest
from lastr1.serve.wire import pack
from lastr1.train.run import BUILTIN
from lastr1.types import Observation, Start

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def server(recipe: str = "tabletop", checkpoint: Path = BUILTIN, *knobs: str) -> Iterator[tuple[int, str]]:
    """Process id and address."""
    words = ["serve", recipe, "--checkpoint", str(checkpoint), "--serve.port", "0", *knobs]
    command = "import sys; from lastr1.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", command, *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = ""
    while "ws://" not in line:
        line = process.stderr.readline()
        print(line.rstrip())
        assert line, "the server ended"
    try:
        yield process.pid, re.findall(r"ws://[\d.]+:\d+", line)[0]
    finally:
        process.terminate()
        print(process.communicate()[1].rstrip(), f"(exit code {process.returncode})")


def told(name: str, milliseconds: list[float]) -> None:
    p50, p95, p99 = np.quantile(milliseconds, (0.5, 0.95, 0.99))
    print(f"{name}: {len(milliseconds)} round trips, p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms")


def resident(pid: int) -> float:
    """MB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def episodes(url: str, tasks: int) -> None:
    """Episodes of the base's own suite through our client."""
    env, trips, overhead, solved = TabletopEnv("tabletop_base", size=96), [], [], 0
    with PolicyClient(url, timeout_s=10) as client:
        for task in range(tasks):
            seen, over = env.reset(Start(task=task, seed=1)), False
            while not over:
                began = time.perf_counter()
                chunk = client.decide(seen, 60.0)
                trips.append(1000 * (time.perf_counter() - began))
                overhead.append(trips[-1] - client.timing["infer_ms"])
                outcome = env.play(chunk)
                seen, over = outcome.observation, outcome.terminated or outcome.truncated
            solved += outcome.terminated
    print(f"episodes solved: {solved} of {tasks}")
    told("lastr1 client", trips)
    told("of which outside the forward pass", overhead)


def openpi(url: str, environment: Path) -> None:
    for names in ("lastr1", "libero", "droid"):
        script = ROOT / "tests/serve/openpi_robot.py"
        done = subprocess.run(
            [environment / "bin/python", script, url.rpartition(":")[2], names],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        *lines, _ = map(json.loads, done.stdout.splitlines())
        print(f"openpi-client, {names} names: solved {[e['success'] for e in lines]}")
        told("openpi-client", [t for e in lines for t in e["trips_ms"]])


async def broken(url: str, seen: Observation, count: int) -> list[float]:
    """Milliseconds until each broken frame was answered with a line and the connection was closed."""
    rng, whole, waited = np.random.default_rng(0), pack(request_of(seen, 1e4)), []
    for number in range(count):
        kinds = (
            rng.bytes(100),
            whole[: rng.integers(1, len(whole))],
            whole + b"x",
            whole.replace(b"|u1", b"|O8"),
        )
        spoilt = kinds[number % len(kinds)]
        began = time.perf_counter()
        async with connect(url, compression=None, proxy=None) as line:
            await line.recv()
            await line.send(spoilt)
            answer = await asyncio.wait_for(line.recv(), 10)
            assert isinstance(answer, str), answer
            assert "\n" not in answer, answer
            try:
                await asyncio.wait_for(line.recv(), 10)
            except ConnectionClosed:
                waited.append(1000 * (time.perf_counter() - began))
    assert len(waited) == count
    return waited


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--openpi", type=Path)
    parser.add_argument("--requests", type=int, default=50)
    given = parser.parse_args()
    seen = TabletopEnv("tabletop_base", size=96).reset(Start(task=0, seed=1))
    with server() as (pid, url):
        episodes(url, 40)
        if given.openpi:
            openpi(url, given.openpi)
        for clients, deadline in ((1, 60_000), (8, 60_000), (32, 60_000), (32, 1000), (32, 500), (32, 250)):
            config = ServeConfig(load_clients=clients, load_requests=given.requests, deadline_ms=deadline)
            print(f"deadline {deadline} ms: {loadtest(url, config)}")
        asyncio.run(broken(url, seen, 100))
        before = resident(pid)
        rest = asyncio.run(broken(url, seen, 1000))
        told("broken frames, each over a connection of its own", rest)
        print(f"memory: {before:.1f} MB before the last 1,000 of them, {resident(pid):.1f} MB after")
        with urlopen(url.replace("ws", "http") + "/metrics") as page:
            print(page.read().decode())


if __name__ == "__main__":
    main()
