"""What every job needs before it starts: the pool, the policy, the demonstrations, a directory."""

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import lastr1
from lastr1.config import EVERY_WEIGHT, AdapterConfig, Config, PolicyConfig
from lastr1.demos import stats
from lastr1.demos.dataset import Demonstration, DemonstrationSet, choose_per_task
from lastr1.demos.lerobot import open_recording
from lastr1.demos.source import Source, fitting, is_hdf5, matching_tasks
from lastr1.envs import make_env
from lastr1.envs.pool import EnvPool
from lastr1.knobs import differences, from_dict, to_dict
from lastr1.model import hub, manifest, weights
from lastr1.model.codec import Codec
from lastr1.model.prompt import tiny_tokenizer
from lastr1.model.weights import Bundle
from lastr1.rollout.replay import regenerated
from lastr1.rollout.scripted import demonstrations
from lastr1.spec import RobotSpec, mismatches
from lastr1.train.device import device_of
from lastr1.train.progress import say, track
from lastr1.types import UserError

BUILTIN = Path(lastr1.__file__).parent / "assets" / "tabletop_base"
"""the base that ships with the package"""
START = "start.json"
"""what a reinforcement run began from"""


def begin(config: Config) -> None:
    """Threads and seed of this process; a device that is not here is noticed before anything is written."""
    device_of(config)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)


def open_pool(config: Config) -> EnvPool:
    """The recipe's simulators, with its chaos."""
    env = config.env
    return EnvPool(
        partial(make_env, env),
        slots=env.slots,
        workers=env.workers,
        deadline=env.deadline,
        restarts=env.restarts,
        chaos=config.chaos,
    )


def check_adapter(adapter: AdapterConfig, *, freeze_vision: bool) -> None:
    """`UserError` when the vision tower is to be adapted and left as it is."""
    if adapter.rank and adapter.vision and freeze_vision:
        raise UserError("adapter.vision adapts the vision tower, freeze_vision leaves it as it is: drop one")


def new_directory(path: Path, config: Config) -> Path:
    """An empty run directory with the resolved config in it.  `UserError` when a run is already there."""
    # A config alone was left by a start that failed; its user may correct it and try again.
    if (path / "config.json").exists() and len(list(path.iterdir())) > 1:
        raise UserError(f"{path} already holds a run: choose another --out, or continue it with --resume")
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "config.json", to_dict(config))
    return path


def resumed_directory(path: Path, config: Config) -> Path:
    """A run directory to continue.  `UserError` when there is none, or its config differs (it says where)."""
    if not (path / "config.json").exists():
        raise UserError(f"{path} holds no run to continue: leave --resume out, or correct --out")
    try:
        stored = from_dict(Config, json.loads((path / "config.json").read_text()))
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be resumed: {error}") from None
    # Processes and machines do not change what is learnt; weights that lag behind do.
    here = replace(config.cluster, staleness=stored.cluster.staleness)
    found = differences(replace(stored, cluster=here), config)
    if found:
        raise UserError(f"{path} was started with another config ({'; '.join(found)}): use the same knobs")
    return path


def start_of(out: Path, checkpoint: Path) -> Path:
    """What a run that has no checkpoint yet began from: it says so itself, unless it was stopped before that.

    `UserError` when that is another policy by now.
    """
    path = out / START
    if not path.exists():
        return checkpoint
    try:
        facts = json.loads(path.read_text())
        start, known = Path(facts["checkpoint"]), facts["manifest"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): begin again with another --out") from None
    if known != _identity(start):
        raise UserError(f"{start} is not the policy that {out} began from: begin again with another --out")
    return start


def note_start(out: Path, checkpoint: Path) -> None:
    """Write down what `start_of` reads."""
    facts = {"checkpoint": str(checkpoint.resolve()), "manifest": _identity(checkpoint)}
    write_json(out / START, facts)


def _identity(checkpoint: Path) -> str | None:
    path = checkpoint / manifest.NAME
    return manifest.digest(path) if path.is_file() else None


def write_json(path: Path, value: Any) -> None:
    """Plain, indented, in place at once."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    hub.sync(temporary)
    temporary.replace(path)


def load_demonstrations(
    config: Config, source: Path | None, spec: RobotSpec, tasks: tuple[str, ...]
) -> DemonstrationSet:
    """`collect.episodes` demonstrations per task, from a recording (drawn by seed) or from the expert."""
    job, policy = config.warmup, config.policy
    if source is None:
        found = _scripted(config)
    elif is_hdf5(source):
        found = played_again(config, source)
    else:
        found = _recorded(config, source, spec, tasks)
    return DemonstrationSet(
        found,
        chunk=policy.chunk,
        latents=policy.latents,
        target_stride=job.target_stride,
        frame_stride=job.frame_stride,
    )


def _recorded(config: Config, path: Path, spec: RobotSpec, tasks: tuple[str, ...]) -> Iterator[Demonstration]:
    data = open_recording(path)
    source = fitting(data, spec, config.env.suite)
    matching = matching_tasks(source, tasks, config.env.suite, config.env.tasks, replayed=False)
    of_suite = _successes(source, data.failures(), matching)
    found = [matching[source.episodes[i].task] for i in of_suite]
    wanted = choose_per_task(found, count=config.collect.episodes, seed=config.seed)
    for demo in source.demonstrations([of_suite[i] for i in wanted]):
        task = matching[demo.task]
        yield replace(demo, task=task, instruction=tasks[task])


def _successes(source: Source, failures: Collection[int], matching: Collection[int]) -> list[int]:
    """Episodes of the matching tasks that did not fail; `UserError` when a task has none left."""
    shown = [i for i, episode in enumerate(source.episodes) if episode.task in matching]
    left = [i for i in shown if i not in failures]
    lost = {source.episodes[i].task for i in shown} - {source.episodes[i].task for i in left}
    if lost:
        raise UserError(
            f"{source.root}: every episode of {source.tasks[min(lost)]!r} ends without success: record one "
            f"that succeeds, or choose other --env.tasks"
        )
    if len(left) < len(shown):
        say(f"{source.root}: {len(shown) - len(left)} of {len(shown)} episodes end without success: left out")
    return left


def played_again(config: Config, source: Path) -> Iterator[Demonstration]:
    """LIBERO's own files: replays of them, at the recipe's size."""
    facts = make_env(config.env)
    count = len(config.env.tasks if config.env.tasks is not None else facts.tasks) * config.collect.episodes
    facts.close()
    with track("replays", count) as bar:
        yield from regenerated(
            config.env,
            source,
            count=config.collect.episodes,
            seed=config.seed,
            progress=bar.advance,
            remark=lambda line: say(f"replays: {line}"),
        )


def _scripted(config: Config) -> Iterator[Demonstration]:
    facts = make_env(config.env)
    count = len(config.env.tasks if config.env.tasks is not None else facts.tasks) * config.collect.episodes
    facts.close()
    with track("demonstrations", count) as bar:
        yield from demonstrations(config.env, config.collect, config.seed, bar.advance)


def scratch_bundle(config: Config, spec: RobotSpec, tasks: tuple[str, ...]) -> Bundle:
    """Random weights, a tokenizer over the tasks' words, and the robot's own limits as action statistics."""
    if config.adapter.rank:
        raise UserError("an adapter lies over trained weights: give a --base, or use --adapter.rank 0")
    bundle = weights.build(config.backbone, config.policy, tiny_tokenizer(tasks), spec, limits(spec))
    bundle.policy.to(device_of(config))
    return bundle


def limits(spec: RobotSpec) -> Codec:
    """The robot's own limits in place of action statistics."""
    return Codec(
        q01=tuple(dim.low for dim in spec.action),
        q99=tuple(dim.high for dim in spec.action),
        mask=tuple(not dim.binary for dim in spec.action),
    )


def first_bundle(config: Config, spec: RobotSpec, tasks: tuple[str, ...], data: DemonstrationSet) -> Bundle:
    """What the warm-up starts from: random weights, the built-in base, a policy on disk, or a Qwen3-VL.

    A base keeps its action statistics if it already drives the same action space; otherwise, as from scratch,
    they are the percentiles of the demonstrations (ALGORITHM.md 6.1).
    """
    found = stats.compute(data.actions, data.states, demonstrations=len(data.steps), spec=spec).action
    codec = Codec(q01=found.q01, q99=found.q99, mask=found.mask)
    if config.base == "scratch":
        return weights.with_robot(scratch_bundle(config, spec, tasks), spec, codec)
    path = BUILTIN if config.base == "builtin" else Path(config.base)
    base = weights.load(path, policy=config.policy, robot=spec, codec=codec, adapter=config.adapter)
    for remark in base.remarks:
        say(f"warm-up: {remark}")
    if base.spec.action == spec.action:
        codec = base.codec
    base.policy.to(device_of(config))
    return weights.with_robot(base, spec, codec)


def load_policy(
    directory: Path,
    spec: RobotSpec,
    device: torch.device,
    policy: PolicyConfig | None = None,
    adapter: AdapterConfig = EVERY_WEIGHT,
) -> Bundle:
    """A policy for this robot, on `device`.  `UserError` lists what differs between its robot and `spec`.

    For training, `policy` replaces its knobs and `adapter` says what is trained.
    """
    if policy is not None and policy.latent_policy == "gaussian" and weights.is_foreign(directory):
        raise UserError(
            f"{directory} does not hold the scale of its latents: measure it with lastr1 convert, or use "
            f"--policy.latent-policy deterministic"
        )
    bundle = weights.load(directory, policy=policy, robot=spec, adapter=adapter)
    for remark in bundle.remarks:
        say(f"policy: {remark}")
    bundle.policy.eval().to(device)
    wrong = mismatches(bundle.spec, spec)
    if wrong:
        raise UserError(f"{directory} drives another robot than {spec.name}: {'; '.join(wrong)}")
    return bundle
