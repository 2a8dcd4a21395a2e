"""Camera image -> crop, resize -> patches (ALGORITHM.md 2.4), without torchvision.

Axes: B images, H rows, W columns, M = (H/patch)*(W/patch) patches of an image, F = 3*2*patch*patch numbers
of a patch.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image as Pillow
from torch import Tensor

from lastr1.types import Image

MERGE = 2
"""patches per edge that become one language token"""


def crop_resize(image: Image, size: int, share: float, corner: tuple[float, float] = (0.5, 0.5)) -> Image:
    """Keep a window of `share` of each edge, resize it to `size` (bilinear with antialiasing).

    `corner` places the window, (0, 0) top left .. (1, 1) bottom right: the centre for evaluation, random
    in the warm-up.
    """
    height, width = image.shape[:2]
    rows, columns = int(share * height), int(share * width)
    if (rows, columns) == (size, size) == (height, width):
        return image
    top, left = round(corner[0] * (height - rows)), round(corner[1] * (width - columns))
    window = Pillow.fromarray(image[top : top + rows, left : left + columns])
    return np.asarray(window.resize((size, size), Pillow.Resampling.BILINEAR))


def patchify(images: UInt8[Tensor, "B H W 3"], patch: int) -> Float[Tensor, "B M F"]:
    """Pixels scaled to [-1, 1], patch by patch.

    Merge blocks in raster order, then the 2x2 patches of a block; in a patch channel, time, y, x.  The
    still image is repeated for the two frames of a temporal patch.
    """
    batch, height, width, _ = images.shape
    x = (images.float() - 127.5) / 127.5
    down, across = height // (patch * MERGE), width // (patch * MERGE)
    x = x.reshape(batch, down, MERGE, patch, across, MERGE, patch, 3)
    x = x.permute(0, 1, 4, 2, 5, 7, 3, 6)  # B, down, across, 2, 2, channel, y, x
    x = x[:, :, :, :, :, :, None].expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return x.reshape(batch, down * across * MERGE * MERGE, 3 * 2 * patch * patch)
