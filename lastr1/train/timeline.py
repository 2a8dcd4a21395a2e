"""A timeline of a run for ui.perfetto.dev: Chrome's trace-event format (JSON array form)."""

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from lastr1.spans import Span


class Timeline:
    """Spans -> a file with a process per process and a row per simulator, policy, learner and phase."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")
        self._file.write("[\n")
        self._rows: dict[tuple[str, int], dict[str, int]] = {}  # (machine, process) -> row -> its number
        self._first = True

    def write(self, spans: Iterable[Span]) -> None:
        """Append what was done; times are microseconds since 1970."""
        for span in spans:
            process, row = self._place(span)
            self._event(
                name=span.what,
                cat=span.kind,
                ph="X",
                ts=round(1e6 * span.began),
                dur=round(1e6 * span.seconds),
                pid=process,
                tid=row,
            )
        self._file.flush()

    def _place(self, span: Span) -> tuple[int, int]:
        """Numbers of the span's process and row, which are named when they first occur."""
        key = span.machine, span.process
        if key not in self._rows:
            self._rows[key] = {}
            self._name("process_name", f"{span.machine} {span.process}", 1 + list(self._rows).index(key), 0)
        process, rows = 1 + list(self._rows).index(key), self._rows[key]
        label = f"{span.kind} {span.number}"
        if label not in rows:
            rows[label] = 1 + len(rows)
            self._name("thread_name", label, process, rows[label])
        return process, rows[label]

    def _name(self, what: str, name: str, process: int, row: int) -> None:
        self._event(name=what, ph="M", pid=process, tid=row, args={"name": name})

    def _event(self, **fields: Any) -> None:
        self._file.write(("" if self._first else ",\n") + json.dumps(fields))
        self._first = False

    def __enter__(self) -> "Timeline":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.write("\n]\n")
        self._file.close()
