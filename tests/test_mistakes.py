"""Files that are missing, damaged or somebody else's, folders that cannot be used, full disks: one line."""

import resource
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from lastr1.cli import main


@pytest.fixture(scope="module")
def run(toy):
    """`run(job, recipe, ...)`: the exit code of a toy command."""
    return lambda job, recipe, *knobs: main([job, recipe, *toy, *map(str, knobs)])


@pytest.fixture(scope="module")
def work(tmp_path_factory, run):
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
        return Path(shutil.copytree(work / name, tmp_path / "copy", symlinks=True))

    return make


@pytest.mark.parametrize("job", ["collect", "warmup", "train", "evaluate"])
def test_a_task_that_does_not_exist(refused, work, tmp_path, job, toy):
    policy = work / "warmup" / "last"
    line = refused(
        job, "tabletop", *toy, "--env.tasks", 99, "--out", tmp_path / "out", "--checkpoint", policy
    )
    assert line == "lastr1: tabletop has no task 99: choose 0..3"


@pytest.mark.parametrize("job", ["train", "evaluate"])
def test_a_missing_checkpoint(refused, tmp_path, job, toy):
    line = refused(job, "tabletop", *toy, "--checkpoint", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert line == f"lastr1: {tmp_path / 'nowhere'} is not a policy: lastr1.json is missing"


def test_a_missing_base(refused, work, tmp_path, toy):
    line = refused(
        "warmup", "tabletop", *toy, "--demos", work / "demos", "--base", tmp_path, "--out", tmp_path / "out"
    )
    assert f"{tmp_path} is not a policy" in line


def test_after_a_failed_start_the_same_folder_can_be_used(refused, work, tmp_path, toy, run):
    refused("train", "tabletop", *toy, "--checkpoint", tmp_path / "typo", "--out", tmp_path / "out")
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
def test_a_damaged_checkpoint(refused, copied, tmp_path, name, job, toy):
    policy = copied("warmup/last")
    content = (policy / name).read_bytes()
    for number, damage in enumerate(DAMAGE[name]):
        assert damage(content) != content
        (policy / name).write_bytes(damage(content))
        line = refused(job, "tabletop", *toy, "--checkpoint", policy, "--out", tmp_path / f"out{number}")
        assert str(policy / name) in line


def test_missing_demonstrations(refused, tmp_path, toy):
    line = refused("warmup", "tabletop", *toy, "--demos", tmp_path, "--out", tmp_path / "out")
    assert f"{tmp_path}/meta/info.json is missing" in line


@pytest.mark.parametrize("name", ["meta/info.json", "meta/tasks.parquet", "data/chunk-000/file-000.parquet"])
def test_damaged_demonstrations(refused, copied, tmp_path, name, toy):
    demos = copied("demos")
    content = (demos / name).read_bytes()
    for number, damaged in enumerate((content[: len(content) // 2], b"", b"{}")):
        (demos / name).write_bytes(damaged)
        line = refused("warmup", "tabletop", *toy, "--demos", demos, "--out", tmp_path / f"out{number}")
        assert str(demos) in line


def test_fewer_demonstrations_than_asked_for(refused, work, tmp_path, toy):
    line = refused(
        "warmup",
        "tabletop",
        *toy,
        "--demos",
        work / "demos",
        "--collect.episodes",
        2,
        "--out",
        tmp_path / "out",
    )
    assert "task 0 has 1 demonstrations, 2 are asked for" in line


def test_demonstrations_of_another_robot(refused, work, tmp_path, toy):
    line = refused("warmup", "tabletop_dual", *toy, "--demos", work / "demos", "--out", tmp_path / "out")
    assert f"{work / 'demos'} does not fit tabletop_dual" in line
    assert "left_gripper" in line


def test_demonstrations_of_another_camera(refused, work, tmp_path, toy):
    line = refused(
        "warmup", "tabletop", *toy, "--env.image", 64, "--demos", work / "demos", "--out", tmp_path / "out"
    )
    assert "height=32" in line
    assert "height=64" in line


@pytest.mark.parametrize("job", ["evaluate", "train"])
def test_a_policy_of_another_robot(refused, work, tmp_path, job, toy):
    policy = work / "warmup" / "last"
    line = refused(job, "tabletop_dual", *toy, "--checkpoint", policy, "--out", tmp_path / "out")
    assert f"{policy} drives another robot than tabletop_dual" in line
    assert "left_gripper" in line


def test_a_policy_that_was_taught_otherwise(refused, work, tmp_path, toy):
    policy = work / "warmup" / "last"
    line = refused(
        "train",
        "tabletop",
        *toy,
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
def test_a_folder_that_holds_a_run(refused, work, job, toy):
    before = sorted(work.rglob("*"))
    line = refused(job, "tabletop", *toy, "--out", work / job, "--checkpoint", work / "warmup" / "last")
    assert line.endswith(
        f"{work / job} already holds a run: choose another --out, or continue it with --resume"
    )
    assert sorted(work.rglob("*")) == before


def test_a_folder_that_holds_demonstrations(refused, work, toy):
    assert f"{work / 'demos'} exists" in refused("collect", "tabletop", *toy, "--out", work / "demos")


def test_resuming_nothing(refused, tmp_path, toy):
    line = refused("train", "tabletop", *toy, "--resume", "--out", tmp_path / "out")
    assert f"{tmp_path / 'out'} holds no run to continue" in line
    assert not (tmp_path / "out").exists()


def test_resuming_with_other_knobs_shows_the_difference(refused, work, toy):
    line = refused(
        "train", "tabletop", *toy, "--resume", "--out", work / "train", "--seed", 3, "--lapo.discount", 0.9
    )
    assert "seed: 0 against 3" in line
    assert "lapo.discount: 0.8 against 0.9" in line


@pytest.mark.parametrize(
    "name", ["config.json", "last/run.json", "last/optimizer.safetensors", "last/lastr1.json"]
)
def test_resuming_a_damaged_run(refused, copied, name, toy):
    out = copied("train")
    shutil.rmtree(out / "step_000001")  # nothing to fall back on
    content = (out / name).read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"{}", b"[]"):
        (out / name).write_bytes(damaged)
        assert str(out) in refused("train", "tabletop", *toy, "--resume", "--out", out)
    (out / name).unlink()
    assert str(out) in refused("train", "tabletop", *toy, "--resume", "--out", out)


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
def test_no_space(refused, work, tmp_path, job, toy):
    """The line, and nothing half-written left behind."""
    folders = ("--demos", work / "demos", "--checkpoint", work / "warmup" / "last")
    with full_disk(20_000):
        line = refused(job, "tabletop", *toy, *folders, "--out", tmp_path / "out")
    assert "no space left" in line
    assert "choose another --out" in line
    left = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert not {"model.safetensors", "info.json"} & set(left)
    assert not [name for name in left if name.startswith(".")]


def test_no_space_keeps_the_last_checkpoint(refused, copied, toy):
    """A run of 2 iterations, set back to 1: the second save does not fit, the first is still there."""
    out = copied("train")
    shutil.rmtree(out / "step_000002")
    (out / "last").unlink()
    (out / "last").symlink_to("step_000001")
    before = {p.name: p.read_bytes() for p in (out / "last").iterdir()}
    with full_disk(20_000):
        assert "no space left" in refused("train", "tabletop", *toy, "--resume", "--out", out)
    assert {p.name: p.read_bytes() for p in (out / "last").iterdir()} == before


@pytest.mark.parametrize("job", ["collect", "warmup", "train", "evaluate"])
def test_a_folder_that_cannot_be_used(refused, work, tmp_path, job, toy):
    """A file where a folder should be; below a file; where nobody may write, root neither."""
    (tmp_path / "file").write_text("mine")
    outs = [tmp_path / "file", tmp_path / "file" / "below"]
    if sys.platform == "linux":
        outs.append(Path("/sys/lastr1"))
    policy = work / "warmup" / "last"
    for out in outs:
        line = refused(job, "tabletop", *toy, "--demos", work / "demos", "--checkpoint", policy, "--out", out)
        assert str(out.parent) in line
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("knob", ["demos", "checkpoint"])
def test_a_file_instead_of_a_folder(refused, work, tmp_path, knob, toy):
    (tmp_path / "file").write_text("mine")
    job = "warmup" if knob == "demos" else "train"
    line = refused(job, "tabletop", *toy, f"--{knob}", tmp_path / "file", "--out", tmp_path / "out")
    assert str(tmp_path / "file") in line
