import json
from pathlib import Path

import av
import numpy as np
import pytest

from lastr1.rollout.record import EpisodeLine, EpisodeLog, read_episodes, write_video
from lastr1.types import UserError


def line(task: int) -> EpisodeLine:
    return EpisodeLine(
        iteration=1,
        task=task,
        state=None if task else 4,
        seed=task,
        success=task == 1,
        steps=9,
        groups=(1, 4),
        seconds=0.5,
        version=2,
    )


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


def test_a_log_grows_and_survives_being_killed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "episodes.jsonl"
    with EpisodeLog(path) as log:
        log.write(line(0))
        assert read_episodes(path) == (line(0),)
    with path.open("a") as file:
        file.write('{"task": 3, "st')
    assert read_episodes(path) == (line(0),)
    with EpisodeLog(path) as log:
        log.write(line(1))
    assert read_episodes(path) == (line(0), line(1))
    assert len(path.read_text().splitlines()) == 2


def test_a_damaged_log_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    with EpisodeLog(path) as log:
        log.write(line(0))
    good = path.read_text()
    path.write_text(good + "nothing\n" + good)
    with pytest.raises(UserError, match="line 2 is no JSON"):
        read_episodes(path)
    path.write_text(good + json.dumps({"task": 1}) + "\n")
    with pytest.raises(UserError, match="line 2 is no episode"):
        read_episodes(path)
