"""The robot's side: answers in time, or `PolicyLost`."""

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from lastr1.serve.client import PolicyClient, PolicyLost
from lastr1.types import UserError


@pytest.fixture
def seen(observations):
    (found,) = observations(1)
    found.images["camera0"][0, 0, 0] = 51
    return found


def test_a_decision(served, robot, seen):
    with served() as (url, _, _), PolicyClient(url, timeout_s=10) as client:
        assert (client.spec, client.chunk) == (robot(), 3)
        chunk = client.decide(seen, 10.0)
        assert chunk.actions.dtype == np.float32
        assert np.allclose(chunk.actions, np.full((3, 4), 0.2))
        assert client.timing["latents"] == 8.0
        assert client.timing["deadline_ms"] <= 10_000


def test_a_robot_that_differs(served, robot):
    with served() as (url, _, _), PolicyClient(url, timeout_s=10) as client:
        client.match(robot())
        with pytest.raises(UserError, match="rate"):
            client.match(replace(robot(), rate=5.0))


def test_nobody_there(served):
    with served() as (url, _, _):
        pass
    with pytest.raises(PolicyLost, match=url):
        PolicyClient(url, timeout_s=10)


def test_no_address():
    for url in ("nowhere", "http://127.0.0.1:1"):
        with pytest.raises(UserError, match="ws://HOST:PORT"):
            PolicyClient(url, timeout_s=10)


def test_a_wrong_key(served):
    with served(key="sesame") as (url, _, _):
        with pytest.raises(UserError, match="refuses this API key"):
            PolicyClient(url, timeout_s=10, api_key="simsim")
        PolicyClient(url, timeout_s=10, api_key="sesame").close()


def test_a_late_answer_is_no_answer(served, seen):
    """Within its deadline the client gives up; the next decision is on time again, over a new connection."""
    with served() as (url, _, thinker), PolicyClient(url, timeout_s=10) as client:
        thinker.gate.clear()
        began = time.perf_counter()
        with pytest.raises(PolicyLost, match=r"within 0\.2 s"):
            client.decide(seen, 0.2)
        assert 0.2 <= time.perf_counter() - began < 2.0
        thinker.gate.set()
        assert np.allclose(client.decide(seen, 10.0).actions, 0.2)


def test_a_refusal_is_told(served, seen):
    wrong = replace(seen, state=np.zeros(5, np.float32))
    with served() as (url, _, _), PolicyClient(url, timeout_s=10) as client:
        with pytest.raises(PolicyLost, match="observation/state: 5 numbers"):
            client.decide(wrong, 10.0)
        client.decide(seen, 10.0)


def test_a_server_that_dies_and_one_that_takes_its_place(served, robot, seen):
    with served() as (url, _, _):
        client = PolicyClient(url, timeout_s=10)
        client.decide(seen, 10.0)
    port = int(url.rpartition(":")[2])
    with pytest.raises(PolicyLost):
        client.decide(seen, 10.0)
    with served(port=port) as (_, _, _):
        client.decide(seen, 10.0)
    with pytest.raises(PolicyLost):
        client.decide(seen, 10.0)
    with (
        served(port=port, spec=replace(robot(), rate=5.0)),
        pytest.raises(PolicyLost, match="another policy is served"),
    ):
        client.decide(seen, 10.0)
    client.close()
    client.close()


def test_without_torch():
    """What a robot's computer imports: numpy, msgpack and websockets."""
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'transformers', 'tokenizers', 'rich', 'tyro', 'PIL')))\n"
        "import lastr1.serve.client\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
