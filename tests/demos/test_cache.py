"""Views on disk: asked once, whole or absent, named by what they depend on."""

import numpy as np
import pytest

from lastr1.demos import cache
from lastr1.demos.cache import PIECE, CachedTeacher, piece_name
from lastr1.demos.teacher import CallableTeacher

COUNT = 2 * PIECE + 5


class Asked:
    """A teacher that counts; its answer is the frame's first pixel and a constant."""

    def __init__(self, identity="one", constant=1.0):
        self.identity, self.constant, self.frames, self.stop_at = identity, constant, 0, None

    def embed(self, frames):
        if self.stop_at is not None and self.frames >= self.stop_at:
            raise KeyboardInterrupt
        self.frames += len(frames)
        rows = frames[:, 0, 0].astype(np.float32)
        return np.concatenate([rows, np.full((len(frames), 1), self.constant, np.float32)], axis=1)


@pytest.fixture
def frames(rng):
    return rng.integers(0, 256, (COUNT, 4, 6, 3), dtype=np.uint8)


def test_a_frame_is_looked_at_once(tmp_path, frames):
    teacher, pieces = Asked(), []
    cached = CachedTeacher(teacher=teacher, folder=tmp_path / "a", advance=lambda: pieces.append(1))
    first = cached.embed(frames)
    assert (teacher.frames, len(pieces)) == (COUNT, 3)
    second = cached.embed(frames)
    assert (teacher.frames, len(pieces)) == (COUNT, 6)
    assert first.dtype == np.float32
    assert np.array_equal(first, teacher.embed(frames))
    assert np.array_equal(first, second)
    assert cached.identity == "one"
    assert {path.suffix for path in (tmp_path / "a").iterdir()} == {".safetensors"}


def test_another_frame_or_teacher_is_asked_anew(tmp_path, frames):
    """One pixel, the order of two frames, the shape, the teacher."""
    first = Asked()
    CachedTeacher(teacher=first, folder=tmp_path).embed(frames)
    changed, swapped = frames.copy(), frames.copy()
    changed[PIECE, 3, 5, 2] ^= 1
    swapped[[0, 1]] = frames[[1, 0]]
    for other in (changed, swapped):
        teacher = Asked()
        found = CachedTeacher(teacher=teacher, folder=tmp_path).embed(other)
        assert teacher.frames == PIECE
        assert np.array_equal(found, Asked().embed(other))
    turned = frames.transpose(0, 2, 1, 3)
    assert piece_name("one", frames) != piece_name("one", turned)
    assert piece_name("one", turned) == piece_name("one", np.ascontiguousarray(turned))
    other = Asked("two", 2.0)
    assert np.array_equal(CachedTeacher(teacher=other, folder=tmp_path).embed(frames), other.embed(frames))


def test_an_interruption_costs_one_piece(tmp_path, frames):
    teacher = Asked()
    teacher.stop_at = 2 * PIECE
    with pytest.raises(KeyboardInterrupt):
        CachedTeacher(teacher=teacher, folder=tmp_path).embed(frames)
    assert len(list(tmp_path.iterdir())) == 2
    again = Asked()
    found = CachedTeacher(teacher=again, folder=tmp_path).embed(frames)
    assert again.frames == COUNT - 2 * PIECE
    assert np.array_equal(found, Asked().embed(frames))


@pytest.mark.parametrize("damage", ["cut short", "a bit turned over", "empty", "something else"])
def test_a_damaged_piece_is_asked_for_again(tmp_path, frames, damage):
    teacher = Asked()
    cached = CachedTeacher(teacher=teacher, folder=tmp_path)
    first = cached.embed(frames)
    path = tmp_path / f"{piece_name('one', frames[:PIECE])}.safetensors"
    whole = path.read_bytes()
    turned = bytearray(whole)
    turned[-40] ^= 1  # in the numbers or their checksum
    path.write_bytes(
        {
            "cut short": whole[:-1],
            "a bit turned over": bytes(turned),
            "empty": b"",
            "something else": cache.save({"vectors": first[:PIECE]}),
        }[damage]
    )
    assert np.array_equal(cached.embed(frames), first)
    assert teacher.frames == COUNT + PIECE
    assert path.read_bytes() == whole


def test_a_write_that_fails_leaves_nothing(tmp_path, frames, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        CachedTeacher(teacher=Asked(), folder=tmp_path).embed(frames)
    assert list(tmp_path.iterdir()) == []


def test_any_function_is_a_teacher(tmp_path, frames):
    teacher = CallableTeacher(identity="brightness 1", function=lambda x: x.mean((1, 2)).astype(np.float32))
    found = CachedTeacher(teacher=teacher, folder=tmp_path).embed(frames)
    assert found == pytest.approx(frames.mean((1, 2)), rel=1e-6)
