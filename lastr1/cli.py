"""lastr1 JOB RECIPE [--knob value]: parses, then hands over to a job; only then is torch imported."""

import contextlib
import difflib
import errno
import io
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lastr1.config import Config
from lastr1.presets import RECIPES
from lastr1.types import UserError

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_USABLE = {errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Folders of a job, and every knob of its recipe."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    out: Path | None = None
    """where the job writes"""
    demos: Annotated[Path | None, tyro.conf.arg(aliases=["--demo"])] = None
    """demonstrations to warm up on, to check (doctor) or to play again (collect): LIBERO's *.hdf5 or a
    LeRobotDataset v3 (none: straight from the scripted expert)"""
    checkpoint: Path | None = None
    """policy to start from, to evaluate or to convert"""
    resume: bool = False
    """continue the run in --out"""
    to: Literal["lastr1", "released"] = "lastr1"
    """layout that `convert` writes"""
    server: str = "ws://127.0.0.1:8000"
    """policy server that `loadtest` and `drive` ask"""
    robot: Literal["fake", "franka"] = "fake"
    """what `drive` moves: arms that exist only here, or real ones (`config.robot`)"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command."""

    help: str
    run: Callable[[Arguments], None] = field(repr=False)
    recipe: str | None = None
    """recipe when none is named"""


@dataclass(frozen=True, kw_only=True)
class PairJob:
    """A command that takes two folders in place of a recipe and knobs."""

    help: str
    run: Callable[[tuple[Path, Path]], None] = field(repr=False)


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 found wanting, 2 the user's mistake, 130 interrupted."""
    # Read when torch is imported: two of its threads beside a busy simulator collapse unless idle ones sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        return _complain(str(error), 2)
    except KeyboardInterrupt:
        return _complain("interrupted; the last checkpoint is whole", 130)
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
        lines = re.sub(r"[│╭╮╰╯─]", " ", heard.getvalue())
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


def _collect(args: Arguments) -> None:
    from lastr1.train.jobs import collect

    out = args.out or Path("demos") / args.config.name
    count = collect(args.config, out, args.demos)
    sys.stdout.write(f"{count} demonstrations in {out}\n")


def _ground(args: Arguments) -> None:
    from lastr1.train.jobs import ground

    out = args.out or Path("runs") / args.config.name / "ground"
    ground(args.config, out)
    sys.stdout.write(f"base in {out / 'last'}\n")


def _warmup(args: Arguments) -> None:
    from lastr1.train.jobs import warm_up

    out = args.out or Path("runs") / args.config.name / "warmup"
    warm_up(args.config, args.demos, out, resume=args.resume)
    sys.stdout.write(f"policy in {out / 'last'}\n")


def _train(args: Arguments) -> None:
    if args.config.cluster.collectors:
        from lastr1.cluster.job import train
    else:
        from lastr1.train.jobs import train

    out = args.out or Path("runs") / args.config.name / "train"
    checkpoint = args.checkpoint or Path("runs") / args.config.name / "warmup" / "last"
    done = train(args.config, checkpoint, out, resume=args.resume)
    sys.stdout.write(
        f"{done.iterations} iterations, {done.episodes} episodes, {done.seconds:.0f} s; "
        f"policy in {out / 'last'}\n" + "".join(f"health: {line}\n" for line in done.health)
    )


def _interact(args: Arguments) -> None:
    from lastr1.train.interactive import interact

    out = args.out or Path("runs") / args.config.name / "interact"
    checkpoint = args.checkpoint or Path("runs") / args.config.name / "warmup" / "last"
    done = interact(args.config, checkpoint, out, args.demos, resume=args.resume)
    sys.stdout.write(f"{done}; policy in {out / 'last'}\n")


def _evaluate(args: Arguments) -> None:
    from lastr1.train.evaluate import curve, remarks, table
    from lastr1.train.jobs import assess

    if args.checkpoint is None:
        raise UserError("evaluate needs --checkpoint DIR, for example runs/x/train/last")
    out = args.out or Path("runs") / args.config.name / "evaluate"
    result, points = assess(args.config, args.checkpoint, out)
    sys.stdout.write(f"{table(result.evaluation)}\n{remarks(result)}\n")
    if points:
        from lastr1.report.plots import success_against_thinking

        success_against_thinking(points, out / "caps.png")
        sys.stdout.write(f"{curve(points)}\ndrawn in {out / 'caps.png'}\n")
    sys.stdout.write(f"written to {out / 'result.json'}\n")


def _compare(pair: tuple[Path, Path]) -> None:
    from lastr1.train.compare import compare

    sys.stdout.write("\n".join(compare(*pair)) + "\n")


def _convert(args: Arguments) -> None:
    from lastr1.train.convert import convert

    if args.checkpoint is None or args.out is None:
        raise UserError("convert needs --checkpoint DIR and --out DIR, for example --out checkpoints/spatial")
    for line in convert(args.config, args.checkpoint, args.out, args.to):
        sys.stdout.write(line + "\n")


def _demo(args: Arguments) -> None:
    from lastr1.report.demo import demo

    sys.stdout.write(demo(args.config, args.out or Path("runs") / "demo") + "\n")


def _doctor(args: Arguments) -> None:
    if args.demos is not None:
        from lastr1.report.conventions import check_demo

        lines, healthy = check_demo(args.demos, args.config.env, args.checkpoint)
    else:
        from lastr1.report.doctor import doctor

        lines, healthy = doctor()
    sys.stdout.write("\n".join(lines) + "\n")
    if not healthy:
        raise SystemExit(1)


def _serve(args: Arguments) -> None:
    from lastr1.serve.job import serve_policy

    if args.checkpoint is None:
        raise UserError("serve needs --checkpoint DIR, for example runs/x/train/last")
    serve_policy(args.config, args.checkpoint)


def _drive(args: Arguments) -> None:
    from lastr1.serve.drive import drive

    out = args.out or Path("runs") / args.config.name / "drive"
    sys.stdout.write("\n".join(drive(args.config, args.server, args.robot, out)) + "\n")


def _loadtest(args: Arguments) -> None:
    from lastr1.serve.loadtest import loadtest

    sys.stdout.write(f"{loadtest(args.server, args.config.serve)}\n")


def _contact_sheet(args: Arguments) -> None:
    from lastr1.report.sheet import contact_sheet

    path = args.out or Path("runs") / args.config.name / "sheet.png"
    sys.stdout.write(f"{contact_sheet(args.config.env, path)}\n")


JOBS: dict[str, Job | PairJob] = {
    "demo": Job(help="all of it on the embedded world, in minutes on a CPU", run=_demo, recipe="tabletop"),
    "doctor": Job(
        help="what this machine can run, with fixes; --demo FILE: whether a recording keeps our conventions",
        run=_doctor,
        recipe="tabletop",
    ),
    "collect": Job(
        help="demonstrations (LeRobotDataset v3) from the scripted expert, or from LIBERO's files (--demos)",
        run=_collect,
    ),
    "ground": Job(help="teach a base made from scratch to see and to point (embedded world)", run=_ground),
    "warmup": Job(help="supervised warm-up, one demonstration per task", run=_warmup),
    "train": Job(help="LAPO: reinforcement of thought, thinking time and action", run=_train),
    "interact": Job(help="reinforcement beside a person who takes over (--interactive.human)", run=_interact),
    "contact-sheet": Job(help="what the policy sees first in every task, as a PNG", run=_contact_sheet),
    "evaluate": Job(help="success per task with 95% intervals", run=_evaluate),
    "compare": PairJob(help="two evaluations on the same starts: exact McNemar test", run=_compare),
    "serve": Job(help="policy server for robots (openpi's websocket protocol)", run=_serve),
    "drive": Job(
        help="a robot (--robot) with the policy that --server serves, within its limits", run=_drive
    ),
    "loadtest": Job(help="many clients at once against a policy server (--server)", run=_loadtest),
    "convert": Job(help="a released checkpoint or a Qwen3-VL into a policy, and back (--to)", run=_convert),
}
"""command -> job"""
