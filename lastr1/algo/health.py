"""Dead-run detector: what the figures of a run's iterations say.  No torch: numbers in, words out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, median

from lastr1.config import HealthConfig, HealthLevel, HealthSign

LEVELS: tuple[HealthLevel, ...] = ("note", "warn", "stop")
"""from mild to grave"""

NOTHING = 1e-6
"""gradient norm, and deviation of the advantages, below which there is none"""
STILL = 1e-3
"""largest ratio at an iteration's last step minus 1, below which the policy stands still"""
RANDOM = 5.4
"""nats per token at which actions are random, whatever they were at first (256 bins: 5.545)"""
SPREAD = 1e-4
"""variance of latents over decisions as a share of their mean square; below it they are all the same"""
RANK = 1.1
"""effective rank of the latents' covariance, below which they vary along one line"""
GROUPS = 0.02
"""deviation of the thoughts' groups below which the stop never varies"""


TASK = "success_task_"
"""figures of single tasks: this and the task's number"""
SOLVED = 0.5
"""mean success over a window at which a task counts as solved"""

Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong with a run."""

    level: HealthLevel
    name: HealthSign
    text: str
    """one line: the figure, and what it means or what to do"""


@dataclass(frozen=True, kw_only=True)
class _Sign:
    figure: str
    bad: Callable[[float, float, HealthConfig], bool]
    """of the figure now, the figure at the run's beginning, and the limits"""
    text: str
    over: Callable[[Sequence[float]], float] = median
    """one number out of a window's: the median shrugs off single bad iterations"""


def _below(bound: float) -> Callable[[float, float, HealthConfig], bool]:
    return lambda now, _start, _limits: now < bound


_SIGNS: dict[HealthSign, _Sign] = {
    "no_success": _Sign(
        figure="success",
        over=max,
        bad=lambda now, _start, _limits: now <= 0,
        text="zero success for {window} iterations: nothing to learn from; the warm-up is too weak",
    ),
    "no_advantage": _Sign(
        figure="advantage_std",
        bad=_below(NOTHING),
        text="advantages do not differ (deviation {now:.1e}): no decision is better than another",
    ),
    "no_gradient": _Sign(
        figure="grad_norm",
        bad=_below(NOTHING),
        text="the gradient is zero (norm {now:.1e}): nothing is learnt; look at frozen weights and the loss",
    ),
    "still_ratios": _Sign(
        figure="last_ratio_max",
        bad=_below(1 + STILL),
        text="ratios never leave 1 ({now:.5f} after an iteration's steps): raise optimizer.lr",
    ),
    "low_entropy": _Sign(
        figure="action_entropy",
        bad=lambda now, start, limits: now < limits.entropy_low * start,
        text="actions hardly vary any more (entropy {start:.2f} -> {now:.2f} nats): lower optimizer.lr",
    ),
    "high_entropy": _Sign(
        figure="action_entropy",
        bad=lambda now, start, limits: now > min(start + limits.entropy_rise, RANDOM),
        text="actions are close to random (entropy {start:.2f} -> {now:.2f} nats)",
    ),
    "high_kl": _Sign(
        figure="action_approx_kl",
        bad=lambda now, _start, limits: now > limits.kl,
        text="the policy moves {now:.2f} nats per iteration: it will forget; lower optimizer.lr",
    ),
    "same_latents": _Sign(
        figure="latent_spread",
        bad=lambda now, start, limits: now < max(limits.latent_share * start, SPREAD),
        text="thoughts no longer depend on what is seen (spread {start:.1e} -> {now:.1e})",
    ),
    "flat_latents": _Sign(
        figure="latent_rank",
        bad=lambda now, start, limits: now < max(limits.latent_share * start, RANK),
        text="thoughts vary in hardly any direction (effective rank {start:.1f} -> {now:.1f})",
    ),
    "blind_value": _Sign(
        figure="explained_variance",
        over=max,
        bad=lambda now, _start, limits: now < limits.explained,
        text="the value explains nothing (variance explained {now:.3f} at best in {window} iterations)",
    ),
    "fixed_stop": _Sign(
        figure="groups_std",
        bad=_below(GROUPS),
        text="every thought has the same length (deviation {now:.3f} groups): the stop decides nothing",
    ),
    "lost_environments": _Sign(
        figure="lost_share",
        bad=lambda now, _start, limits: now > limits.lost,
        text="{now:.0%} of the simulators' episodes are lost ({start:.0%} at first): look at their memory",
    ),
    "mismatch": _Sign(
        figure="recorded_gap",
        bad=lambda now, _start, limits: now > limits.mismatch,
        text="acting and learning disagree by {now:.2f} nats on the same decision with the same weights",
    ),
}


def health(rows: Rows, limits: HealthConfig, since: int = 0) -> list[Finding]:
    """What is wrong now; `rows` are the figures of all iterations so far, in order.

    A sign must show in the last `limits.window` rows, in twice as many to be `stop` (until then it is
    `warn`).  A figure that one of these rows lacks says nothing.  Rows before index `since` count as the
    run's beginning only.
    """
    found = []
    for name, shown in _LOOKS.items():
        text = shown(rows, since, limits, limits.window)
        if text is not None and name not in limits.off:
            lasting = shown(rows, since, limits, 2 * limits.window) is not None
            found.append(Finding(level=_level(name, limits, lasting=lasting), name=name, text=text))
    return found


def _level(name: HealthSign, limits: HealthConfig, *, lasting: bool) -> HealthLevel:
    if name in limits.note:
        return "note"
    return "stop" if name in limits.stop and lasting else "warn"


def _shown(sign: _Sign, rows: Rows, since: int, limits: HealthConfig, window: int) -> str | None:
    last, first = rows[since:][-window:], rows[: limits.window]
    if len(last) < window or not all(sign.figure in row for row in (*last, *first)):
        return None
    now = sign.over([row[sign.figure] for row in last])
    start = sign.over([row[sign.figure] for row in first])
    return sign.text.format(now=now, start=start, window=window) if sign.bad(now, start, limits) else None


def _forgotten(rows: Rows, since: int, limits: HealthConfig, window: int) -> str | None:
    """Tasks without a success in the last `window` iterations that played them, and solved before.

    Success of the other tasks hides them from `no_success`.
    """
    names = sorted({name for row in rows for name in row if name.startswith(TASK)}, key=_number)
    lost = {}
    for name in names:
        late = [row[name] for row in rows[since:] if name in row][-window:]
        if len(late) == window and max(late) <= 0:
            best = _best([row[name] for row in rows if name in row], limits.window)
            if best >= SOLVED:
                lost[_number(name)] = best
    if not lost:
        return None
    told = ", ".join(f"{task} ({best:.0%} at best)" for task, best in lost.items())
    return f"no success for {window} iterations on what had been solved: task {told}"


def _number(name: str) -> int:
    return int(name.removeprefix(TASK))


def _best(values: Sequence[float], window: int) -> float:
    """Largest mean of `window` values in a row."""
    return max(mean(values[i : i + window]) for i in range(max(1, len(values) - window + 1)))


_LOOKS: dict[HealthSign, Callable[[Rows, int, HealthConfig, int], str | None]] = {
    **{name: partial(_shown, sign) for name, sign in _SIGNS.items()},
    "forgotten_task": _forgotten,
}
"""sign -> its line when it shows in a window of so many iterations"""
