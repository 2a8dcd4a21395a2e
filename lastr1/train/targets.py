"""What latents are taught to point at: which teacher looks at the frames, and what of its view is kept.

Axes: F frames, D width of the language model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lastr1.config import Config
from lastr1.demos.cache import PIECE, CachedTeacher
from lastr1.demos.dataset import DemonstrationSet
from lastr1.demos.dinov3 import open_dinov3
from lastr1.demos.mobilenet import open_mobilenet
from lastr1.demos.teacher import Targets, Teacher, ThumbnailTeacher, embedded, make_targets
from lastr1.model.weights import Bundle
from lastr1.train.compress import LEARNT, Eyes
from lastr1.train.device import device_of
from lastr1.train.progress import track
from lastr1.types import UserError

DINOV3 = "dinov3:"


def named_teacher(config: Config) -> Teacher:
    """The teacher that `warmup.teacher` names, on the policy's device.

    `UserError` when there is none of that name, or its weights are not here.
    """
    name = config.warmup.teacher
    if name == "thumbnail":
        return ThumbnailTeacher()
    if name == "mobilenet":
        return open_mobilenet(device_of(config))
    if name.startswith(DINOV3) and name != DINOV3:
        return open_dinov3(name.removeprefix(DINOV3), device_of(config))
    raise UserError(
        f"no teacher {name!r}: use thumbnail, mobilenet or dinov3:NAME, where NAME is a directory or on the "
        f"hub (facebook/dinov3-vits16-pretrain-lvd1689m)"
    )


def lesson_targets(
    config: Config, bundle: Bundle, data: DemonstrationSet, teacher: Teacher, out: Path
) -> tuple[Targets, str]:
    """Targets of the first camera's frames (6.2, 6.3; 8.5 without a teacher), and whose view they are.

    Views are kept in `warmup.cache`, or in `out/targets`; those of thumbnails cost less than looking them up.
    """
    job, frames = config.warmup, data.frames[bundle.prompts.cameras[0]]
    if job.target != "teacher":
        teacher = Eyes(bundle, pooled=job.target not in LEARNT)
    with _remembering(config, teacher, len(frames), out) as found:
        if job.target in LEARNT:
            # What a constant would score changes with the compressor: the report measures it.
            return Targets(vectors=embedded(found, frames), channels=(), constant_cosine=1.0), found.identity
        targets = make_targets(
            found,
            frames,
            bundle.policy.backbone.width,
            center=job.center_targets,
            channels=bundle.channels if bundle.teacher == found.identity else (),
            per_image=job.channels == "per_image",
        )
    return targets, found.identity


@contextmanager
def _remembering(config: Config, teacher: Teacher, frames: int, out: Path) -> Iterator[Teacher]:
    if isinstance(teacher, ThumbnailTeacher):
        yield teacher
        return
    folder = Path(config.warmup.cache).expanduser() if config.warmup.cache is not None else out / "targets"
    with track("targets", -(-frames // PIECE)) as bar:
        yield CachedTeacher(teacher=teacher, folder=folder, advance=bar.advance)
