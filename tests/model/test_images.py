"""Crop, resize and patches (ALGORITHM.md 2.4).  Axes: B images, H rows, W columns."""

import itertools

import numpy as np
import pytest
import torch

from lastr1.model.images import crop_resize, patchify


def camera(rng, height=64, width=64):
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("patch", [4, 16])
@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_patches_one_by_one(rng, size, patch):
    """Blocks of 2 x 2 patches in raster order, then the patches of the block; channel, time, y, x."""
    height, width = size
    image = camera(rng, height, width)
    rows = []
    for top, left in itertools.product(range(0, height, 2 * patch), range(0, width, 2 * patch)):
        for down, right in itertools.product(range(2), range(2)):
            y, x = top + down * patch, left + right * patch
            window = image[y : y + patch, x : x + patch].astype(np.float64)  # [y, x, channel]
            scaled = ((window / 255) - 0.5) / 0.5
            rows.append([scaled[..., c].ravel() for c in range(3) for _ in range(2)])
    expected = np.array(rows).reshape(len(rows), -1)
    found = patchify(torch.from_numpy(image)[None], patch)[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), atol=1e-6, rtol=0)


def test_images_of_a_batch_do_not_mix(rng):
    images = torch.from_numpy(np.stack([camera(rng) for _ in range(3)]))
    together = patchify(images, 16)
    assert together.shape == (3, 16, 3 * 2 * 16 * 16)
    for i in range(3):
        assert torch.equal(together[i], patchify(images[i : i + 1], 16)[0])


def test_whole_image_of_the_right_size_is_left_alone(rng):
    image = camera(rng)
    assert crop_resize(image, 64, 1.0) is image


def test_the_window_is_in_the_middle():
    """256 pixels, 0.9: box 13..243.  A frame of 13 white pixels vanishes, one of 14 leaves a white rim."""
    image = np.zeros((256, 256, 3), dtype=np.uint8)
    image[:13], image[243:], image[:, :13], image[:, 243:] = 255, 255, 255, 255
    assert crop_resize(image, 256, 0.9).max() == 0
    image[13], image[242], image[:, 13], image[:, 242] = 255, 255, 255, 255
    rim = crop_resize(image, 256, 0.9)[..., 0]
    for edge in (rim[0], rim[-1], rim[:, 0], rim[:, -1]):
        assert (edge > 200).all()
    assert rim[2:-2, 2:-2].max() == 0


def test_the_window_goes_where_it_is_put():
    rows = np.repeat(np.arange(64, dtype=np.uint8)[:, None, None], 64, 1).repeat(3, 2)
    columns = rows.transpose(1, 0, 2).copy()
    for image, corner in ((rows, (0.0, 1.0)), (columns, (1.0, 0.0))):
        assert crop_resize(image, 32, 0.5, corner).tolist() == image[:32, :32].tolist()
    assert crop_resize(rows, 32, 0.5, (1.0, 0.0)).tolist() == rows[32:, :32].tolist()
    assert crop_resize(columns, 32, 0.5, (0.0, 1.0)).tolist() == columns[:32, 32:].tolist()


def test_shrinking_averages():
    """Antialiasing: a fine chequerboard becomes grey, not one of its colours."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    small = crop_resize(board, 16, 1.0)
    assert small.shape == (16, 16, 3)
    assert small.dtype == np.uint8
    assert np.abs(small.astype(int) - 128).max() <= 2


def test_wide_camera_images_become_square(rng):
    assert crop_resize(camera(rng, 48, 80), 64, 0.9).shape == (64, 64, 3)
