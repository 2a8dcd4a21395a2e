import os
import sys
from pathlib import Path

import numpy as np
import pytest

from lastr1.demos.mp4 import DATASET, VideoReader, VideoWriter, choose
from lastr1.types import UserError


def test_frames_are_found_in_any_order(tmp_path: Path) -> None:
    for name, base in (("a", 0), ("b", 100)):
        with VideoWriter(
            tmp_path / f"{name}.mp4", height=16, width=16, rate=10, encoders={"mpeg4": {}}
        ) as writer:
            grey = (base + 12 * np.arange(12)).astype(np.uint8)[:, None, None, None]
            writer.add(grey * np.ones((1, 16, 16, 3), np.uint8))
    reader = VideoReader()
    wanted = (("a", 0, 3, 2), ("a", 0, 5, 4), ("a", 0, 2, 1), ("b", 100, 11, 1), ("a", 0, 0, 12))
    for name, base, first, count in wanted:
        frames = np.stack(reader.read(tmp_path / f"{name}.mp4", first, count))
        expected = base + 12 * np.arange(first, first + count)
        assert np.abs(frames.mean((1, 2, 3)) - expected).max() < 5
    with pytest.raises(UserError, match="ends after 12 frames, 13 are listed"):
        reader.read(tmp_path / "a.mp4", 10, 3)
    reader.close()


def test_the_encoder_is_the_first_that_exists() -> None:
    assert choose({"libnothing": {}, "mpeg4": {"g": "2"}}) == ("mpeg4", {"g": "2"})
    assert choose(DATASET)[1]["g"] == "2"
    with pytest.raises(UserError, match=r"no encoder of \['libnothing'\]"):
        choose({"libnothing": {}})


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")
def test_recording_leaves_every_thread_its_priority(tmp_path: Path) -> None:
    """As root, SVT-AV1 would make itself and its caller real-time: other processes would stand still."""
    before = set(os.listdir("/proc/self/task"))  # a simulator's threads may have priorities of their own
    usual = os.sched_getscheduler(0)
    with VideoWriter(tmp_path / "a.mp4", height=64, width=64, rate=20, encoders=DATASET) as writer:
        writer.add(np.zeros((9, 64, 64, 3), np.uint8))
        threads = [0, *map(int, set(os.listdir("/proc/self/task")) - before)]
        assert {os.sched_getscheduler(thread) for thread in threads} == {usual}
