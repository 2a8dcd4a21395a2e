"""Many clients, and many broken frames."""

import asyncio
import resource

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from lastr1.serve.keys import request_of
from lastr1.serve.wire import pack, unpack

FRAMES = 1000


def broken(rng, whole):
    """A request with something wrong with it, one way or another."""
    kind = rng.integers(6)
    if kind == 0:
        return rng.bytes(int(rng.integers(1, 200)))
    if kind == 1:
        return whole[: int(rng.integers(1, len(whole)))]
    if kind == 2:
        return whole + rng.bytes(3)
    if kind == 3:
        return "{" + "x" * int(rng.integers(100))
    if kind == 4:  # length, type or key bytes somewhere in the first hundred are changed
        spoilt = bytearray(whole)
        for place in rng.integers(0, 100, 8):
            spoilt[place] ^= 0x80
        return bytes(spoilt)
    return pack({"prompt": "go", "observation/images/camera0": np.zeros((4, 4, 3), np.float32)})


def memory():
    """Largest resident size so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_broken_frames(served, observations, capfd):
    """Each is answered with one line; no traceback, nobody waits, and the memory stays where it was."""
    (seen,) = observations(1)
    whole = pack(request_of(seen, 60_000.0))
    rng = np.random.default_rng(0)

    async def throw(url, frame):
        async with connect(url, compression=None, proxy=None) as line:
            await line.recv()
            await line.send(frame)
            answer = await asyncio.wait_for(line.recv(), 10)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(line.recv(), 10)
            return answer

    async def scene(url):
        answers, sizes = [], []
        for _ in range(FRAMES):
            answers.append(await throw(url, broken(rng, whole)))
            sizes.append(memory())
        async with connect(url, compression=None, proxy=None) as line:
            await line.recv()
            await line.send(whole)
            assert isinstance(await line.recv(), bytes)
        return answers, sizes

    with served() as (url, server, _):
        answers, sizes = asyncio.run(scene(url))
    assert all(isinstance(a, str) and len(a.splitlines()) == 1 for a in answers)
    assert server.metrics.refused["WireError"] == FRAMES
    assert sizes[-1] - sizes[FRAMES // 10] < 16
    assert "Traceback" not in "".join(capfd.readouterr())


def test_32_clients_at_once(served, observations):
    """Everybody gets the answer to their own question, and most of them share a forward pass."""
    seen = observations(32)
    for value, o in enumerate(seen):
        o.images["camera0"][0, 0, 0] = value

    async def one(url, o, rounds):
        async with connect(url, compression=None, proxy=None) as line:
            await line.recv()
            found = []
            for _ in range(rounds):
                await line.send(pack(request_of(o, 60_000.0)))
                found.append(unpack(await line.recv())["actions"][0, 0] * 255)
            return found

    with served() as (url, server, thinker):

        async def scene():
            return await asyncio.gather(*(one(url, o, 5) for o in seen))

        answers = asyncio.run(scene())
    assert np.allclose(answers, np.arange(32)[:, None])
    assert server.metrics.decisions == 160
    assert sum(size for size, _ in thinker.calls) == 160
