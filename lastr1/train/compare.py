"""Job: two evaluations held against each other, start by start."""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lastr1.train.evaluate import wilson
from lastr1.train.sign import is_sealed
from lastr1.types import UserError

ENV = ("suite", "image", "render", "released_init_patch")
SETUP = ("suite", "cap", "settle", "camera", "image", "render", "patches")
DRAWN_BY = ("renderer", "packages")
"""what may differ, and is said: other drivers draw other pixels"""
Start = tuple[int, int, int]
"""task, stored state (-1: fresh), seed"""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two policies on the same starts."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def starts(self) -> int:
        """How many."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """Success of B minus success of A, as shares."""
        return (self.only_b - self.only_a) / self.starts

    @property
    def p(self) -> float:
        """Two-sided p of the exact McNemar test."""
        return mcnemar(self.only_a, self.only_b)

    @property
    def interval95(self) -> tuple[float, float]:
        """95% interval of `difference`."""
        return paired_interval(self.both, self.only_b, self.only_a, self.neither)

    @staticmethod
    def of(pairs: Sequence[tuple[bool, bool]]) -> "Paired":
        """Count (success of A, success of B)."""
        found = Counter(pairs)
        return Paired(
            both=found[True, True],
            only_a=found[True, False],
            only_b=found[False, True],
            neither=found[False, False],
        )


def mcnemar(b: int, c: int) -> float:
    """Two-sided p of b against c discordant pairs: twice the smaller binomial tail at 1/2, at most 1.

    McNemar 1947, in its exact form.
    """
    n = b + c
    tail = sum(math.comb(n, i) for i in range(min(b, c) + 1))
    return min(1.0, float(2 * tail / 2**n))


def paired_interval(a: int, b: int, c: int, d: int) -> tuple[float, float]:
    """95% interval of (a + b) / n - (a + c) / n, for pairs (yes, yes), (yes, no), (no, yes), (no, no).

    Newcombe 1998 (Statistics in Medicine 17, 2635-2650), method 10: the Wilson intervals of both shares,
    joined with their correlation phi, whose numerator is corrected for continuity.
    """
    n = a + b + c + d
    first, second = (a + b) / n, (a + c) / n
    (low1, high1), (low2, high2) = wilson(a + b, n), wilson(a + c, n)
    phi = _phi(a, b, c, d)
    down = _joined(first - low1, high2 - second, phi)
    up = _joined(high1 - first, second - low2, phi)
    return first - second - down, first - second + up


def _phi(a: int, b: int, c: int, d: int) -> float:
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    agreement = float(a * d - b * c)
    if agreement > 0:
        agreement = max(0.0, agreement - (a + b + c + d) / 2)
    return agreement / math.sqrt(margins)


def _joined(x: float, y: float, phi: float) -> float:
    return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `compare` reads of a `result.json`."""

    path: Path
    protocol: dict[str, Any]
    """field -> value; must be equal"""
    drawn_by: dict[str, Any]
    """may differ"""
    assets: dict[str, str]
    """task file -> SHA-256"""
    tasks: tuple[str, ...]
    """instructions of the tasks that were played, in the order of their numbers"""
    success: dict[Start, bool]


def read_result(path: Path) -> Result:
    """A `result.json`, or the one in a folder.  `UserError`: missing, damaged, or a start played twice."""
    path = path / "result.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path} is missing: give two folders that lastr1 evaluate wrote")
    try:
        facts = json.loads(path.read_text())
        whole = is_sealed(facts)
        setup = facts["setup"]
        rows = [((r["task"], r["state"], r["seed"]), bool(r["success"])) for r in facts["rows"]]
        result = Result(
            path=path,
            protocol={
                **{f"env.{name}": facts["env"][name] for name in ENV},
                **{f"setup.{name}": setup[name] for name in SETUP},
            },
            assets=facts["signature"]["assets"],
            drawn_by={
                **{name: setup[name] for name in DRAWN_BY},
                "code": facts["signature"]["code"]["sources"][:12],
            },
            tasks=tuple(facts["tasks"]),
            success=dict(rows),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged or of another version ({error!r}): evaluate again") from None
    if not whole:
        raise UserError(f"{path} was edited (it is not what its sha256 says): evaluate again")
    for start, count in Counter(start for start, _ in rows).items():
        if count > 1:
            raise UserError(f"{path} plays task {start[0]}, state {start[1]} {count} times: evaluate again")
    return result


def compare(a: Path, b: Path) -> list[str]:
    """Lines for a terminal.  `UserError` names the fields in which the protocols differ."""
    first, second = read_result(a), read_result(b)
    files = [name for name in first.assets if name in second.assets]
    wrong = _differing(first.protocol, second.protocol)
    wrong += _differing({f: first.assets[f] for f in files}, {f: second.assets[f] for f in files})
    if wrong:
        raise UserError(f"{a} and {b} were not evaluated alike ({'; '.join(wrong)}): evaluate one again")
    shared = sorted(first.success.keys() & second.success.keys())
    if not shared:
        raise UserError(f"{a} and {b} share no initial state: evaluate both with the same seed and tasks")
    return [
        f"A {first.path}",
        f"B {second.path}",
        *_told(first, second, len(shared)),
        *_table(first, second, shared),
    ]


def _differing(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    return [f"{name}: {left[name]} against {right[name]}" for name in left if left[name] != right[name]]


def _told(first: Result, second: Result, shared: int) -> list[str]:
    lines = [f"{shared} initial states are shared"]
    for name, result in (("A", first), ("B", second)):
        if len(result.success) > shared:
            lines.append(f"{name} plays {len(result.success) - shared} more, which do not count here")
    return lines + [f"NOTE: {line}" for line in _differing(first.drawn_by, second.drawn_by)]


def _table(first: Result, second: Result, shared: Sequence[Start]) -> list[str]:
    def counted(chosen: Callable[[Start], bool]) -> Paired:
        return Paired.of([(first.success[s], second.success[s]) for s in shared if chosen(s)])

    numbers = sorted({task for task, _, _ in first.success})
    names = dict(zip(numbers, first.tasks, strict=True))
    rows = [
        (names[task], counted(lambda s, task=task: s[0] == task))  # type: ignore[misc]
        for task in sorted({task for task, _, _ in shared})
    ]
    rows.append(("all tasks", counted(lambda _: True)))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {_line(paired)}" for name, paired in rows]
    whole = rows[-1][1]
    lines.append(
        f"exact McNemar: {whole.only_a} solved by A alone, {whole.only_b} by B alone, two-sided p = "
        f"{whole.p:.3g}"
    )
    return lines


def _line(paired: Paired) -> str:
    n = paired.starts
    a, b = (100 * (paired.both + x) / n for x in (paired.only_a, paired.only_b))
    low, high = (100 * x for x in paired.interval95)
    change = 100 * paired.difference
    return f"A {a:5.1f}%  B {b:5.1f}%  B - A {change:+5.1f} points  95% [{low:+.1f}, {high:+.1f}]"
