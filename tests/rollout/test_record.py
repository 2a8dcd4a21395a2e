from pathlib import Path

import av
import numpy as np
import pytest

from lastr1.rollout.record import write_video


def test_a_video_that_browsers_play(tmp_path: Path) -> None:
    y, x, c = np.ogrid[:63, :80, :3]
    frames = np.stack([(2 * y + x + 50 * c + 4 * t) % 256 for t in range(30)]).astype(np.uint8)
    path = tmp_path / "videos" / "a.mp4"
    write_video(path, frames, 12.5)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height) == (80, 64)
        assert (stream.pix_fmt, float(stream.average_rate)) == ("yuv420p", 12.5)
        images = np.stack([image.to_ndarray(format="rgb24") for image in file.decode(video=0)])
    assert len(images) == 30
    errors = np.abs(images[:, :63].astype(int) - frames)
    assert np.median(errors) < 6
    assert path.read_bytes().find(b"moov") < path.read_bytes().find(b"mdat")  # plays before it is complete
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]
    with pytest.raises(ValueError, match="uint8"):
        write_video(path, frames[:0], 10.0)
    with pytest.raises(ValueError, match="float64"):
        write_video(path, frames / 255, 10.0)  # type: ignore[arg-type]
