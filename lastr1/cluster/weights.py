"""Learner -> collectors: every rank hands out its part of what is trained, a collector puts them together.

The parts travel through Ray's object store from the rank's machine to the collector's; whoever drives the run
holds only references to them.  With an adapter that is the adapter and the value head, not the backbone.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from lastr1.types import Array


def part_of(policy: nn.Module) -> dict[str, Array]:
    """This rank's rows of every trained parameter."""
    return {
        name: (p.to_local() if isinstance(p, DTensor) else p).detach().cpu().numpy()
        for name, p in policy.named_parameters()
        if p.requires_grad
    }


@torch.no_grad()
def install(policy: nn.Module, parts: Sequence[Mapping[str, Array]]) -> None:
    """Overwrite parameters with the parts of all ranks, by rank (FSDP2 cuts along the first axis)."""
    for name in parts[0]:
        whole = np.concatenate([part[name] for part in parts])
        policy.get_parameter(name).copy_(torch.from_numpy(whole))


def size(policy: nn.Module) -> int:
    """Bytes of `part_of`."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    return sum((p.to_local() if isinstance(p, DTensor) else p).nbytes for p in trained)
