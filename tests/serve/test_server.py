"""The policy server against well-behaved, clumsy and hostile clients."""

import http.client
import socket
import threading
from urllib.parse import urlsplit

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lastr1.serve.keys import request_of
from lastr1.serve.wire import pack, understand, unpack


def dial(url, **options):
    return connect(url, compression=None, max_size=None, proxy=None, **options)


def fetch(url, path, key=None):
    """Status and body of a plain HTTP request."""
    parts = urlsplit(url)
    line = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    line.request("GET", path, headers={"Authorization": f"Api-Key {key}"} if key else {})
    answer = line.getresponse()
    body = answer.read().decode()
    line.close()
    return answer.status, body


@pytest.fixture
def frame(observations):
    """`frame(value=0, **more)`: a request whose first pixel is `value`."""

    def make(value=0, deadline_ms=60_000.0, **more):
        (seen,) = observations(1)
        seen.images["camera0"][0, 0, 0] = value
        return pack({**request_of(seen, deadline_ms), **more})

    return make


def test_a_decision(served, frame, robot):
    with served() as (url, _, _), dial(url) as line:
        greeting = understand(line.recv())
        assert (greeting.robot, greeting.chunk, greeting.groups) == (robot(), 3, 4)
        for value in (51, 255):
            line.send(frame(value))
            reply = unpack(line.recv())
            assert reply["actions"].dtype == np.float32
            assert np.allclose(reply["actions"], np.full((3, 4), value / 255))
        timing = reply["server_timing"]
        assert (timing["groups"], timing["cap"], timing["latents"], timing["batch"]) == (4, 4, 8, 1)
        assert timing["total_ms"] >= timing["infer_ms"] >= 0
        assert timing["p99_ms"] >= timing["p95_ms"] >= timing["p50_ms"] > 0
        assert timing["latents_mean"] == 8.0


def test_healthz_and_metrics(served, frame):
    with served() as (url, _, _):
        assert fetch(url, "/healthz") == (200, "OK\n")
        with dial(url) as line:
            line.recv()
            line.send(frame())
            line.recv()
            status, text = fetch(url, "/metrics")
        assert status == 200
        assert "lastr1_clients 1\n" in text
        assert "lastr1_decision_seconds_count 1\n" in text
        assert fetch(url, "/secrets")[0] == 404


def test_a_key_is_asked_for(served):
    with served(key="open sesame") as (url, server, _):
        for headers in ({}, {"Authorization": "Api-Key open sesam"}, {"Authorization": "Bearer open sesame"}):
            with pytest.raises(InvalidStatus) as found:
                dial(url, additional_headers=headers)
            assert found.value.response.status_code == 401
        with dial(url, additional_headers={"Authorization": "Api-Key open sesame"}) as line:
            understand(line.recv())
        assert fetch(url, "/healthz")[0] == 200
        assert fetch(url, "/metrics")[0] == 401
        assert fetch(url, "/metrics", "open sesame")[0] == 200
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), timeout=10) as plain:
            plain.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Api-Key \xff\r\n\r\n")
            assert b"401" in plain.recv(100)
        assert server.metrics.refused["key"] == 5


def test_a_web_page_is_refused(served):
    with served() as (url, _, _), pytest.raises(InvalidStatus) as found:
        dial(url, origin="http://evil.example")
    assert found.value.response.status_code == 403


def test_not_more_clients_than_allowed(served):
    with served(max_clients=2) as (url, _, _), dial(url) as one, dial(url) as two:
        one.recv(), two.recv()
        with pytest.raises(InvalidStatus) as found:
            dial(url)
        assert found.value.response.status_code == 503


def test_not_more_requests_than_allowed(served, frame):
    """The bucket holds 5: the sixth in a row is refused, and nothing else happens to it."""
    with served(max_rate=5.0) as (url, server, _), dial(url) as line:
        line.recv()
        answers = []
        while not answers or isinstance(answers[-1], bytes):
            line.send(frame())
            answers.append(line.recv())
        assert len(answers) > 5
        assert answers[-1] == "more than 5 requests per second: slow down"
        assert server.metrics.refused["TooOften"] == 1
        while isinstance(answers[-1], str):
            line.send(frame())
            answers.append(line.recv())


def test_a_frame_too_large(served):
    with served(max_frame_mb=0.01) as (url, _, _), dial(url) as line:
        line.recv()
        line.send(bytes(20_000))
        with pytest.raises(ConnectionClosed) as found:
            line.recv()
        assert found.value.rcvd.code == 1009


def test_a_firm_deadline_is_refused_and_the_line_stays(served, frame):
    """A group takes 10 s, so it is said."""
    with served(step=10.0) as (url, _, _), dial(url) as line:
        line.recv()
        line.send(frame(deadline_ms=5000.0))
        assert line.recv().startswith("late: a decision takes 10000 ms")
        line.send(frame(deadline_ms=25_000.0))
        assert unpack(line.recv())["server_timing"]["cap"] == 2


def test_without_a_deadline_the_server_s_shapes_the_thought(served, frame):
    with served(step=10.0, deadline_ms=35_000.0) as (url, _, _), dial(url) as line:
        line.recv()
        line.send(frame(deadline_ms=None))
        timing = unpack(line.recv())["server_timing"]
        assert (timing["cap"], timing["deadline_ms"]) == (3, 35_000.0)


WRONG = {
    "not msgpack": b"\xc1",
    "a list": pack([1, 2]),
    "text": "hello",
    "no image": pack({"prompt": "go"}),
    "an object array": msgpack.packb({b"__ndarray__": True, b"data": b"", b"dtype": "|O", b"shape": [0]}),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_malformed_frame_is_answered_with_a_line(served, capfd, case):
    with served() as (url, server, _), dial(url) as line:
        line.recv()
        line.send(WRONG[case])
        answer = line.recv()
        assert isinstance(answer, str)
        assert len(answer.splitlines()) == 1
        with pytest.raises(ConnectionClosed) as found:
            line.recv()
        assert found.value.rcvd.code == 1011
        assert server.metrics.refused["WireError"] == 1
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_failing_policy_is_told(served, frame):
    with served() as (url, _, thinker), dial(url) as line:
        line.recv()
        thinker.failure = RuntimeError("out of memory")
        line.send(frame())
        assert line.recv() == "the policy failed: out of memory"
        thinker.failure = None
        line.send(frame())
        assert isinstance(line.recv(), bytes)


def test_noise_on_the_port(served, frame, capfd):
    """Half handshakes and plain noise: a line each, no traceback, and others are served."""
    with served() as (url, _, _):
        parts = urlsplit(url)
        for noise in (b"\0\1\2\3\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"):
            with socket.create_connection((parts.hostname, parts.port), timeout=10) as plain:
                plain.sendall(noise)
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(4096):
                    pass
        with dial(url) as line:
            line.recv()
            line.send(frame())
            assert isinstance(line.recv(), bytes)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_mistake_of_ours_is_a_line(served, frame, capfd, caplog):
    """It costs one connection, and what logging would print of it, traceback and all, is a line."""
    with served() as (url, server, _):
        answer, server._answer = server._answer, None
        with dial(url) as line:
            line.recv()
            line.send(frame())
            with pytest.raises(ConnectionClosed):
                line.recv()
        server._answer = answer
        with dial(url) as line:
            line.recv()
            line.send(frame())
            assert isinstance(line.recv(), bytes)
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("serve: connection handler failed: ")
    assert not caplog.records


def test_a_client_that_leaves_without_a_word(served, frame):
    """Its request is dropped before it is decided."""
    with served() as (url, server, thinker):
        thinker.gate.clear()
        with dial(url) as first, dial(url) as second:
            first.recv(), second.recv()
            first.send(frame())
            assert thinker.entered.wait(10)
            with dial(url) as rude:
                rude.recv()
                rude.send(frame())
                rude.socket.shutdown(socket.SHUT_RDWR)
            wait_until(lambda: server.metrics.refused["Late"] == 1)
            second.send(frame())
            thinker.gate.set()
            assert isinstance(first.recv(), bytes)
            assert isinstance(second.recv(), bytes)
        assert [size for size, _ in thinker.calls] == [1, 1]


def wait_until(true, seconds=10.0):
    tick = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        tick.wait(0.01)
    raise AssertionError("it never came true")


def test_drain(served, frame):
    """The request under way is answered; idle clients are sent home; nobody new is let in."""
    with served() as (url, server, thinker):
        thinker.gate.clear()
        with dial(url) as busy, dial(url) as idle:
            busy.recv(), idle.recv()
            busy.send(frame(255))
            assert thinker.entered.wait(10)
            server.stop()
            with pytest.raises(ConnectionClosed) as found:
                idle.recv(timeout=10)
            assert found.value.rcvd.code == 1001
            with pytest.raises(OSError):
                dial(url)
            thinker.gate.set()
            assert np.allclose(unpack(busy.recv(timeout=10))["actions"], 1.0)
            with pytest.raises(ConnectionClosed) as found:
                busy.recv(timeout=10)
            assert found.value.rcvd.code == 1001


def test_a_drain_does_not_wait_for_ever(served, frame):
    with served(drain_s=0.2) as (url, server, thinker):
        thinker.gate.clear()
        with dial(url) as busy:
            busy.recv()
            busy.send(frame())
            assert thinker.entered.wait(10)
            server.stop()
            with pytest.raises(ConnectionClosed):
                busy.recv(timeout=10)
            thinker.gate.set()
