"""A run's dead-run detector at work: says what it finds, writes it down, ends the run."""

import json
from dataclasses import dataclass
from pathlib import Path

from lastr1.algo.health import LEVELS, Finding, health
from lastr1.config import HealthConfig
from lastr1.train.metrics import forget, read_metrics
from lastr1.train.progress import say
from lastr1.types import UserError

FILE = "health.jsonl"
"""one line per finding when it appears, and when its level rises"""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A line of the file."""

    step: int
    """iteration after which it was found"""
    finding: Finding

    def line(self) -> str:
        """As JSON."""
        found = self.finding
        facts = {"step": self.step, "level": found.level, "name": found.name, "text": found.text}
        return json.dumps(facts) + "\n"


def read_events(path: Path) -> list[Event]:
    """Events of a run, in order; none where there is no file."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    return [Event(step=row.pop("step"), finding=Finding(**row)) for row in rows]


class Watch:
    """Looks at a run after every iteration."""

    def __init__(self, limits: HealthConfig, directory: Path, first: int = 0) -> None:
        """Iterations from `first` on are still to come; those before are read from the run directory.

        A run that was ended and is resumed all the same gets whole windows anew.
        """
        self._limits, self._file = limits, directory / FILE
        past = read_metrics(directory / "metrics.jsonl") if first else []
        self._rows = [row for row in past if row["step"] < first]
        forget(self._file, first)
        self.events = read_events(self._file)
        ends = [event.step for event in self.events if event.finding.level == "stop"]
        self._since = sum(row["step"] <= max(ends) for row in self._rows) if ends else 0
        self._grave: dict[str, int] = {}
        for event in self.events:
            if not ends or event.step > max(ends):
                self._grave[event.finding.name] = LEVELS.index(event.finding.level)
        self.end: Event | None = None
        """why the run must end"""

    def look(self, step: int, figures: dict[str, float]) -> float:
        """Take in an iteration; how bad it is: 0, or 1, 2, 3 for a note, a warning, the end (see `end`)."""
        self._rows.append(figures)
        found = health(self._rows, self._limits, self._since)
        for finding in found:
            level = LEVELS.index(finding.level)
            if level > self._grave.get(finding.name, -1):
                self._grave[finding.name] = level
                self._tell(Event(step=step, finding=finding))
        worst = max((1 + LEVELS.index(finding.level) for finding in found), default=0)
        return float(worst)

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        if event.finding.level == "stop":
            self.end = event
        say(f"health: {event.finding.level} after iteration {event.step}: {event.finding.text}")
        with self._file.open("a") as file:
            file.write(event.line())

    def conclude(self) -> None:
        """`UserError` when the run was ended.  Call it when the checkpoint is written."""
        if self.end is not None:
            found = self.end.finding
            raise UserError(
                f"the run is dead after iteration {self.end.step} ({found.name}): {found.text}; a checkpoint "
                f"is written: go on with --resume, or begin again, with --health.off {found.name} if need be"
            )

    def summary(self) -> tuple[str, ...]:
        """What was found, one line each."""
        return tuple(f"{e.finding.level} after iteration {e.step}: {e.finding.text}" for e in self.events)
