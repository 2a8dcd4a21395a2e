"""What every command of `lastr1` takes and runs; a job is imported when it is called."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lastr1.config import Config
from lastr1.types import UserError


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
    profile: bool = False
    """have `train` write a timeline of the run into --out, for ui.perfetto.dev"""
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
    done = train(args.config, checkpoint, out, resume=args.resume, profile=args.profile)
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
    from lastr1.report.plots import success_against_thinking
    from lastr1.train.evaluate import curve, remarks, table
    from lastr1.train.jobs import assess

    if args.checkpoint is None:
        raise UserError("evaluate needs --checkpoint DIR, for example runs/x/train/last")
    out = args.out or Path("runs") / args.config.name / "evaluate"
    result, points = assess(args.config, args.checkpoint, out)
    if points:
        success_against_thinking(points, out / "caps.png")
    told = [table(result.evaluation), remarks(result), curve(points), f"written to {out / 'result.json'}"]
    sys.stdout.write("\n".join(line for line in told if line) + "\n")


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


def _plan(args: Arguments) -> None:
    from lastr1.report.plan import plan

    sys.stdout.write("\n".join(plan(args.config)) + "\n")


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
    "plan": Job(help="memory, seconds and hours of train, and what binds, before it begins", run=_plan),
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
