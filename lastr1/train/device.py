"""Where the policy computes: one processor or one GPU for the whole of a job."""

import re

import torch

from lastr1.config import Config
from lastr1.types import UserError


def device_named(name: str) -> torch.device:
    """What `name` means on this machine.  `UserError` when it is no device, or is not here."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"no device {name!r}: use auto, cpu, cuda or a numbered one as cuda:1")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        seen = f"cuda:0..{count - 1}" if count else "no GPU (lastr1 doctor says more)"
        raise UserError(f"device {name} is not here, torch sees {seen}: use --device auto")
    return device


def device_of(config: Config) -> torch.device:
    """The device of a job.  `UserError` also when processes should share what only one of them can hold."""
    device = device_named(config.device)
    if device.type != "cpu" and config.processes > 1:
        raise UserError(
            f"processes {config.processes} share their weights in memory, which {device} cannot: "
            f"use --processes 1 or --device cpu"
        )
    return device
