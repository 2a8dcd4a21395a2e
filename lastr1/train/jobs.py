"""The jobs behind the commands: a directory in, a directory out."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lastr1.config import Config
from lastr1.demos.lerobot_writer import write_recording
from lastr1.demos.teacher import Teacher
from lastr1.envs import make_env
from lastr1.envs.base import Start
from lastr1.envs.pool import EnvPool
from lastr1.knobs import to_dict
from lastr1.model import weights
from lastr1.model.weights import Bundle
from lastr1.rollout.collect import Player
from lastr1.rollout.film import FilmedEnv
from lastr1.rollout.record import write_video
from lastr1.rollout.scripted import demonstrations
from lastr1.train import run
from lastr1.train.checkpoint import Store, load_optimizer, load_step
from lastr1.train.device import device_of
from lastr1.train.evaluate import Assessment, Capped, allowed_caps, capped, evaluate, starts_of
from lastr1.train.gap import Gap, measure_gap
from lastr1.train.grounding import Grounding, annotated_pictures
from lastr1.train.learner import Learner
from lastr1.train.metrics import MetricsLog
from lastr1.train.progress import say, track
from lastr1.train.reinforce import LocalFleet
from lastr1.train.session import Trained, check_shape, iterate, open_session
from lastr1.train.sign import sign, write_result
from lastr1.train.targets import lesson_targets, named_teacher
from lastr1.train.team import open_team
from lastr1.train.warmup import Teaching, calibrate

VIDEO = 256
"""pixels of a video"""


def collect(config: Config, out: Path, demos: Path | None = None) -> int:
    """Successes of the scripted expert, or of `demos` played again, as a LeRobotDataset v3; how many."""
    env = make_env(config.env)
    tasks = config.env.tasks if config.env.tasks is not None else tuple(range(len(env.tasks)))
    spec, names = env.spec, env.tasks
    env.close()
    # Small images are stored lossless, large ones as video.
    images: Literal["image", "video"] = "image" if config.env.image <= 128 else "video"
    if demos is not None:
        return write_recording(out, run.played_again(config, demos), spec=spec, tasks=names, images=images)
    with track(f"collect {config.env.suite}", len(tasks) * config.collect.episodes) as bar:
        episodes = demonstrations(
            config.env,
            config.collect,
            config.seed,
            bar.advance,
            lambda line: say(f"collect: {line}: left out"),
        )
        return write_recording(out, episodes, spec=spec, tasks=names, images=images)


def ground(config: Config, out: Path) -> Bundle:
    """Teach a policy made from scratch to see and to point; `out/last` is a base for the warm-up."""
    run.begin(config)
    out = run.new_directory(out, config)
    env = make_env(config.env)
    spec, tasks = env.spec, env.tasks
    env.close()
    bundle = run.scratch_bundle(config, spec, tasks)
    with track("pictures", config.grounding.episodes) as bar:
        pictures = annotated_pictures(config, bar.advance)
    grounding = Grounding(bundle, pictures, config.grounding, config.seed)
    store, total = Store(directory=out), config.grounding.iterations
    with track("grounding", config.grounding.iterations) as bar, MetricsLog(out) as log:
        for step, figures in grounding.steps():
            log.write(step, figures)
            bar.advance(
                f"object pointed at {figures['object_pointed']:.2f}, "
                f"missed by {figures['object_miss_mm']:.0f} mm"
            )
            if (step + 1) % config.warmup.checkpoint_every == 0 and step + 1 < total:
                store.save(bundle, grounding.optimizer, config, step + 1)
    store.save(bundle, grounding.optimizer, config, total)
    return bundle


def warm_up(
    config: Config, demos: Path | None, out: Path, *, resume: bool = False, teacher: Teacher | None = None
) -> Bundle:
    """Teach a base from demonstrations; `out/last` is the policy, `out/result.json` what it has learnt.

    A `teacher` takes the place of the one that `warmup.teacher` names.
    """
    run.begin(config)
    run.check_adapter(config.adapter, freeze_vision=config.warmup.freeze_vision)
    teacher = teacher or named_teacher(config)
    out = run.resumed_directory(out, config) if resume else run.new_directory(out, config)
    env = make_env(config.env)
    spec, tasks = env.spec, env.tasks
    env.close()
    data = run.load_demonstrations(config, demos, spec, tasks)
    bundle = run.first_bundle(config, spec, tasks, data)
    targets, identity = lesson_targets(config, bundle, data, teacher, out)
    first = 0
    # A run that was stopped before its first checkpoint has nothing but views of frames to keep.
    found = Store(directory=out).newest() if resume else None
    if found is not None:
        first = load_step(found)
        bundle = run.load_policy(found, spec, device_of(config), config.policy, config.adapter)
    bundle = weights.with_channels(bundle, targets.channels, identity)
    teaching = Teaching(bundle, data, targets, config.warmup, config.seed)
    if found is not None:
        load_optimizer(found, teaching.optimizer)
        teaching.recall(found)
    return _warm_up(config, teaching, first, out)


def _warm_up(config: Config, teaching: Teaching, first: int, out: Path) -> Bundle:
    job, bundle = config.warmup, teaching.bundle
    store = Store(directory=out)
    gap: Gap | None = None
    bundle.policy.train()
    with track("warm-up", job.iterations - first) as bar, MetricsLog(out, first=first) as log:
        for step, figures in teaching.steps(first):
            done = step + 1
            if done % job.report_every == 0 or done == job.iterations:
                gap = measure_gap(teaching)
                run.write_json(out / "result.json", {"step": done, **to_dict(gap)})
                log.write(step, {**figures, **to_dict(gap)})
            elif step % 10 == 0:
                log.write(step, {**figures, **teaching.constant()})
            bar.advance(f"action loss {figures['action_loss']:.2f}")
            if done % job.checkpoint_every == 0 and done < job.iterations:
                log.sync()
                store.save(bundle, teaching.optimizer, config, done, teaching.memory())
    if gap is not None:
        say(f"warm-up: {gap}")
    bundle.policy.eval()
    calibrate(bundle, teaching.data, config.seed)
    store.save(bundle, teaching.optimizer, config, job.iterations, teaching.memory())
    return bundle


def train(
    config: Config, checkpoint: Path, out: Path, *, resume: bool = False, profile: bool = False
) -> Trained:
    """LAPO from a warmed-up policy; `out/last` is the policy, `out/metrics.jsonl` its history.

    With `profile`, `out/trace_N.json` says who worked when, from iteration N on (see `Timeline`).
    """
    session = open_session(config, checkpoint, out, resume=resume, profile=profile)
    with open_team(config, session.start, training=True) as team:
        check_shape(session.start, config.policy)
        learner = Learner(team.bundle, config.lapo, config.optimizer, team.replicas, session.steps)
        standing = session.begin(len(team.pool.tasks))
        if session.found is not None:
            load_optimizer(session.found, learner.optimizer)
        team.version = session.first

        def save(step: int) -> None:
            files, score = standing.memory(), standing.success
            session.store.save(team.bundle, learner.optimizer, config, step, files, score)

        fleet = LocalFleet(config=config, player=team, learner=learner, success=standing.tasks)
        return iterate(session, fleet, standing, save)


def assess(config: Config, checkpoint: Path, out: Path) -> tuple[Assessment, tuple[Capped, ...]]:
    """Success per task of a policy on disk; `out/result.json`, and videos on request.

    Of several caps, the last is the result, with a row for each; `out/cap_K` holds each one's own.
    """
    run.begin(config)
    out.mkdir(parents=True, exist_ok=True)  # before hours of playing, in case it may not be written
    unplayed = sign(config, checkpoint)
    with open_team(config, checkpoint) as team:
        bundle, pool = team.bundle, team.pool
        starts = starts_of(config.env, config.evaluate, len(pool.tasks), pool.stored_states, config.seed)
        caps = allowed_caps(config.evaluate, bundle.policy.config.stop_candidates)
        points: list[Capped] = []
        for cap in caps:
            began = time.perf_counter()
            result = measure(config, team, cap)
            signature = replace(unplayed, seconds=round(time.perf_counter() - began, 1))
            points += [capped(cap, result.evaluation)] if cap is not None else []
            write_result(out, config, checkpoint, result, signature, points)
            if len(caps) > 1:
                own = out / f"cap_{cap}"
                own.mkdir(exist_ok=True)
                write_result(own, config, checkpoint, result, signature, points[-1:])
    # The simulators are closed by now: a film needs one of its own.
    for number, start in enumerate(starts[: config.evaluate.videos]):
        film(config, bundle, start, out / f"video_{number}_task_{start.task}.mp4", caps[-1])
    return result, tuple(points)


def measure(config: Config, player: Player, cap: int | None = None) -> Assessment:
    """Greedy episodes over the recipe's evaluation starts."""
    pool = player.pool
    starts = starts_of(config.env, config.evaluate, len(pool.tasks), pool.stored_states, config.seed)
    with track("evaluate", len(starts)) as bar:
        return evaluate(player, starts, lambda _: bar.advance(), cap)


def film(
    config: Config, bundle: Bundle, start: Start, path: Path, cap: int | None = None
) -> tuple[Path, bool]:
    """Write every control step of a greedy episode as an mp4; its path, and whether the task was solved."""
    env = FilmedEnv(make_env(config.env), VIDEO)
    with EnvPool(lambda: env, slots=1, workers=0) as pool:
        (episode,) = Player(bundle, pool, 1).play([start], noise=None, most=cap)
        write_video(path, env.film(), fps=bundle.spec.rate)
    return path, episode.success
