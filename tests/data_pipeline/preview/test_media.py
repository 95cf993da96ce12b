from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.clip import Clip
from data_pipeline.corpora.source import open_source
from data_pipeline.features.detector import load_detector
from data_pipeline.features.video import decode_sound
from data_pipeline.preview import media as media_module
from data_pipeline.preview.media import OUTLINE_STEPS, SAMPLE_RATE, decode_media
from tests.data_pipeline.features.media import make_sound, make_video

FPS = 10.0
DETECTOR = load_detector(None)
TIMES = range(0, 1280, 40)
"""Of 1.28 s."""


def clip_of(folder: Path, name: str, content: bytes) -> Clip:
    (folder / name).write_bytes(content)
    return Clip("k", source=name, duration_s=1.0)


def test_without_a_face_the_pictures_themselves_are_shown(tmp_path: Path) -> None:
    levels = [80 if time < 600 else 200 for time in TIMES]
    video = make_video(TIMES, levels, None, size=192)
    media = decode_media(clip_of(tmp_path, "a.mp4", video), open_source(tmp_path), DETECTOR, FPS)
    assert (media.sound, media.problems) == (None, ())
    assert [(one.begin_s, one.end_s) for one in media.faces] == [(0, 0.5), (0.5, 1), (1, 1.3)]
    assert not any(one.found for one in media.faces)
    assert all(one.picture.shape == (96, 96) for one in media.faces)
    assert [round(float(one.picture.mean()), -1) for one in media.faces] == [80, 80, 200]


def test_faces_are_those_that_were_aligned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def align(
        frames: NDArray[np.uint8], size: int, *_: object
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        numbers = np.arange(len(frames), dtype=np.uint8)
        faces = np.broadcast_to(numbers[:, None, None], (len(frames), size, size))
        return faces, numbers != 5

    monkeypatch.setattr(media_module, "align_faces", align)
    clip = clip_of(tmp_path, "a.mp4", make_video(TIMES, [90] * len(TIMES), None))
    faces = decode_media(clip, open_source(tmp_path), DETECTOR, FPS).faces
    assert [one.found for one in faces] == [True, False, True]
    assert [int(one.picture[0, 0]) for one in faces if one.found] == [0, 10]
    assert faces[1].picture.shape == (64, 64)  # no larger than it was
    monkeypatch.setattr(media_module, "MOST_FACES", 2)
    faces = decode_media(clip, open_source(tmp_path), DETECTOR, FPS).faces
    assert [one.begin_s for one in faces] == [0, 0.7]


def test_the_outline_holds_every_sample(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 12_345).astype(np.float32)
    content = make_sound(noise)
    sound = decode_media(
        clip_of(tmp_path, "a.wav", content), open_source(tmp_path), DETECTOR, FPS
    ).sound
    expected = decode_sound(content, SAMPLE_RATE)
    assert sound is not None
    assert expected is not None
    assert sound.seconds == pytest.approx(len(noise) / SAMPLE_RATE, abs=0.01)
    assert len(sound.low) == len(sound.high) == OUTLINE_STEPS
    for step in (0, 1, 299, OUTLINE_STEPS - 1):
        begin, end = (at * len(expected) // OUTLINE_STEPS for at in (step, step + 1))
        assert sound.low[step] == expected[begin:end].min()
        assert sound.high[step] == expected[begin:end].max()


def test_files_that_are_missing_or_broken_are_said(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    broken = decode_media(clip_of(tmp_path, "b.mp4", b"no video"), source, DETECTOR, FPS)
    assert [one.partition(" cannot be decoded")[0] for one in broken.problems] == [
        "b.mp4: the video", "b.mp4: the sound",
    ]  # fmt: skip
    assert (broken.faces, broken.sound) == ((), None)
    for name in ("absent.mp4", "", "../outside.mp4", str(tmp_path / "b.mp4")):
        media = decode_media(Clip("k", source=name, duration_s=1.0), source, DETECTOR, FPS)
        assert media.problems == (f"the source has no file {name}",)
    media = decode_media(Clip("k", source="n" * 5000, duration_s=1.0), source, DETECTOR, FPS)
    assert "cannot be read: " in media.problems[0]
