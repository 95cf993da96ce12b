import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.features.video import MediaError, decode_frames, decode_sound
from tests.data_pipeline.features.media import make_sound, make_video

DARK, BRIGHT = 20, 230


def click(at_s: float, length_s: float, rate: int) -> NDArray[np.float32]:
    """Silence but for a burst of 5 ms."""
    sound = np.zeros(round(length_s * rate), np.float32)
    start = round(at_s * rate)
    sound[start : start + rate // 200] = 0.8
    return sound


def onset_s(sound: NDArray[np.float32]) -> float:
    return float(np.flatnonzero(np.abs(sound) > 0.4)[0] / 16_000)


def brightness(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(frames.mean(axis=(1, 2, 3)))


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


def test_picture_stays_until_the_next_one_comes() -> None:
    times, levels = [0, 90, 700, 750, 1420], [40, 80, 120, 160, 200]
    media = make_video(times, levels, None, format="matroska")
    shown = brightness(decode_frames(media, 10.0))
    pairs = list(zip(times, levels, strict=True))
    expected = [max(level for time, level in pairs if time <= at) for at in range(0, 1460, 100)]
    np.testing.assert_allclose(shown, expected, atol=4)


def test_frames_are_rgb_pictures_at_the_rate_asked_for() -> None:
    media = make_video(range(0, 1000, 40), [DARK] * 25, None)
    for fps in (5.0, 10.0, 25.0, 30.0):
        frames = decode_frames(media, fps)
        assert frames.shape == (fps, 64, 64, 3)
        assert frames.dtype == np.uint8


def test_sound_is_resampled_mono_in_unit_range() -> None:
    times = np.arange(44_100) / 44_100
    tone = (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    sound = decode_sound(make_sound(tone, rate=44_100))
    assert sound is not None
    assert sound.dtype == np.float32
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(sound)) / 16_000)
    assert abs(len(sound) - 16_000) <= 32
    np.testing.assert_allclose(sound[200:-200], expected[200:-200], atol=0.01)


def test_a_missing_stream_is_not_an_error() -> None:
    assert decode_sound(make_video([0, 40], [DARK, DARK], None)) is None
    assert decode_frames(make_sound(click(0.1, 0.2, 16_000))).shape == (0, 0, 0, 3)


@pytest.mark.parametrize("keep", [0, 40, 400])
def test_truncated_file_is_a_media_error(keep: int) -> None:
    media = make_video(range(0, 1000, 40), [DARK] * 25, click(0.5, 1.0, 16_000))
    broken = media[:keep]
    with pytest.raises(MediaError, match="video cannot be decoded"):
        decode_frames(broken)
    with pytest.raises(MediaError, match="sound cannot be decoded"):
        decode_sound(broken)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_file_raises_nothing_but_a_media_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    media = np.frombuffer(
        make_video(range(0, 400, 40), [DARK] * 10, click(0.2, 0.4, 16_000)), np.uint8
    ).copy()
    hit = rng.choice(len(media), 40, replace=False)
    media[hit] = rng.integers(0, 256, 40)
    for decode in (decode_frames, decode_sound):
        try:
            decode(media.tobytes())
        except MediaError:
            continue
