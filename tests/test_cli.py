"""The command line: help, and every mistyped command is one clear line and exit code 2."""

import subprocess
import sys

import pytest

from lastr1.cli import JOBS, main
from lastr1.presets import RECIPES


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


@pytest.mark.slow
def test_as_a_process(tmp_path, complaint):
    """Help and mistakes answer without importing torch."""
    code = "import sys; from lastr1.cli import main; c = main(); sys.exit(99 * ('torch' in sys.modules) or c)"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "tabletop", "--lapo.clip-hihg", "0.3"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert "--lapo.clip-high" in complaint(done.stderr)


def test_a_reader_that_has_seen_enough():
    """`lastr1 train tabletop --help | head -1` ends without a word on standard error."""
    code = "import sys; from lastr1.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "train", "tabletop", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        job.stdout.close()
        assert job.stderr.read() == b""
    assert job.returncode == 141
