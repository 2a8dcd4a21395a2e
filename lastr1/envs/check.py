"""Does a simulator keep the contract of `lastr1.envs.base`?  Every environment of the package must pass.

`observation_flaw` and `outcome_flaw` also judge every answer while a run is played (`EnvPool`).
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from lastr1.envs.base import Env, Start
from lastr1.spec import RobotSpec
from lastr1.types import ActionChunk, Floats, Observation, Outcome


class EnvContractError(AssertionError):
    """One line that says which promise an environment breaks."""


def check_env(env: Env, *, chunk: int = 8, drift: float = 1e-6, seed: int = 0) -> None:
    """Raise `EnvContractError` naming the first promise that a freshly made environment breaks.

    `chunk` is the number of control steps per chunk; `drift` how far the hold action may let the state
    move (in state units; simulators with dynamics need more than 0).  Plays the first and the last task, one
    episode to its cap, and leaves the environment at the end of that episode.
    """
    rng = np.random.default_rng(seed)
    _check_promises(env)
    _refused("play() before reset()", RuntimeError, lambda: env.play(_hold(env, 1)))
    starts = [Start(task=0, seed=seed), Start(task=len(env.tasks) - 1, seed=seed + 1)]
    if env.stored_states:
        starts.append(Start(task=0, state=env.stored_states - 1))
    for start in starts:
        _check_determinism(env, start, _random(env, rng, chunk))
    _check_starts(env)
    _check_shapes(env, starts[0], chunk)
    _check_hold(env, starts[0], chunk, drift)
    _check_cap(env, starts[0])


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise EnvContractError(what)


def _refused(what: str, kind: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except kind:
        return
    raise EnvContractError(f"{what} must raise {kind.__name__}")


def _hold(env: Env, steps: int) -> ActionChunk:
    return ActionChunk(actions=np.tile(np.array(env.spec.hold, dtype=np.float32), (steps, 1)))


def _random(env: Env, rng: np.random.Generator, steps: int) -> ActionChunk:
    low = np.array([dim.low for dim in env.spec.action])
    high = np.array([dim.high for dim in env.spec.action])
    return ActionChunk(actions=rng.uniform(low, high, (steps, len(low))).astype(np.float32))


def _check_promises(env: Env) -> None:
    setup, camera = env.describe(), env.spec.cameras[0]
    said, true = (setup.cap, setup.camera, setup.image), (env.cap, camera.name, camera.height)
    _require(said == true, f"describe() says cap, camera and size {said}, they are {true}")
    _require(
        len(env.tasks) > 0 and all(env.tasks), "tasks must name at least one instruction, none of them empty"
    )
    _require(env.cap >= 1, f"cap is {env.cap}, expected at least 1 control step")
    _require(env.stored_states >= 0, f"stored_states is {env.stored_states}, expected 0 or more")
    _require(env.spec.rate > 0, f"the control rate is {env.spec.rate}, expected more than 0 per second")
    for dim, value in zip(env.spec.action, env.spec.hold, strict=True):
        _require(
            dim.low <= value <= dim.high, f"hold moves {dim.name} to {value}, outside {dim.low}..{dim.high}"
        )


def observation_flaw(seen: object, spec: RobotSpec) -> str:
    """What an observation breaks of the robot's promises, whatever the task; empty when it keeps them."""
    if not isinstance(seen, Observation):
        return f"{type(seen).__name__} in place of an observation"
    names = [camera.name for camera in spec.cameras]
    if list(seen.images) != names:
        return f"cameras are {list(seen.images)}, the spec promises {names}"
    for camera in spec.cameras:
        flaw = _array_flaw(seen.images[camera.name], (camera.height, camera.width, 3), np.uint8)
        if flaw:
            return f"camera {camera.name!r} {flaw}"
    flaw = _array_flaw(seen.state, (len(spec.state),), np.float32)
    if flaw:
        return f"state {flaw}"
    return "" if np.isfinite(seen.state).all() else f"state is not finite: {seen.state.tolist()}"


def outcome_flaw(outcome: object, spec: RobotSpec, asked: int) -> str:
    """The same of the outcome of a chunk of `asked` control steps."""
    if not isinstance(outcome, Outcome):
        return f"{type(outcome).__name__} in place of an outcome"
    ended = outcome.terminated or outcome.truncated
    if outcome.terminated and outcome.truncated:
        return "an outcome is both terminated and truncated"
    if not 1 <= outcome.steps <= asked:
        return f"play() reports {outcome.steps} steps of a chunk of {asked}"
    if not ended and outcome.steps != asked:
        return "a chunk ended early although the episode did not end"
    if outcome.reward != float(outcome.terminated):
        return f"reward is {outcome.reward}: 1 on success, otherwise 0"
    return observation_flaw(outcome.observation, spec)


def _array_flaw(array: object, shape: tuple[int, ...], kind: type[np.generic]) -> str:
    if not isinstance(array, np.ndarray):
        return f"is a {type(array).__name__}, expected an array"
    if array.shape != shape:
        return f"has shape {array.shape}, the spec promises {shape}"
    return "" if array.dtype == kind else f"is {array.dtype}, expected {kind.__name__}"


def _check_observation(env: Env, seen: Observation, task: int) -> None:
    flaw = observation_flaw(seen, env.spec)
    _require(not flaw, flaw)
    for dim, value in zip(env.spec.state, seen.state.tolist(), strict=True):
        inside = dim.low - 1e-6 <= value <= dim.high + 1e-6
        _require(inside, f"state {dim.name} is {value}, outside {dim.low}..{dim.high}")
    _require(
        seen.instruction == env.tasks[task], f"instruction {seen.instruction!r} is not {env.tasks[task]!r}"
    )


def _check_outcome(env: Env, outcome: Outcome, task: int, asked: int) -> None:
    flaw = outcome_flaw(outcome, env.spec, asked)
    _require(not flaw, flaw)
    _check_observation(env, outcome.observation, task)


def _check_determinism(env: Env, start: Start, chunk: ActionChunk) -> None:
    seen, outcomes = [], []
    for _ in range(2):
        seen.append(env.reset(start))
        _check_observation(env, seen[-1], start.task)
        outcomes.append(env.play(chunk))
        _check_outcome(env, outcomes[-1], start.task, len(chunk.actions))
    _require(_same(*seen), f"two resets to {start} differ")
    _require(
        _same(*(o.observation for o in outcomes)), f"the same chunk from {start} leads to two observations"
    )
    facts = [(o.reward, o.terminated, o.truncated, o.steps) for o in outcomes]
    _require(facts[0] == facts[1], f"the same chunk from {start} leads to {facts[0]} and {facts[1]}")


def _same(a: Observation, b: Observation) -> bool:
    images = all(np.array_equal(a.images[name], b.images[name]) for name in a.images)
    return images and np.array_equal(a.state, b.state)


def _check_starts(env: Env) -> None:
    count = len(env.tasks)
    _refused(f"reset() to task {count} of {count}", ValueError, lambda: env.reset(Start(task=count)))
    _refused("reset() to task -1", ValueError, lambda: env.reset(Start(task=-1)))
    stored = Start(task=0, state=env.stored_states)
    _refused(f"reset() to stored state {stored.state}", ValueError, lambda: env.reset(stored))


def _check_shapes(env: Env, start: Start, steps: int) -> None:
    env.reset(start)
    good = _hold(env, steps).actions
    unknown = good.copy()
    unknown[0, 0] = np.nan
    bad: dict[str, Floats] = {
        "one action entry too many": np.concatenate([good, good[:, :1]], axis=1),
        "no chunk axis": good[0],
        "no control step": good[:0],
        "a number that is not finite": unknown,
    }
    for what, actions in bad.items():
        _refused(f"play() with {what}", ValueError, partial(env.play, ActionChunk(actions=actions)))


def _check_hold(env: Env, start: Start, steps: int, drift: float) -> None:
    before = env.reset(start).state
    after = env.play(_hold(env, steps)).observation.state
    moved = np.abs(after - before)
    name = env.spec.state[int(moved.argmax())].name
    _require(
        float(moved.max()) <= drift, f"the hold action moves {name} by {moved.max():.4g}, more than {drift}"
    )


def _check_cap(env: Env, start: Start) -> None:
    """Hold to the end, with a chunk that does not divide the cap where there is one."""
    steps = next((c for c in (8, 7, 5, 3) if env.cap % c), 1)
    env.reset(start)
    played = 0
    while True:
        outcome = env.play(_hold(env, steps))
        _check_outcome(env, outcome, start.task, steps)
        played += outcome.steps
        _require(played <= env.cap, f"{played} control steps were played, the cap is {env.cap}")
        if outcome.terminated or outcome.truncated:
            break
        _require(played < env.cap, f"the cap of {env.cap} control steps was reached, and the episode goes on")
    _require(outcome.terminated or played == env.cap, f"truncated after {played} steps, the cap is {env.cap}")
    _refused("play() after the end of the episode", RuntimeError, lambda: env.play(_hold(env, 1)))
