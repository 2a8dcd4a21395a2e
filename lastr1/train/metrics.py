"""Scalars -> JSON lines and TensorBoard."""

import json
import os
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter


class MetricsLog:
    """`metrics.jsonl` (one object per step) and TensorBoard event files in a run directory."""

    def __init__(self, directory: Path, name: str = "metrics", *, first: int = 0) -> None:
        """Steps from `first` on are about to be written: a killed run's rows of them are forgotten."""
        directory.mkdir(parents=True, exist_ok=True)
        forget(directory / f"{name}.jsonl", first)
        self._lines = (directory / f"{name}.jsonl").open("a", buffering=1)
        # What a killed run wrote there of later steps is not shown.
        self._board = SummaryWriter(str(directory / "tensorboard" / name), purge_step=first or None)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Append one step; `step` counts iterations (train) or optimizer steps (warm-up)."""
        self._lines.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)

    def sync(self) -> None:
        """Every line reaches the disk: a checkpoint must not be ahead of its history."""
        os.fsync(self._lines.fileno())

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._board.close()


def forget(path: Path, first: int) -> None:
    """Drop the lines of step `first` and later, all at once: a killed run leaves the old file or the new."""
    if path.exists():
        kept = [json.dumps(row) + "\n" for row in read_metrics(path) if row["step"] < first]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(kept))
        temporary.replace(path)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The steps of a `metrics.jsonl`; a torn last line (a killed run) is left out."""
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1]]
