"""Save and resume a run, atomically: policy, optimizer, progress; no pickle.

run/step_000010/     a checkpoint: written beside its place, flushed, then renamed
run/last -> step_000010     the newest;  run/best: the best, where its score is known
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from lastr1.config import Config
from lastr1.knobs import to_dict
from lastr1.model import weights
from lastr1.model.hub import replacing, sync
from lastr1.model.manifest import damage, score, write_manifest
from lastr1.model.weights import Bundle
from lastr1.train.progress import say
from lastr1.types import UserError

STEP = "step_"


class Stateful(Protocol):
    """What is kept of an optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """As torch's optimizers have it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Store:
    """The checkpoints of a run directory.  Whatever moment a run is killed at, the newest whole one is found.

    A score is the success of the run's own (sampled) episodes up to then, as a running mean.
    """

    directory: Path
    keep_last: int = 2
    """newest checkpoints that stay; one of them may turn out to be damaged"""
    keep_every: int = 0
    """those of every n-th step stay as well (0: none)"""

    def save(
        self,
        bundle: Bundle,
        optimizer: Stateful,
        config: Config,
        step: int,
        files: Mapping[str, bytes] = MappingProxyType({}),
        score: float | None = None,
    ) -> None:
        """Write a checkpoint, point `last` and `best` at what they name, and drop what need not stay.

        `files`: what a job itself needs to go on (name -> content).
        """
        self._adopt()
        name = f"{STEP}{step:06}"
        with replacing(self.directory / name) as new:
            weights.write_trained(bundle, new)
            (new / "optimizer.safetensors").write_bytes(serialize(_moments(optimizer)))
            (new / "run.json").write_text(json.dumps({"step": step, "config": to_dict(config)}, indent=1))
            for file, content in files.items():
                (new / file).write_bytes(content)
            write_manifest(new, score)
        self._point("last", name)
        best = self._best()
        if best is not None:
            self._point("best", best.name)
        for path in self._steps()[self.keep_last :]:
            if path != best and not (self.keep_every and _number(path) % self.keep_every == 0):
                # Out of sight first: a folder that is half gone must not be taken for a checkpoint.
                gone = self.directory / f".{path.name}.gone"
                os.replace(path, gone)
                shutil.rmtree(gone)

    def newest(self) -> Path | None:
        """The newest whole checkpoint, if there are any; damaged ones that are newer are put aside.

        `UserError` names what is damaged when none is whole.  What a killed write left behind is cleared.
        """
        self._clear()
        self._adopt()
        wrong: list[tuple[Path, str]] = []
        for path in self._steps():
            name = damage(path)
            if not name:
                for other, what in wrong:
                    aside = self.directory / f"damaged_{other.name}"
                    shutil.rmtree(aside, ignore_errors=True)
                    os.replace(other, aside)
                    say(f"{other / what} is damaged: put aside as {aside.name}, going on from {path.name}")
                self._point("last", path.name)
                return path
            wrong.append((path, name))
        for path, name in wrong:
            raise UserError(f"{path / name} is damaged, and no other checkpoint is whole: begin again")
        return None

    def _steps(self) -> list[Path]:
        """Newest first."""
        found = [p for p in self.directory.glob(f"{STEP}*") if p.name.removeprefix(STEP).isdigit()]
        return sorted(found, key=_number, reverse=True)

    def _best(self) -> Path | None:
        """The highest score; the earliest of equals."""
        scores: list[tuple[float, Path]] = []
        for path in self._steps():
            with suppress(UserError):  # an old one whose manifest was damaged since is none to go back to
                value = score(path)
                scores += [(value, path)] if value is not None else []
        return max(scores, key=lambda row: (row[0], -_number(row[1])))[1] if scores else None

    def _point(self, name: str, target: str) -> None:
        link = self.directory / f".{name}.link"
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(target)
            os.replace(link, self.directory / name)
        finally:
            link.unlink(missing_ok=True)
        sync(self.directory)

    def _adopt(self) -> None:
        """A `last` or `best` that was copied as a folder becomes a checkpoint like the others."""
        for path in (self.directory / "last", self.directory / "best"):
            if path.is_dir() and not path.is_symlink():
                home = self.directory / f"{STEP}{load_step(path):06}"
                if home.exists():
                    shutil.rmtree(path)
                else:
                    os.replace(path, home)

    def _clear(self) -> None:
        for path in self.directory.glob(f".{STEP}*"):
            home = self.directory / path.name[1:].split(".")[0]
            if (path / "old").exists() and not home.exists():
                os.replace(path / "old", home)
            shutil.rmtree(path, ignore_errors=True)
        for link in self.directory.glob(".*.link"):
            link.unlink()


def _number(path: Path) -> int:
    return int(path.name.removeprefix(STEP))


def load_optimizer(directory: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore the moments that `Store.save` wrote."""
    path = directory / "optimizer.safetensors"
    try:
        stored = load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise UserError(f"{path} cannot be resumed from ({error})") from None
    state = optimizer.state_dict()
    state["state"] = {}
    for name, tensor in stored.items():
        index, key = name.split(".")
        state["state"].setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(state)


def load_step(directory: Path) -> int:
    """Step at which a run was saved.  `UserError` when the checkpoint does not say."""
    path = directory / "run.json"
    try:
        return int(json.loads(path.read_text())["step"])
    except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
        raise UserError(f"{path} cannot be resumed from ({error})") from None


def _moments(optimizer: Stateful) -> dict[str, torch.Tensor]:
    state: dict[int, dict[str, torch.Tensor]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value.contiguous() for index, row in state.items() for key, value in row.items()
    }
