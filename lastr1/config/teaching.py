"""What is learnt from demonstrations and annotated pictures."""

from dataclasses import dataclass
from typing import Literal

from lastr1.knobs import positive

Target = Literal["teacher", "average_pool", "strided_conv", "q_former"]


@dataclass(frozen=True, kw_only=True)
class WarmupConfig:
    """The supervised warm-up [6]."""

    iterations: int = 10_000
    """optimizer steps"""
    batch: int = 64
    """samples per step"""
    lr: float = 1e-5
    """peak learning rate"""
    lr_end: float = 0.1
    """final learning rate as a share of the peak (cosine)"""
    ramp: int = 0
    """steps of linear ramp-up before the cosine"""
    grad_clip: float = 1.0
    """largest gradient norm"""
    cosine_weight: float = 1.0
    """weight of the latent loss (1 - cosine)"""
    stop_weight: float = 0.1
    """weight of the stop losses"""
    action_weight: float = 1.0
    """weight of the action cross-entropy"""
    stop_candidate_weight: float = 1.0
    """inside the stop loss: categorical over the K candidates"""
    stop_vocab_weight: float = 1.0
    """inside the stop loss: full-vocabulary cross-entropy at the drawn candidate"""
    latent_passes: int = 2
    """passes over a lesson: the last reads actions and stops, after what the one before it predicted; 1 reads
    them after the targets, L + 1 after exactly what the policy thinks by itself [6.4]"""
    target: Target = "teacher"
    """what a latent points at: a teacher's view of the frame, or the base's image tokens compressed [8]"""
    teacher: str = "thumbnail"
    """`thumbnail`, `mobilenet`, or `dinov3:` and a directory or a name on the hub"""
    channels: Literal["fixed", "per_image"] = "fixed"
    """the teacher's loudest D channels: one set for the run, or of every frame anew [6.3]"""
    cache: str | None = None
    """folder in which views of frames are kept, to share among runs (None: `targets` in the run's own)"""
    target_stride: int = 8
    """control steps between the future frames that latents are taught"""
    center_targets: bool = False
    """subtract the data set's mean target before the cosine"""
    frame_stride: int = 1
    """keep every n-th frame of a demonstration as a decision point (divides the memory of large sets)"""
    image_augment: Literal["random_crop", "none"] = "random_crop"
    """window of the crop in training"""
    action_smoothing: float = 0.0
    """spread of the action labels over neighbouring bins, in bins (0: one-hot); grippers stay one-hot"""
    freeze_vision: bool = False
    """leave the vision tower as it is"""
    autocast: bool = False
    """bf16 compute with fp32 master weights"""
    checkpointing: bool = False
    """keep no activations inside layers: the backward pass computes them again (a third more work, and the
    prompt is read twice)"""
    checkpoint_every: int = 1000
    """iterations between checkpoints"""
    report_every: int = 2000
    """iterations between reports of what self-fed thoughts lose against the targets (and one at the end)"""

    def __post_init__(self) -> None:
        positive(self, "iterations", "batch", "lr", "grad_clip", "target_stride", "checkpoint_every")
        positive(self, "latent_passes", "report_every")


@dataclass(frozen=True, kw_only=True)
class GroundingConfig:
    """Seeing and pointing, for a base made from scratch (the embedded world only)."""

    iterations: int = 0
    """optimizer steps before the warm-up (0: none)"""
    batch: int = 64
    """pictures per step"""
    lr: float = 1.5e-3
    """peak learning rate"""
    episodes: int = 8000
    """expert episodes that the pictures are taken from"""

    def __post_init__(self) -> None:
        positive(self, "batch", "lr", "episodes")
