"""A pinhole camera and a painter of convex polygons, in numpy.

Edges are anti-aliased by analytic coverage (the distance of a pixel's middle to the polygon's nearest edge),
so that motion of a fraction of a pixel shows.

Axes: H image rows, W image columns, N points, M polygons, V corners.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lastr1.types import Floats

Doubles = NDArray[np.float64]


class Camera:
    """A pinhole camera with square images: world metres (x right, y away, z up) to pixels."""

    def __init__(
        self, *, eye: tuple[float, float, float], target: tuple[float, float, float], focal: float, size: int
    ) -> None:
        """`focal` is the focal length over the image width; `size` the image width in pixels."""
        self.eye = np.array(eye)
        self.scale, self.middle = focal * size, size / 2
        forward = np.array(target) - self.eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        self.axes = np.stack(
            [right, np.cross(forward, right), forward], axis=1
        )  # columns: right, down, forward

    def project(self, points: Doubles) -> Doubles:
        """Pixels (column, row) [..., 2] of points [..., 3]; the middle of the first pixel is (0.5, 0.5)."""
        seen = (points - self.eye) @ self.axes
        pixels: Doubles = seen[..., :2] * (self.scale / seen[..., 2:]) + self.middle
        return pixels


def paint(image: Floats, polygons: Doubles, colors: Sequence[Floats], opacity: Sequence[float]) -> None:
    """Paint convex polygons [M, V, 2] (pixels, either orientation) over an image [H, W, 3], in order.

    Every polygon is fattened by half a pixel: neighbouring faces of one box then leave no seam between them.
    """
    height, width = image.shape[:2]
    edges = np.roll(polygons, -1, axis=1) - polygons
    px, py = polygons[..., 0], polygons[..., 1]
    ex, ey = edges[..., 0], edges[..., 1]
    area = (px * np.roll(py, -1, axis=1) - py * np.roll(px, -1, axis=1)).sum(axis=1, keepdims=True)
    scale = np.where(area > 0, 1.0, -1.0) / np.maximum(np.hypot(ex, ey), 1e-6)
    # Signed distance to each edge's line, positive inside: a x + b y + c; half a pixel of fat, half of ramp.
    a, b = -ey * scale, ex * scale
    c = 1.0 - a * px - b * py
    low = np.floor(polygons.min(axis=1) - 1).astype(int).clip(0)
    high = np.ceil(polygons.max(axis=1) + 1).astype(int)
    columns = np.arange(width, dtype=np.float32) + np.float32(0.5)
    rows = (np.arange(height, dtype=np.float32) + np.float32(0.5))[:, None]
    a3, b3, c3 = (v.astype(np.float32)[..., None, None] for v in (a, b, c))
    boxes = np.concatenate([low, high], axis=1).tolist()
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
            continue
        distance = a3[i] * columns[x0:x1] + (b3[i] * rows[y0:y1] + c3[i])
        cover = np.minimum.reduce(distance, axis=0)
        np.maximum(cover, 0.0, out=cover)
        np.minimum(cover, 1.0, out=cover)
        if opacity[i] < 1.0:
            cover *= opacity[i]
        part = image[y0:y1, x0:x1]
        part += cover[..., None] * (colors[i] - part)
