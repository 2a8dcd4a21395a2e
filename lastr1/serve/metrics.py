"""What a policy server did, for its clients and for Prometheus (text format 0.0.4).  Torch-free."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

WINDOW = 1000
"""decisions that percentiles are taken over"""
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One answered request."""

    queue_ms: float
    """from its arrival to the forward pass that decided it"""
    infer_ms: float
    """the forward pass, pictures and all, shared by the batch"""
    total_ms: float
    """from its arrival to its answer"""
    deadline_ms: float
    batch: int
    """requests decided together"""
    groups: int
    """of this thought"""
    cap: int
    """groups that the deadlines of the batch left room for"""
    latents: int
    """of this thought"""


class Metrics:
    """Counts since the start, and percentiles over the last decisions."""

    def __init__(self, *, groups: int, latents_per_group: int) -> None:
        self.clients = 0
        """connected now"""
        self.refused: Counter[str] = Counter()
        """reason -> requests (or connections) turned away"""
        self._groups, self._per_group = groups, latents_per_group
        self._thoughts = Counter[int]()  # groups -> decisions
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._seconds = 0.0
        self._late = self._capped = self._batched = 0

    @property
    def decisions(self) -> int:
        """Requests answered with a chunk."""
        return self._thoughts.total()

    def answered(self, timing: Timing) -> None:
        """Count one decision."""
        self._thoughts[timing.groups] += 1
        self._recent.append(timing.total_ms)
        self._seconds += timing.total_ms / 1000
        self._late += timing.total_ms > timing.deadline_ms
        self._capped += timing.cap < self._groups
        self._batched += timing.batch

    def percentiles(self) -> dict[str, float]:
        """Total milliseconds of the last decisions: `p50_ms`, `p95_ms`, `p99_ms` (empty before the first)."""
        if not self._recent:
            return {}
        found = np.quantile(self._recent, QUANTILES)
        return {f"p{100 * q:.0f}_ms": float(x) for q, x in zip(QUANTILES, found, strict=True)}

    def mean_latents(self) -> float:
        """Mean length of a thought."""
        latents = sum(self._per_group * k * n for k, n in self._thoughts.items())
        return latents / max(1, self.decisions)

    def text(self) -> str:
        """All of it, as Prometheus reads it."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from _entry("lastr1_clients", "gauge", "connected clients", {"": self.clients})
        refused = {f'{{reason="{reason}"}}': n for reason, n in sorted(self.refused.items())}
        yield from _entry("lastr1_refused_total", "counter", "requests turned away", refused)
        yield from _entry("lastr1_late_total", "counter", "decisions after their deadline", {"": self._late})
        capped = {"": self._capped}
        yield from _entry("lastr1_capped_total", "counter", "decisions whose thought a deadline cut", capped)
        batch = {"_sum": self._batched, "_count": self.decisions}
        yield from _entry("lastr1_batch_size", "summary", "requests decided together", batch)
        found = zip(QUANTILES, self.percentiles().values(), strict=False)
        seconds: dict[str, float] = {f'{{quantile="{q}"}}': ms / 1000 for q, ms in found}
        seconds |= {"_sum": self._seconds, "_count": self.decisions}
        yield from _entry("lastr1_decision_seconds", "summary", "from arrival to answer", seconds)
        yield from _entry("lastr1_thought_latents", "histogram", "latents of a thought", self._lengths())

    def _lengths(self) -> dict[str, float]:
        lengths = range(min(1, self._groups), self._groups + 1)
        below = {k: sum(n for groups, n in self._thoughts.items() if groups <= k) for k in lengths}
        buckets: dict[str, float] = {f'_bucket{{le="{self._per_group * k}"}}': n for k, n in below.items()}
        buckets['_bucket{le="+Inf"}'] = self.decisions
        return {**buckets, "_sum": self.mean_latents() * self.decisions, "_count": self.decisions}


def _entry(name: str, kind: str, told: str, values: dict[str, int] | dict[str, float]) -> Iterator[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"
    for suffix, value in values.items():
        yield f"{name}{suffix} {value:.12g}"  # sums grow for weeks, and rates are their small differences
