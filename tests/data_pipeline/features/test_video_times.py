"""When pictures and sound are: what a decoded file shows and plays at which time."""

import io
import math
import resource
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.features import video
from data_pipeline.features.face import align_faces
from data_pipeline.features.haar import HaarDetector
from data_pipeline.features.video import (
    MediaError,
    decode_frames,
    decode_sound,
    decode_spans,
)
from tests.data_pipeline.features.clicks import brightness, click, clicks, onset_s, onsets_s
from tests.data_pipeline.features.drawing import Person, draw
from tests.data_pipeline.features.media import (
    make_film,
    make_pieces,
    make_video,
)

DARK, BRIGHT = 20, 230


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize(
    ("format", "audio_codec"), [("mp4", "aac"), ("matroska", "pcm_s16le"), ("mpegts", "aac")]
)
def test_flash_and_click_coincide(format: str, audio_codec: str, rate: int) -> None:
    times = range(0, 2000, 40)
    levels = [BRIGHT if 1000 <= time < 1200 else DARK for time in times]
    media = make_video(
        times, levels, click(1.0, 2.0, rate), rate=rate, format=format, audio_codec=audio_codec
    )
    bright = brightness(decode_frames(media, 25.0)) > 128
    sound = decode_sound(media)
    assert sound is not None
    flash_s = float(bright.argmax()) / 25
    assert abs(flash_s - onset_s(sound)) <= 1 / 25
    assert bright.sum() == 5
    assert abs(len(sound) / 16_000 - 2.0) < 0.15  # AAC pads


@pytest.mark.parametrize(
    ("pictures_from", "sound_from", "zero"),
    [(5000, 5000, 5000), (60, 0, 60), (400, 0, 0), (5390, 5000, 5000), (0, 300, 0)],
)
@pytest.mark.parametrize("format", ["matroska", "nut"])
def test_time_zero_is_the_first_picture_or_the_sound_well_before_it(
    format: str, pictures_from: int, sound_from: int, zero: int
) -> None:
    times = range(pictures_from, pictures_from + 2000, 40)
    flash_ms = pictures_from + 1000
    levels = [BRIGHT if time >= flash_ms else DARK for time in times]
    media = make_video(
        times,
        levels,
        click((flash_ms - sound_from) / 1000, 3.0, 16_000),
        format=format,
        audio_codec="pcm_s16le",
        sound_start_ms=sound_from,
    )
    frames, sound = decode_frames(media, 25.0), decode_sound(media)
    assert sound is not None
    assert (brightness(frames) > 128).argmax() == math.ceil((flash_ms - zero) / 40)
    assert abs(onset_s(sound) - (flash_ms - zero) / 1000) < 0.002
    assert len(frames) == math.ceil((pictures_from + 2000 - zero) / 40)
    assert len(sound) == (sound_from + 3000 - zero) * 16


@pytest.mark.parametrize("format", ["mp4", "matroska"])
def test_before_the_first_picture_there_is_no_face(format: str) -> None:
    pictures = [draw([Person(90)], 180)] * 50
    media = make_film(range(1000, 3000, 40), pictures, clicks(3), format=format)
    frames, heard = decode_frames(media), decode_sound(media)
    assert heard is not None
    np.testing.assert_allclose(onsets_s(heard), [0.5, 1.5, 2.5], atol=0.01)
    assert frames.any(axis=(1, 2)).tolist() == [False] * 10 + [True] * 20
    found = align_faces(frames, 48, HaarDetector(), 10.0).found
    assert not found[:10].any()
    assert found[12:].all()  # one is looked for in every third
    early, between = decode_spans(media, 10.0, [(0.2, 0.8), (0.8, 1.5)])
    np.testing.assert_array_equal(early, frames[2:8])
    np.testing.assert_array_equal(between, frames[8:15])


def test_a_video_that_starts_much_later_than_the_sound_is_black_until_then() -> None:
    media = make_video(
        [90_000, 90_500],
        [BRIGHT] * 2,
        click(0.5, 1.0, 16_000),
        format="matroska",
        audio_codec="pcm_s16le",
    )
    early, late = decode_spans(media, 10.0, [(0.0, 1.0), (90.0, 90.5)])
    assert isinstance(early, np.ndarray)
    assert isinstance(late, np.ndarray)
    assert early.shape == (10, 64, 64)
    assert not early.any()
    assert brightness(late).tolist() == [BRIGHT] * 5


def test_a_hole_in_the_sound_is_filled_with_silence() -> None:
    sound = click(1.5, 2.0, 16_000)
    sound[3000:4000] = 0.3
    media = make_video(
        [0, 1960], [DARK] * 2, sound, format="matroska", audio_codec="pcm_s16le", hole_ms=(500, 900)
    )
    decoded = decode_sound(media)
    assert decoded is not None
    np.testing.assert_allclose(decoded, sound, atol=1e-3)


@pytest.mark.parametrize("hole_s", [62.0, 5 * 3600.0])
def test_a_long_hole_is_silence_that_takes_no_memory(hole_s: float) -> None:
    part = np.clip(np.random.default_rng(0).normal(0, 0.3, 64_000), -1, 1).astype(np.float32)
    media = make_pieces([(0.0, part), (4 + hole_s, part), (8 + hole_s, part)])
    before = memory_mb()
    heard = decode_sound(media)
    assert heard is not None
    assert len(heard) == 3 * 64_000 + round(16_000 * hole_s)
    np.testing.assert_allclose(heard[:64_000], part, atol=1e-4)
    np.testing.assert_allclose(heard[-64_000:], part, atol=1e-4)
    np.testing.assert_allclose(heard[-128_000:-64_000], part, atol=1e-4)
    assert not heard[64_500:80_000].any()
    assert memory_mb() - before < 100  # the samples are 4 MB, or 1,150


def memory_mb() -> float:
    """What this process has in memory, of what it has asked for."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def test_sound_that_starts_minutes_after_the_video_has_silence_before() -> None:
    media = make_video(
        [0, 40],
        [DARK] * 2,
        click(0.5, 1.0, 16_000),
        format="matroska",
        audio_codec="pcm_s16le",
        sound_start_ms=90_000,
    )
    heard = decode_sound(media)
    assert heard is not None
    assert onset_s(heard) == pytest.approx(90.5, abs=0.01)
    assert len(heard) == 91 * 16_000


@pytest.mark.parametrize("lost_ms", [20, 40, 60, 90, 200])
def test_holes_do_not_add_up(lost_ms: int) -> None:
    length = 16_000 - 16 * lost_ms
    pieces = [(float(at), click(0.5, 1.0, 16_000)[:length]) for at in range(60)]
    heard = decode_sound(make_pieces(pieces))
    assert heard is not None
    np.testing.assert_allclose(onsets_s(heard), np.arange(60) + 0.5, atol=video.SMALLEST_GAP_S)
    assert abs(len(heard) / 16_000 - 60) < 0.21


@pytest.mark.parametrize("twice_ms", [20, 60, 200])
def test_sound_that_is_there_twice_is_heard_once(twice_ms: int) -> None:
    sound = clicks(61)
    ends = [(at + 1) * 16_000 + 16 * twice_ms for at in range(60)]
    heard = decode_sound(
        make_pieces([(at, sound[at * 16_000 : end]) for at, end in enumerate(ends)])
    )
    assert heard is not None
    np.testing.assert_allclose(onsets_s(heard), np.arange(60) + 0.5, atol=video.SMALLEST_OVERLAP_S)
    assert abs(len(heard) / 16_000 - 60) < 0.3


def test_where_files_are_joined_the_sound_goes_on() -> None:
    half = make_pieces([(float(at), click(0.5, 1.0, 16_000)) for at in range(3)])
    heard = decode_sound(half + half)
    assert heard is not None
    np.testing.assert_array_equal(onsets_s(heard), np.arange(6) + 0.5)


@pytest.mark.parametrize(("jitter_ms", "most_filled_ms"), [(20, 0), (45, 90)])
def test_times_that_jump_to_and_fro_do_not_cut_the_sound(
    jitter_ms: int, most_filled_ms: int
) -> None:
    rng = np.random.default_rng(0)
    sound = rng.uniform(0.1, 0.5, 60 * 16_000).astype(np.float32)
    late = rng.integers(-jitter_ms, jitter_ms + 1, 600) / 1000 + 0.05
    heard = decode_sound(
        make_pieces([(at / 10 + late[at], sound[at * 1600 :][:1600]) for at in range(600)])
    )
    assert heard is not None
    assert len(heard) - len(sound) <= 16 * most_filled_ms
    np.testing.assert_allclose(heard[heard > 0], sound, atol=1e-4)


def plainly_decoded(media: bytes) -> NDArray[np.float32]:
    """The sound one frame after the other, whatever their times."""
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=16_000)
    with av.open(io.BytesIO(media)) as container:
        stream = container.streams.audio[0]
        zero_s = float((stream.start_time or 0) * stream.time_base)
        if container.streams.video:
            shown = container.streams.video[0]
            zero_s = float(shown.start_time * shown.time_base)
        frames = list(container.decode(stream))
        parts = [part for frame in [*frames, None] for part in resampler.resample(frame)]
        start = round((frames[0].time - zero_s) * 16_000)
    sound = np.concatenate([part.to_ndarray()[0] for part in parts])
    placed = np.pad(sound, (max(start, 0), 0))[max(-start, 0) :]
    return np.asarray(np.clip(placed, -1.0, 1.0), np.float32)


@pytest.mark.parametrize(
    ("format", "audio_codec", "video_codec", "rate"),
    [
        ("mp4", "aac", "libx264", 44_100),
        ("mp4", "libmp3lame", "mpeg4", 44_100),
        ("mpegts", "aac", "libx264", 48_000),
        ("mpegts", "mp2", "mpeg4", 48_000),
        ("mpeg", "mp2", "mpeg4", 44_100),
        ("flv", "aac", "libx264", 44_100),
        ("avi", "libmp3lame", "mpeg4", 22_050),
        ("webm", "libopus", "libvpx", 48_000),
        ("matroska", "libopus", "libx264", 16_000),
        ("matroska", "aac", "libx264", 44_100),
        ("3gp", "aac", "libx264", 16_000),
    ],
)
def test_what_is_whole_is_neither_filled_up_nor_cut(
    format: str, audio_codec: str, video_codec: str, rate: int
) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 5 * rate).astype(np.float32)
    media = make_video(
        range(0, 5000, 40),
        [DARK] * 125,
        sound,
        format=format,
        audio_codec=audio_codec,
        video_codec=video_codec,
        rate=rate,
    )
    heard = decode_sound(media)
    assert heard is not None
    np.testing.assert_array_equal(heard, plainly_decoded(media))


def test_picture_stays_until_the_next_one_comes() -> None:
    times, levels = [0, 90, 700, 750, 1420], [40, 80, 120, 160, 200]
    media = make_video(times, levels, None, format="matroska")
    shown = brightness(decode_frames(media, 10.0))
    pairs = list(zip(times, levels, strict=True))
    expected = [max(level for time, level in pairs if time <= at) for at in range(0, 1460, 100)]
    np.testing.assert_allclose(shown, expected, atol=4)


def test_times_far_apart_are_refused_before_they_fill_the_memory() -> None:
    late = make_video(
        [0, 40, 90_000_000], [DARK] * 3, None, format="matroska", video_codec="libx264"
    )
    with pytest.raises(MediaError, match="shown until 90000 s"):
        decode_frames(late)
    sound = click(0.1, 0.5, 16_000)
    late = make_video(
        [0, 40],
        [DARK] * 2,
        sound,
        format="matroska",
        audio_codec="pcm_s16le",
        sound_start_ms=90_000_000,
    )
    with pytest.raises(MediaError, match="sound is missing for 90000 s"):
        decode_sound(late)
