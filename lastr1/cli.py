"""lastr1 JOB RECIPE [--knob value]: parses, then hands over to a job; only then is torch imported."""

import contextlib
import difflib
import errno
import io
import os
import re
import sys
from pathlib import Path

import tyro

from lastr1.commands import JOBS, Arguments, PairJob
from lastr1.config import Config
from lastr1.presets import RECIPES
from lastr1.types import UserError

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_USABLE = {errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 found wanting, 2 the user's mistake, 130 interrupted, 141 nobody reads on."""
    # Read when torch is imported: two of its threads beside a busy simulator collapse unless idle ones sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        return _complain(str(error), 2)
    except KeyboardInterrupt:
        return _complain("interrupted; the last checkpoint is whole", 130)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nor may Python's own last flush complain
        return 141
    except OSError as error:
        if error.errno in NO_SPACE:
            return _complain(f"no space left ({error}): free some, or choose another --out", 2)
        if error.errno in NOT_USABLE:
            return _complain(f"a folder cannot be used ({error}): choose another", 2)
        raise


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0
    name, rest = argv[0], argv[1:]
    if name not in JOBS:
        raise UserError(f"no job {name!r}{_suggest(name, list(JOBS))}; jobs are {', '.join(JOBS)}")
    job = JOBS[name]
    if isinstance(job, PairJob):
        return _run_pair(name, job, rest)
    recipe = job.recipe
    if rest and not rest[0].startswith("-"):
        recipe, rest = rest[0], rest[1:]
    if recipe is None:
        raise UserError(f"name a recipe: lastr1 {name} RECIPE; recipes are {', '.join(RECIPES)}")
    if recipe not in RECIPES:
        raise UserError(
            f"no recipe {recipe!r}{_suggest(recipe, list(RECIPES))}; recipes are {', '.join(RECIPES)}"
        )
    job.run(_parse(f"lastr1 {name} {recipe}", job.help, RECIPES[recipe], rest))
    return 0


def _run_pair(name: str, job: PairJob, rest: list[str]) -> int:
    if rest and rest[0] in ("-h", "--help"):
        sys.stdout.write(f"usage: lastr1 {name} A B\n\n{job.help}\n")
        return 0
    if len(rest) != 2 or any(word.startswith("-") for word in rest):
        raise UserError(f"{name} takes two folders of evaluations: lastr1 {name} A B")
    first, second = map(Path, rest)
    job.run((first, second))
    return 0


def _parse(program: str, text: str, config: Config, argv: list[str]) -> Arguments:
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard):
            return tyro.cli(
                Arguments, prog=program, description=text, default=Arguments(config=config), args=argv
            )
    except SystemExit as end:
        if not end.code:
            raise
        lines = re.sub(r"╭.*|[│╰╯─]", " ", heard.getvalue())  # without the title of the box
        raise UserError(" ".join(re.sub(r"For full helptext.*", "", lines).split())) from None


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _complain(line: str, code: int) -> int:
    sys.stderr.write(f"lastr1: {' '.join(line.split())}\n")
    return code


def _usage() -> str:
    jobs = "".join(f"  {name:<10} {job.help}\n" for name, job in JOBS.items())
    recipes = "".join(f"  {name}\n" for name in RECIPES)
    usage = "usage: lastr1 JOB RECIPE [--knob value ...]   (lastr1 JOB RECIPE --help lists the knobs)"
    return f"{usage}\n\njobs:\n{jobs}\nrecipes:\n{recipes}"
