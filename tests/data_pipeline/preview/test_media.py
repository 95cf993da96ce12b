from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.clip import Clip
from data_pipeline.corpora.source import open_source
from data_pipeline.features.detector import load_detector
from data_pipeline.features.face import Aligned
from data_pipeline.features.video import decode_sound
from data_pipeline.preview import media as media_module
from data_pipeline.preview.media import OUTLINE_STEPS, SAMPLE_RATE, UNKNOWN_PART, decode_media
from tests.data_pipeline.features.media import Form, make_film, make_sound, make_video

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
    def align(frames: NDArray[np.uint8], size: int, *_: object) -> Aligned:
        numbers = np.arange(len(frames), dtype=np.uint8)
        faces = np.broadcast_to(numbers[:, None, None], (len(frames), size, size))
        return Aligned(faces, numbers != 5)

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


@pytest.fixture
def film(tmp_path: Path) -> Clip:
    """Dark and silent, and from 3 s to 6 s bright on its right half and loud: of it, this half."""
    pictures = np.full((60, 192, 192), 30, np.uint8)
    pictures[30:, :, 96:] = 200
    sound = np.repeat([0.0, 0.5], 48_000).astype(np.float32) * np.resize([1, -1], 96_000)
    form: Form = {"format": "matroska", "audio_codec": "pcm_s16le"}
    video = make_film(range(0, 6000, 100), pictures, sound.astype(np.float32), **form)
    clip = clip_of(tmp_path, "a.mkv", video)
    return replace(clip, duration_s=3.0, span=(3.0, 6.0), region=(0.5, 0.0, 1.0, 1.0))


def test_of_a_part_of_a_file_that_part_is_shown(tmp_path: Path, film: Clip) -> None:
    media = decode_media(film, open_source(tmp_path), DETECTOR, FPS)
    assert media.problems == ()
    assert [(one.begin_s, one.end_s) for one in media.faces] == [
        (at / 2, at / 2 + 0.5) for at in range(6)
    ]
    assert [one.picture.shape for one in media.faces] == [(96, 48)] * 6
    assert min(float(one.picture[:, 4:].mean()) for one in media.faces) > 190
    assert media.sound is not None
    assert media.sound.seconds == 3.0
    assert media.sound.high.min() > 0.4
    dark = decode_media(replace(film, span=(0.0, 3.0)), open_source(tmp_path), DETECTOR, FPS)
    assert max(float(one.picture.mean()) for one in dark.faces) < 50
    assert dark.sound is not None
    assert dark.sound.high.max() == 0


def test_a_part_of_an_older_dataset_is_not_shown_as_the_begin(tmp_path: Path, film: Clip) -> None:
    older = replace(film, span=None, region=None)
    media = decode_media(older, open_source(tmp_path), DETECTOR, FPS)
    assert (media.faces, media.sound) == ((), None)
    assert media.problems == (f"a.mkv {UNKNOWN_PART}",)
    whole = decode_media(replace(older, duration_s=6.0), open_source(tmp_path), DETECTOR, FPS)
    assert (len(whole.faces), whole.problems) == (12, ())


def test_a_file_is_not_read_whole(
    tmp_path: Path, film: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: Path) -> bytes:
        raise MemoryError

    monkeypatch.setattr(Path, "read_bytes", read)
    assert decode_media(film, open_source(tmp_path), DETECTOR, FPS).faces


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
