"""Job: does a recording mean what this package means?  It is played again, open loop, in its own simulator.

A flipped gripper, a rotation read in another order, pictures that stand on their head and statistics of other
data all train without a complaint, and fail later without a reason.  Each has a line here.
Axes: H control steps, C control steps per chunk, A action size, S state size, N actions of a recording.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from lastr1.config import EnvConfig
from lastr1.demos.dataset import Demonstration
from lastr1.demos.lerobot import VECTORS, Dataset
from lastr1.demos.libero_raw import CAMERAS
from lastr1.demos.source import Source, fitting, matching_tasks, open_source, plain
from lastr1.demos.stats import read_statistics
from lastr1.envs import make_env
from lastr1.envs.base import Env
from lastr1.envs.dualarm import SUITE as DUALARM
from lastr1.envs.libero import CAPS as LIBERO_SUITES
from lastr1.envs.tabletop_tasks import SUITES as TABLETOP_SUITES
from lastr1.model.codec import Codec
from lastr1.report.doctor import Fact, summary
from lastr1.report.playback import Playback, first_success, play
from lastr1.spec import RobotSpec
from lastr1.types import Array, Floats, Start, UserError

FAR = 0.05
"""m between the recorded and the replayed position, median over chunks"""
TURNED = 0.3
"""rad between the recorded and the replayed rotation, median over chunks"""
UNLIKE = 40.0
"""grey levels between two pictures of the same scene"""
DISTORTED = 0.02
"""mean change of an action by the codec, as a share of the range of the recording"""
WIDE = 2.0
"""range of the statistics over that of the recording (median over dimensions)"""
ROTATION = ("rx", "ry", "rz")
ORIENTATIONS: dict[str, Callable[[Array], Array]] = {
    "upright": lambda image: image,
    "turned by 180 degrees": lambda image: image[::-1, ::-1],
    "upside down": lambda image: image[::-1],
    "mirrored": lambda image: image[:, ::-1],
}


def check_demo(
    path: Path, config: EnvConfig, checkpoint: Path | None, make: Callable[[EnvConfig], Env] = make_env
) -> tuple[list[str], bool]:
    """One line per convention, and whether all hold.  `UserError`: the recording cannot be read or placed."""
    raw = open_source(path)
    env, chosen = _world(raw, config, make)
    try:
        source = fitting(raw, env.spec, chosen.suite) if isinstance(raw, Dataset) else raw
        facts = _facts(source, env, chosen, checkpoint)
    finally:
        env.close()
    good, bad = "the recording keeps our conventions", "do not train on it: see the lines marked FIX"
    return summary(facts, good, bad)


def _world(source: Source, config: EnvConfig, make: Callable[[EnvConfig], Env]) -> tuple[Env, EnvConfig]:
    """The environment of the recording, at its image size: the recipe's suite if it has the task."""
    size, robot = _size(source), source.robot.name if isinstance(source, Dataset) else ""
    suites = [*LIBERO_SUITES]
    if robot.startswith("tabletop"):
        suites = [*TABLETOP_SUITES]
    elif robot.startswith(DUALARM):
        suites = [DUALARM]
    suites.sort(key=lambda suite: suite != config.suite)
    shown = {plain(source.tasks[episode.task]) for episode in source.episodes}
    for suite in suites:
        chosen = replace(config, suite=suite, image=size, tasks=None)
        env = make(chosen)
        if shown & {plain(task) for task in env.tasks}:
            return env, chosen
        env.close()
    raise UserError(
        f"{source.root} shows {source.tasks[0]!r}, no task of {', '.join(suites)}: play it elsewhere"
    )


def _size(source: Source) -> int:
    if isinstance(source, Dataset):
        cameras = sorted(source.robot.cameras, key=lambda camera: camera.name not in CAMERAS)
        if not cameras:
            raise UserError(f"{source.root} has no pictures: nobody can learn from it what a policy sees")
        return cameras[0].height
    return int(next(iter(next(source.demonstrations([0])).frames.values())).shape[1])


def _facts(source: Source, env: Env, config: EnvConfig, checkpoint: Path | None) -> list[Fact]:
    matching = matching_tasks(source, env.tasks, config.suite)
    numbers = [i for i, e in enumerate(source.episodes) if e.task in matching]
    found = f"{len(source.episodes)} episodes, {len(numbers)} of {config.suite}"
    actions = source.all_actions()
    name, codec = _codec(source.root, actions, env.spec, checkpoint)
    number, demo, start, played = first_success(source, env, matching, numbers)
    facts = [Fact(name="recording", found=found), _replay_fact(number, demo, played)]
    if not played.success and start is not None:
        facts += _flipped(env, demo, start)
    facts += _gripper(env.spec, demo)
    facts += _rotation(env.spec, demo, played)
    if start is not None:
        facts += _pose(env.spec, demo, played)
    facts.append(_pictures(env.spec, demo, played))
    return [*facts, _statistics(name, codec, actions, env, demo, start if played.success else None)]


def _replay_fact(number: int, demo: Demonstration, played: Playback) -> Fact:
    if not played.steps:
        fix = "LIBERO's HDF5 files and our own recordings do; the rest is compared below"
        return Fact(name="replay", found="it does not say where its episodes began", fix=fix)
    if played.success:
        found = f"episode {number} is solved after {played.steps} of {len(demo.actions)} control steps"
        return Fact(name="replay", found=found, vital=True)
    found = f"{demo.instruction!r} is not solved, up to episode {number}"
    fix = "if no line below says why, record again with these versions"
    return Fact(name="replay", found=found, fix=fix, vital=True)


def _flipped(env: Env, demo: Demonstration, start: Start) -> list[Fact]:
    """Whether the replay would have succeeded with the gripper the other way round."""
    binary = np.array([dim.binary for dim in env.spec.action])
    if not play(env, start, np.where(binary, 1 - demo.actions, demo.actions).astype(np.float32)).success:
        return []
    fix = "store 1 for open and 0 for closed (LIBERO's own: -1 opens, +1 closes)"
    return [Fact(name="gripper", found="flipped: the other way round it succeeds", fix=fix, vital=True)]


def _gripper(spec: RobotSpec, demo: Demonstration) -> list[Fact]:
    """Do the fingers do what the label says?"""
    facts = []
    for index, dim in enumerate(spec.action):
        if not dim.binary:
            continue
        opened, width = demo.actions[:, index] > 0.5, _width(spec, dim.name, demo.states)[1:]
        if opened.all() or not opened.any():
            continue
        wide, narrow = float(width[opened].mean()), float(width[~opened].mean())
        found = f"{dim.name}: fingers {wide:.3f} apart where it says open, {narrow:.3f} where closed"
        fix = "" if wide > narrow else "flipped: store 1 for open and 0 for closed"
        facts.append(Fact(name="fingers", found=found, fix=fix, vital=True))
    return facts or [Fact(name="fingers", found="the gripper never changes")]


def _width(spec: RobotSpec, gripper: str, states: Floats) -> Floats:
    names = [dim.name for dim in spec.state]
    return states[:, names.index(gripper)] if gripper in names else states[:, -2] - states[:, -1]


def _rotation(spec: RobotSpec, demo: Demonstration, played: Playback) -> list[Fact]:
    names = [dim.name for dim in spec.state]
    if not set(ROTATION) <= set(names):
        return []
    at = [names.index(name) for name in ROTATION]
    ours = np.stack([_quaternion(look.state[at]) for _, look in played.seen])
    theirs = np.stack([_quaternion(demo.states[step, at]) for step, _ in played.seen])
    angle = _apart(ours, theirs)
    found = f"{angle:.2f} rad from the simulator's"
    if angle < TURNED:
        return [Fact(name="rotation", found=found, vital=True)]
    for shift in (1, -1):
        if _apart(ours, np.roll(theirs, shift, axis=1)) < TURNED:
            found += ", but not with its quaternion in another order"
            fix = "robosuite's quaternions are x, y, z, w: convert them in that order"
            return [Fact(name="rotation", found=found, fix=fix, vital=True)]
    fix = "the state holds an axis-angle vector (rad) of the gripper in the world"
    return [Fact(name="rotation", found=found, fix=fix, vital=True)]


def _quaternion(vector: Floats) -> Array:
    """Axis times angle [3] -> x, y, z, w."""
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle > 1e-8 else vector
    return np.append(axis * np.sin(angle / 2), np.cos(angle / 2))


def _apart(a: Array, b: Array) -> float:
    """Median angle between rotations, as quaternions [n, 4]."""
    return float(np.median(2 * np.arccos(np.clip(np.abs((a * b).sum(axis=1)), 0, 1))))


def _pose(spec: RobotSpec, demo: Demonstration, played: Playback) -> list[Fact]:
    at = [i for i, dim in enumerate(spec.state) if dim.unit == "m"]
    far = np.array([np.abs(look.state[at] - demo.states[step, at]) for step, look in played.seen])
    worst = int(np.median(far, axis=0).argmax())
    off = float(np.median(far[:, worst]))
    found = f"{off:.3f} m from the replay's in {spec.state[at[worst]].name}"
    fix = "" if off < FAR else "another controller, rate or unit: compare a state with the simulator's"
    return [Fact(name="state", found=found, fix=fix, vital=True)]


def _pictures(spec: RobotSpec, demo: Demonstration, played: Playback) -> Fact:
    camera = spec.cameras[0].name
    pairs = [
        (look.images[camera].astype(np.int16), demo.frames[camera][step].astype(np.int16))
        for step, look in played.seen
    ]
    error = {
        name: float(np.mean([np.abs(ours - turn(theirs)).mean() for ours, theirs in pairs]))
        for name, turn in ORIENTATIONS.items()
    }
    best = min(error, key=lambda name: error[name])
    found = f"{camera} is {error['upright']:.1f} of 255 from the simulator's"
    if best != "upright":
        found += f", {error[best]:.1f} when {best}"
        return Fact(name="pictures", found=found, fix="store them the right way up", vital=True)
    fix = "" if error[best] < UNLIKE else "another camera or another scene: look at both"
    return Fact(name="pictures", found=found, fix=fix)


def _codec(root: Path, actions: Floats, spec: RobotSpec, checkpoint: Path | None) -> tuple[str, Codec]:
    """Where its statistics come from: the policy's, the recording's own file, or computed here."""
    mask = tuple(not dim.binary for dim in spec.action)
    written = _written(root / "meta" / "stats.json")
    if checkpoint is not None:
        name = str(checkpoint / "dataset_statistics.json")
        stored = read_statistics(Path(name)).action
        low, high = stored.q01, stored.q99
    elif written is not None:
        name, (low, high) = str(root / "meta" / "stats.json"), written
    else:
        quantiles = np.quantile(actions, [0.01, 0.99], axis=0)
        name, low, high = "the recording's percentiles", tuple(quantiles[0]), tuple(quantiles[1])
    if {len(low), len(high)} != {len(mask)}:
        raise UserError(
            f"{name} has statistics of {len(low)} numbers, an action of {spec.name} has {len(mask)}"
        )
    return name, Codec(q01=low, q99=high, mask=mask)


def _written(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The 1st and 99th percentiles of actions in a LeRobotDataset; older ones have none."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        action = next(found[key] for key in VECTORS["action"] if key in found)
        return (tuple(action["q01"]), tuple(action["q99"])) if "q01" in action else None
    except (json.JSONDecodeError, KeyError, StopIteration, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} has no statistics of actions ({error}): fetch or record it again") from error


def _statistics(
    name: str, codec: Codec, actions: Floats, env: Env, demo: Demonstration, start: Start | None
) -> Fact:
    """Do actions survive the codec, in numbers and (with a start from which they succeed) when played?"""
    moves = np.array(codec.mask)
    low, high = np.quantile(actions[:, moves], [0.01, 0.99], axis=0)
    spread = np.maximum(high - low, 1e-3)
    coded = codec.decode(codec.encode(actions))
    change = float((np.abs(coded - actions)[:, moves].mean(axis=0) / spread).mean())
    wide = float(np.median((np.array(codec.q99) - np.array(codec.q01))[moves] / spread))
    found = f"{name}: actions change by {100 * change:.1f}% of their range, bins are {wide:.1f} times as wide"
    if change > DISTORTED or wide > WIDE:
        fix = "statistics of other data: use those of these demonstrations"
        return Fact(name="statistics", found=found, fix=fix, vital=True)
    if start is None:
        return Fact(name="statistics", found=found)
    played = play(env, start, codec.decode(codec.encode(demo.actions)))
    if played.success:
        return Fact(name="statistics", found=f"{found}, and still solve the task", vital=True)
    fix = "rounding adds up open loop: try a recording with more episodes"
    return Fact(name="statistics", found=f"{found}, and no longer solve the task", fix=fix)
