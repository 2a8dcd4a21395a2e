"""`lastr1 serve` and `lastr1 loadtest` as people type them."""

import os
import queue
import signal
import subprocess
import sys
import threading

import pytest

from lastr1.cli import main
from lastr1.config import ServeConfig
from lastr1.envs.tabletop import TabletopEnv
from lastr1.serve.access import required_key, stored_key
from lastr1.serve.client import PolicyClient
from lastr1.serve.engine import PolicyThinker
from lastr1.serve.job import greeting_of
from lastr1.train.run import BUILTIN
from lastr1.types import Start, UserError


@pytest.fixture
def command(tmp_path):
    """`command(*knobs)`: a server's process, its address, and the lines it prints."""
    started = []

    def start(*knobs):
        words = ["serve", "tabletop", "--checkpoint", BUILTIN, "--serve.port", 0, "--serve.max-batch", 4]
        program = "import sys; from lastr1.cli import main; sys.exit(main(sys.argv[1:]))"
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, (*words, *knobs))],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "LASTR1_API_KEY": ""},
        )
        lines = queue.Queue()
        reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stderr])
        reader.start()
        started.append((process, reader))
        line = ""
        while "ws://" not in line:
            line = lines.get(timeout=120)
        return process, line.partition(" at ")[2].partition(";")[0], lines

    yield start
    for process, reader in started:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()


@pytest.mark.slow
def test_an_episode_then_sigterm(command):
    """The shipped base solves a task through client and server; SIGTERM ends the server with exit code 0."""
    process, url, lines = command()
    env = TabletopEnv("tabletop_base", size=96)
    seen, over = env.reset(Start(task=0, seed=1)), False
    with PolicyClient(url, timeout_s=10) as client:
        client.match(env.spec)
        while not over:
            outcome = env.play(client.decide(seen, 30.0))
            seen, over = outcome.observation, outcome.terminated or outcome.truncated
        assert outcome.terminated
        assert client.timing["cap"] == 4.0
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    said = [lines.get(timeout=10)]
    while not said[-1].startswith("serve: stopped after "):
        said.append(lines.get(timeout=10))
    assert "Traceback" not in "".join(said)


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.delenv("LASTR1_API_KEY", raising=False)


def test_loadtest(served, tiny, plain, capsys):
    bundle = tiny()
    with served(thinker=PolicyThinker(bundle), greeting=greeting_of(bundle, 1000.0)) as (url, server, _):
        knobs = ["--serve.load-clients", "3", "--serve.load-requests", "4", "--serve.deadline-ms", "60000"]
        assert main(["loadtest", "tabletop", "--server", url, *knobs]) == 0
    out = capsys.readouterr().out
    assert out.startswith("3 clients, 12 decisions in ")
    assert "0 refused; round trip p50 " in out
    assert server.metrics.decisions == 12


def test_mistakes(refused, plain, tmp_path, served):
    with served() as (url, _, _):
        pass
    assert "is `lastr1 serve` there" in refused("loadtest", "tabletop", "--server", url)
    assert "serve needs --checkpoint" in refused("serve", "tabletop")
    assert "is not a policy" in refused("serve", "tabletop", "--checkpoint", tmp_path)
    line = refused("serve", "tabletop", "--checkpoint", BUILTIN, "--serve.host", "0.0.0.0")
    assert "LASTR1_API_KEY" in line


def test_a_port_that_is_taken(refused, plain, served):
    with served() as (url, _, _):
        port = url.rpartition(":")[2]
        line = refused(
            "serve", "tabletop", "--checkpoint", BUILTIN, "--serve.port", port, "--serve.max-batch", 1
        )
    assert "choose another --serve.port" in line


def test_keys(monkeypatch, plain, tmp_path):
    path = tmp_path / "key"
    here, others = ServeConfig(), ServeConfig(host="0.0.0.0")
    assert required_key(here) == ""
    with pytest.raises(UserError, match="can be reached by others"):
        required_key(others)
    monkeypatch.setenv("LASTR1_API_KEY", "from the air")
    assert required_key(others) == "from the air"
    for text in (None, "", "two words\n", "clé\n"):
        if text is not None:
            path.write_text(text)
        with pytest.raises(UserError, match="on one line"):
            stored_key(ServeConfig(api_key_file=str(path)))
    path.write_text("sesame\n")
    assert required_key(ServeConfig(host="0.0.0.0", api_key_file=str(path))) == "sesame"
