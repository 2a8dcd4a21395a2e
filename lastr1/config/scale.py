"""More than one machine, and what it would take."""

from dataclasses import dataclass
from typing import Literal

from lastr1.knobs import positive


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """`train` over several processes or machines, on Ray (docs/CLUSTER.md)."""

    collectors: int = 0
    """processes that play, each with the policy and `env.slots` environments (0: no cluster)"""
    learners: int = 1
    """processes that learn together, each with its part of the weights (on GPUs: one process per GPU)"""
    address: str | None = None
    """HOST:PORT of a Ray that runs (None: one of this run's own, on this machine)"""
    collector_cpus: float = 1.0
    """cores that a collector asks Ray for: its simulators' as well"""
    collector_gpus: float = 0.0
    """GPUs, or a share of one, that a collector asks for"""
    learner_cpus: float = 1.0
    """cores that a learner asks for"""
    learner_gpus: float = 0.0
    """GPUs that a learner asks for; with less than 1, collectors may share its GPU"""
    placement: Literal["split", "colocated"] = "split"
    """collectors wherever there is room, spread over machines; or as many beside every learner, on its GPU"""
    staleness: int = 0
    """updates by which an episode's weights may be behind: 0 plays and learns in turn, 1 or more at once"""
    restarts: int = 20
    """collectors, and learners, that may be lost in a run"""

    def __post_init__(self) -> None:
        positive(self, "learners")
        resources = (self.collector_cpus, self.collector_gpus, self.learner_cpus, self.learner_gpus)
        if min(self.collectors, self.staleness, self.restarts, *resources) < 0:
            raise ValueError("cluster: collectors, staleness, restarts, cpus and gpus must be 0 or more")
        if self.placement == "colocated" and self.collectors % self.learners:
            raise ValueError(
                f"cluster: collectors {self.collectors} beside {self.learners} learners: use a multiple"
            )


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """The machines that `lastr1 plan` reckons with."""

    gpus: int = 8
    """GPUs"""
    memory_gb: float = 80.0
    """1e9 bytes of each"""
    tflops: float = 300.0
    """bf16 operations that one does in practice, 1e12 per second (H100: a third of what its sheet says)"""
    bandwidth: float = 2.5
    """memory that one reads, 1e12 bytes per second"""
    cores: int = 64
    """cores for simulators, of all machines together"""
    core_steps: float = 19.0
    """control steps per second of one core (LIBERO drawn by a processor, docs/LOG.md)"""
    episode_steps: float = 150.0
    """control steps of a mean episode"""

    def __post_init__(self) -> None:
        positive(self, "gpus", "memory_gb", "tflops", "bandwidth", "cores", "core_steps", "episode_steps")
