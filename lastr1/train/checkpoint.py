"""Save and resume a run, atomically: policy, optimizer, progress; no pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from lastr1.config import Config, to_dict
from lastr1.model import weights
from lastr1.model.hub import replacing
from lastr1.model.weights import Bundle
from lastr1.types import UserError


def save_run(
    directory: Path,
    bundle: Bundle,
    optimizer: torch.optim.Optimizer,
    config: Config,
    step: int,
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write policy, optimizer, progress and a job's own `files` in place of what stands at `directory`."""
    with replacing(directory) as new:
        weights.write_trained(bundle, new)
        (new / "optimizer.safetensors").write_bytes(serialize(_moments(optimizer)))
        (new / "run.json").write_text(json.dumps({"step": step, "config": to_dict(config)}, indent=1))
        for name, content in files.items():
            (new / name).write_bytes(content)


def load_optimizer(directory: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore the moments that `save_run` wrote."""
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


def load_step(directory: Path) -> tuple[int, dict[str, Any]]:
    """Step and resolved config of a saved run."""
    path = directory / "run.json"
    try:
        facts = json.loads(path.read_text())
        return facts["step"], facts["config"]
    except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
        raise UserError(f"{path} cannot be resumed from ({error})") from None


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state: dict[int, dict[str, torch.Tensor]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value.contiguous() for index, row in state.items() for key, value in row.items()
    }
