"""Where episodes come from, and how they are counted: simulators, faults, demonstrations, evaluation."""

from dataclasses import dataclass
from typing import Literal

from lastr1.knobs import positive


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Which simulator, and how it is run."""

    suite: str = "tabletop"
    """tabletop, tabletop_base, tabletop_dual, tabletop_dual_base, libero_spatial, libero_object, ...,
    dualarm"""
    tasks: tuple[int, ...] | None = None
    """indices of the tasks to use (None: all of the suite)"""
    image: int = 128
    """pixels of the rendered camera image"""
    slots: int = 32
    """environments played side by side"""
    workers: int = 1
    """simulator processes (0: inside the main process; -1: one per core, at most one per slot)"""
    groups: int = 1
    """the policy decides as soon as one in so many of the episodes under way waits for it: with 2, simulators
    (in processes of their own) play one half while it decides for the other; with 1, what is computed is the
    same to the last bit every time"""
    patience: float | None = None
    """milliseconds that an episode waits for others to be decided with (None: as long as it takes)"""
    deadline: float = 120.0
    """seconds that a simulator process may take for one call before it counts as hung and is replaced"""
    restarts: int = 20
    """losses in a row, with no episode that ends in between, that a run survives"""
    render: Literal["full", "no_reflections", "coarse"] = "full"
    """LIBERO, dualarm: `no_reflections`, or `coarse`, which also drops multisampling, draw two and three
    times as fast and change pixels (recorded in results)"""
    released_init_patch: bool = False
    """reproduce the release's edit of one initial state of libero_spatial (recorded in results)"""

    def __post_init__(self) -> None:
        positive(self, "image", "slots", "groups", "deadline")
        if self.patience is not None and self.patience < 0:
            raise ValueError(f"patience {self.patience} must be 0 or more milliseconds")
        if self.restarts < 0:
            raise ValueError(f"restarts must be 0 or more, not {self.restarts}")
        if self.workers < -1:
            raise ValueError(f"workers {self.workers}: a number of processes, or -1 for one per core")


@dataclass(frozen=True, kw_only=True)
class ChaosConfig:
    """Faults planted in simulators, to see that a run survives them; chances per call of a simulator."""

    kill: float = 0.0
    """its process dies"""
    hang: float = 0.0
    """its process never answers (see `env.deadline`)"""
    corrupt: float = 0.0
    """it answers what cannot be: numbers that are not finite, wrong shapes, missing cameras, ..."""
    slow: float = 0.0
    """it answers `delay` seconds late"""
    delay: float = 1.0
    """seconds"""
    seed: int = 0
    """of the faults alone: what is played does not depend on it"""

    def __post_init__(self) -> None:
        chances = (self.kill, self.hang, self.corrupt, self.slow)
        if min(chances) < 0 or sum(chances) > 1 or self.delay < 0:
            raise ValueError(
                f"chaos: chances {chances} must be in [0, 1], also together; delay {self.delay} 0 or more"
            )


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Demonstrations from the scripted expert."""

    episodes: int = 1
    """successful demonstrations per task (a recording's tasks with the same words count as one)"""
    noise: float = 0.0
    """standard deviation of the moves of an unrecorded, disturbed beginning (0: none)"""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluation [7.1]."""

    episodes: int | None = None
    """episodes in all (None: every stored initial state of every task once)"""
    states: Literal["stored", "fresh"] = "stored"
    """stored initial states in fixed order, or fresh scenes from `seed`"""
    videos: int = 0
    """episodes to film"""
    caps: tuple[int, ...] = ()
    """play every start once under each of these, ascending: thoughts end after at most so many groups, and
    what lies beyond is not computed (none: once, without a cap)"""
    both_rules: bool = True
    """of policies with the `consistent` stop, say how long thoughts are by the rules `first` and `mode` [3];
    with at most 8 episodes at a time this costs the early exits of `first`"""

    def __post_init__(self) -> None:
        if list(self.caps) != sorted(set(self.caps)) or min(self.caps, default=1) < 1:
            raise ValueError(f"evaluate.caps {self.caps} must rise from 1 or more")
