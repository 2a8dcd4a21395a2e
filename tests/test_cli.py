"""The command line: every mistake is one clear line and exit code 2; Ctrl-C leaves a whole checkpoint."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from lastr1.cli import JOBS, main
from lastr1.presets import RECIPES

TOY = {
    "base": "scratch", "threads": 1,
    "env.slots": 4, "env.workers": 0, "env.image": 32,
    "policy.image": 32,
    "backbone.hidden": 32, "backbone.layers": 1, "backbone.heads": 2, "backbone.kv-heads": 1,
    "backbone.head-dim": 16, "backbone.mlp": 32, "backbone.patch": 8, "backbone.vision-hidden": 16,
    "backbone.vision-layers": 1, "backbone.vision-heads": 2, "backbone.vision-mlp": 16,
    "warmup.iterations": 2, "warmup.batch": 4,
    "reinforce.iterations": 2, "reinforce.episodes": 4, "reinforce.checkpoint-every": 1,
    "evaluate.episodes": 4,
}  # fmt: skip
KNOBS = [str(x) for knob, value in TOY.items() for x in (f"--{knob}", value)]
PROGRAM = [sys.executable, "-c", "import sys; from lastr1.cli import main; sys.exit(main())"]


def run(job, recipe, *knobs):
    return main([job, recipe, *KNOBS, *map(str, knobs)])


@pytest.fixture
def refused(capsys):
    """`refused(*arguments)`: the line on stderr; checks that it is the only one, and the exit code 2."""

    def check(*arguments):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        return _complaint(err)

    return check


def _complaint(err):
    lines = [line for line in err.splitlines() if not _progress(line)]
    assert len(lines) == 1, err
    assert lines[0].startswith("lastr1: ")
    assert "Traceback" not in err
    return lines[0]


def _progress(line):
    return line.startswith(("collect ", "warm-up: ", "train: ", "evaluate: ", "demonstrations: "))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Demonstrations, a warmed-up policy and a finished run of `tabletop`; not to be changed."""
    root = tmp_path_factory.mktemp("work")
    assert run("collect", "tabletop", "--out", root / "demos") == 0
    assert run("warmup", "tabletop", "--demos", root / "demos", "--out", root / "warmup") == 0
    policy = root / "warmup" / "last"
    assert run("train", "tabletop", "--checkpoint", policy, "--out", root / "train") == 0
    return root


@pytest.fixture
def copied(work, tmp_path):
    """`copied(name)`: a copy of one of its folders that may be damaged."""

    def make(name):
        return Path(shutil.copytree(work / name, tmp_path / "copy"))

    return make


# Before anything begins.


def test_usage_lists_every_job_and_recipe(capsys):
    for arguments in ([], ["--help"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert all(f"  {name} " in out for name in JOBS)
        assert all(f"  {name}\n" in out for name in RECIPES)


def test_help_of_a_job_lists_its_knobs(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "tabletop", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for knob in ("--lapo.clip-high", "--reinforce.episodes", "--out", "--resume", "--policy.temperature"):
        assert knob in out


WRONG = {
    "job": (["trian", "tabletop"], ["no job 'trian'", "did you mean 'train'?", "evaluate"]),
    "recipe": (["train", "tabltop"], ["no recipe 'tabltop'", "did you mean 'tabletop'?", "libero_10"]),
    "no recipe": (["train", "--seed", "1"], ["name a recipe", "tabletop_dual"]),
    "knob": (["train", "tabletop", "--lapo.clip-hihg", "0.3"], ["--lapo.clip-hihg", "--lapo.clip-high"]),
    "word": (["train", "tabletop", "--seed", "x"], ["--seed", "'x'"]),
    "fraction": (["train", "tabletop", "--threads", "1.5"], ["--threads", "'1.5'"]),
    "range": (["train", "tabletop", "--env.slots", "0"], ["slots must be positive, not 0"]),
    "two knobs": (["train", "tabletop", "--backbone.kv-heads", "3"], ["heads 4", "kv_heads 3"]),
    "choice": (["train", "tabletop", "--policy.eval-stop", "never"], ["'never'", "first", "max", "mode"]),
    "suite": (["collect", "tabletop", "--env.suite", "tabletob"], ["no suite 'tabletob'", "libero_goal"]),
    "no value": (["train", "tabletop", "--seed"], ["--seed"]),
    "no checkpoint": (["evaluate", "tabletop"], ["evaluate needs --checkpoint"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistyped_command(refused, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    arguments, words = WRONG[case]
    line = refused(*arguments)
    assert [word for word in words if word not in line] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("job", ["collect", "warmup", "train", "evaluate"])
def test_a_task_that_does_not_exist(refused, work, tmp_path, job):
    policy = work / "warmup" / "last"
    line = refused(
        job, "tabletop", *KNOBS, "--env.tasks", 99, "--out", tmp_path / "out", "--checkpoint", policy
    )
    assert line == "lastr1: tabletop has no task 99: choose 0..3"


# Files that are missing, damaged, or somebody else's.


@pytest.mark.parametrize("job", ["train", "evaluate"])
def test_a_missing_checkpoint(refused, tmp_path, job):
    line = refused(job, "tabletop", *KNOBS, "--checkpoint", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert line == f"lastr1: {tmp_path / 'nowhere'} is not a policy: lastr1.json is missing"


def test_a_missing_base(refused, work, tmp_path):
    line = refused(
        "warmup", "tabletop", *KNOBS, "--demos", work / "demos", "--base", tmp_path, "--out", tmp_path / "out"
    )
    assert f"{tmp_path} is not a policy" in line


def test_after_a_failed_start_the_same_folder_can_be_used(refused, work, tmp_path):
    refused("train", "tabletop", *KNOBS, "--checkpoint", tmp_path / "typo", "--out", tmp_path / "out")
    policy = work / "warmup" / "last"
    assert run("train", "tabletop", "--checkpoint", policy, "--out", tmp_path / "out") == 0


DAMAGE = {
    "model.safetensors": [lambda content: content[:-100], lambda content: content[:20], lambda _: b""],
    "lastr1.json": [
        lambda content: content[: len(content) // 2],
        lambda _: b"{}",
        lambda _: b"[]",
        lambda _: b'{"format": 1}',
        lambda content: content.replace(b'"chunk"', b'"chonk"'),
        lambda content: content.replace(b'"stop_candidates": 4', b'"stop_candidates": "four"'),
        lambda content: content.replace(b'"low"', b'"least"'),
    ],
    "statistics.json": [lambda _: b"", lambda _: b"{}", lambda content: content.replace(b"q99", b"q98")],
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("job", ["evaluate", "train"])
def test_a_damaged_checkpoint(refused, copied, tmp_path, name, job):
    policy = copied("warmup/last")
    content = (policy / name).read_bytes()
    for number, damage in enumerate(DAMAGE[name]):
        assert damage(content) != content
        (policy / name).write_bytes(damage(content))
        line = refused(job, "tabletop", *KNOBS, "--checkpoint", policy, "--out", tmp_path / f"out{number}")
        assert str(policy / name) in line


def test_missing_demonstrations(refused, tmp_path):
    line = refused("warmup", "tabletop", *KNOBS, "--demos", tmp_path, "--out", tmp_path / "out")
    assert f"{tmp_path}/meta/info.json is missing" in line


@pytest.mark.parametrize("name", ["meta/info.json", "meta/tasks.parquet", "data/chunk-000/file-000.parquet"])
def test_damaged_demonstrations(refused, copied, tmp_path, name):
    demos = copied("demos")
    content = (demos / name).read_bytes()
    for number, damaged in enumerate((content[: len(content) // 2], b"", b"{}")):
        (demos / name).write_bytes(damaged)
        line = refused("warmup", "tabletop", *KNOBS, "--demos", demos, "--out", tmp_path / f"out{number}")
        assert str(demos) in line


def test_fewer_demonstrations_than_asked_for(refused, work, tmp_path):
    line = refused(
        "warmup",
        "tabletop",
        *KNOBS,
        "--demos",
        work / "demos",
        "--collect.episodes",
        2,
        "--out",
        tmp_path / "out",
    )
    assert "task 0 has 1 demonstrations, 2 are asked for" in line


def test_demonstrations_of_another_robot(refused, work, tmp_path):
    line = refused("warmup", "tabletop_dual", *KNOBS, "--demos", work / "demos", "--out", tmp_path / "out")
    assert f"{work / 'demos'} does not fit tabletop_dual" in line
    assert "left_gripper" in line


def test_demonstrations_of_another_camera(refused, work, tmp_path):
    line = refused(
        "warmup", "tabletop", *KNOBS, "--env.image", 64, "--demos", work / "demos", "--out", tmp_path / "out"
    )
    assert "height=32" in line
    assert "height=64" in line


@pytest.mark.parametrize("job", ["evaluate", "train"])
def test_a_policy_of_another_robot(refused, work, tmp_path, job):
    policy = work / "warmup" / "last"
    line = refused(job, "tabletop_dual", *KNOBS, "--checkpoint", policy, "--out", tmp_path / "out")
    assert f"{policy} drives another robot than tabletop_dual" in line
    assert "left_gripper" in line


def test_a_policy_that_was_taught_otherwise(refused, work, tmp_path):
    policy = work / "warmup" / "last"
    line = refused(
        "train",
        "tabletop",
        *KNOBS,
        "--policy.stop-candidates",
        2,
        "--checkpoint",
        policy,
        "--out",
        tmp_path / "out",
    )
    assert "policy.stop_candidates 4, the recipe says 2" in line


# Folders that cannot be used, and runs that cannot be resumed.


@pytest.mark.parametrize("job", ["warmup", "train"])
def test_a_folder_that_holds_a_run(refused, work, job):
    before = sorted(work.rglob("*"))
    line = refused(job, "tabletop", *KNOBS, "--out", work / job, "--checkpoint", work / "warmup" / "last")
    assert line.endswith(
        f"{work / job} already holds a run: choose another --out, or continue it with --resume"
    )
    assert sorted(work.rglob("*")) == before


def test_a_folder_that_holds_demonstrations(refused, work):
    assert f"{work / 'demos'} exists" in refused("collect", "tabletop", *KNOBS, "--out", work / "demos")


def test_resuming_nothing(refused, tmp_path):
    line = refused("train", "tabletop", *KNOBS, "--resume", "--out", tmp_path / "out")
    assert f"{tmp_path / 'out'} holds no run to continue" in line
    assert not (tmp_path / "out").exists()


def test_resuming_with_other_knobs_shows_the_difference(refused, work):
    line = refused(
        "train", "tabletop", *KNOBS, "--resume", "--out", work / "train", "--seed", 3, "--lapo.discount", 0.9
    )
    assert "seed: 0 against 3" in line
    assert "lapo.discount: 0.99 against 0.9" in line


@pytest.mark.parametrize(
    "name", ["config.json", "last/run.json", "last/optimizer.safetensors", "last/lastr1.json"]
)
def test_resuming_a_damaged_run(refused, copied, name):
    out = copied("train")
    content = (out / name).read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"{}", b"[]"):
        (out / name).write_bytes(damaged)
        assert str(out) in refused("train", "tabletop", *KNOBS, "--resume", "--out", out)
    (out / name).unlink()
    assert str(out) in refused("train", "tabletop", *KNOBS, "--resume", "--out", out)


@contextmanager
def full_disk(size):
    """No file may grow beyond `size` bytes; Python ignores the signal, so writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("job", ["collect", "warmup", "train"])
def test_no_space(refused, work, tmp_path, job):
    """The line, and nothing half-written left behind."""
    folders = ("--demos", work / "demos", "--checkpoint", work / "warmup" / "last")
    with full_disk(20_000):
        line = refused(job, "tabletop", *KNOBS, *folders, "--out", tmp_path / "out")
    assert "no space left" in line
    assert "choose another --out" in line
    left = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert not {"model.safetensors", "info.json"} & set(left)
    assert not [name for name in left if name.startswith(".")]


def test_no_space_keeps_the_last_checkpoint(refused, copied):
    """A run of 2 iterations, set back to 1: the third save does not fit, the first is still there."""
    out = copied("train")
    facts = json.loads((out / "last" / "run.json").read_text())
    (out / "last" / "run.json").write_text(json.dumps({**facts, "step": 1}))
    before = {p.name: p.read_bytes() for p in (out / "last").iterdir()}
    with full_disk(20_000):
        assert "no space left" in refused("train", "tabletop", *KNOBS, "--resume", "--out", out)
    assert {p.name: p.read_bytes() for p in (out / "last").iterdir()} == before


@pytest.mark.parametrize("job", ["collect", "warmup", "train", "evaluate"])
def test_a_folder_that_cannot_be_used(refused, work, tmp_path, job):
    """A file where a folder should be; below a file; where nobody may write, root neither."""
    (tmp_path / "file").write_text("mine")
    outs = [tmp_path / "file", tmp_path / "file" / "below"]
    if sys.platform == "linux":
        outs.append(Path("/sys/lastr1"))
    policy = work / "warmup" / "last"
    for out in outs:
        line = refused(
            job, "tabletop", *KNOBS, "--demos", work / "demos", "--checkpoint", policy, "--out", out
        )
        assert str(out.parent) in line
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("knob", ["demos", "checkpoint"])
def test_a_file_instead_of_a_folder(refused, work, tmp_path, knob):
    (tmp_path / "file").write_text("mine")
    job = "warmup" if knob == "demos" else "train"
    line = refused(job, "tabletop", *KNOBS, f"--{knob}", tmp_path / "file", "--out", tmp_path / "out")
    assert str(tmp_path / "file") in line


# As a process of its own.


@pytest.mark.slow
def test_as_a_process(tmp_path):
    """Help and mistakes answer without importing torch."""
    code = "import sys; from lastr1.cli import main; c = main(); sys.exit(99 * ('torch' in sys.modules) or c)"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "tabletop", "--lapo.clip-hihg", "0.3"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert "--lapo.clip-high" in _complaint(done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_ctrl_c_leaves_a_checkpoint_that_loads(work, tmp_path, workers):
    """SIGINT to the whole group, as a terminal does: code 130, one line, no process left behind."""
    policy, out = work / "warmup" / "last", tmp_path / "run"
    knobs = ["--reinforce.iterations", "100000", "--env.workers", str(workers)]
    process = subprocess.Popen(
        [*PROGRAM, "train", "tabletop", *KNOBS, *knobs, "--checkpoint", str(policy), "--out", str(out)],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        _wait_until((out / "last" / "run.json").exists, process)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert _complaint(stderr) == "lastr1: interrupted; the last checkpoint is whole"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    checkpoint = out / "last"
    assert run("evaluate", "tabletop", "--checkpoint", checkpoint, "--out", tmp_path / "found") == 0
    assert json.loads((tmp_path / "found" / "result.json").read_text())["total"]["episodes"] == 4
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def _wait_until(condition, process, limit=300):
    deadline = time.monotonic() + limit
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.05)
