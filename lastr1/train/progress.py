"""Progress for people: a live bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

EVERY = 10.0
"""seconds between plain lines"""


class Track:
    """Counts towards a total; `note` says how it goes."""

    def __init__(self, label: str, total: int, bar: Progress | None) -> None:
        self._label, self._total, self._bar = label, total, bar
        self._done, self._printed = 0, time.perf_counter()
        self._task = bar.add_task(label, total=total, note="") if bar is not None else None

    def advance(self, note: str = "") -> None:
        """One more."""
        self._done += 1
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, note=note)
            return
        now = time.perf_counter()
        if now - self._printed > EVERY or self._done == self._total:
            self._printed = now
            say(f"{self._label}: {self._done}/{self._total} {note}")


@contextmanager
def track(label: str, total: int) -> Iterator[Track]:
    """A progress bar (or plain lines) for the length of a `with` block."""
    if not sys.stderr.isatty():
        yield Track(label, total, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield Track(label, total, bar)


def say(line: str) -> None:
    """A plain line on standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
