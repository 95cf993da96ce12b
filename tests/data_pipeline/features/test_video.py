import io
import math
import tarfile
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipeline.corpora.base import SOUNDS
from data_pipeline.corpora.videos import VIDEOS
from data_pipeline.features import video
from data_pipeline.features.video import (
    MediaError,
    decode_frames,
    decode_sound,
    decode_spans,
    decode_track,
)
from tests.data_pipeline.features.clicks import brightness, click, onset_s, onsets_s
from tests.data_pipeline.features.drawing import Person, draw
from tests.data_pipeline.features.media import (
    damage,
    make_film,
    make_music_with_cover,
    make_sound,
    make_video,
    rotate,
)

DARK, BRIGHT = 20, 230


def test_rotation_noted_in_the_file_is_carried_out() -> None:
    media = make_video([0, 40], [DARK] * 2, None, top_level=BRIGHT)
    upright = decode_frames(media, 25.0)[0]
    assert upright[:16].mean() > 200 > 60 > upright[48:].mean()
    turned = decode_frames(rotate(media), 25.0)[0]
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


@pytest.mark.parametrize("format", ["mp4", "matroska", "avi", "mpegts"])
@pytest.mark.parametrize("pixel", [Fraction(2), Fraction(16, 15), Fraction(8, 9), Fraction(1, 2)])
def test_pixels_become_square(format: str, pixel: Fraction) -> None:
    square = draw([Person(180)], 360)
    stored = cv2.resize(square, (round(360 / pixel / 2) * 2, 288), interpolation=cv2.INTER_AREA)
    media = make_film([0, 40], [np.asarray(stored, np.uint8)] * 2, None, format=format, pixel=pixel)
    frame = decode_frames(media, 25.0)[0]
    assert abs(frame.shape[1] - 360) <= 2
    assert frame.shape[0] == 288
    seen = np.asarray(cv2.resize(frame, (360, 288)), np.float64)
    assert np.abs(seen - square).mean() < 5


def test_pixels_are_made_square_before_the_picture_is_turned() -> None:
    pictures = [np.full((64, 72), DARK, np.uint8)] * 2
    media = make_film([0, 40], pictures, None, pixel=Fraction(2))
    assert decode_frames(media).shape == (1, 64, 144)
    assert decode_frames(rotate(media)).shape == (1, 144, 64)


def test_pixels_that_are_square_but_for_rounding_are_taken_as_they_are() -> None:
    pictures = [np.asarray(draw([Person(180)], 360))] * 2
    rounded = make_film([0, 40], pictures, None, pixel=Fraction(128, 127))
    plain = make_film([0, 40], pictures, None)
    np.testing.assert_array_equal(decode_frames(rounded), decode_frames(plain))


def test_pixels_that_no_camera_has_are_refused() -> None:
    pictures = [np.full((64, 72), DARK, np.uint8)] * 2
    for pixel, said in ((Fraction(50), "50"), (Fraction(1, 50), "0.02")):
        media = make_film([0, 40], pictures, None, pixel=pixel)
        with pytest.raises(MediaError, match=f"has pixels that are {said} times as wide as high"):
            decode_frames(media)
    later = b"".join(
        make_film(range(at, at + 400, 40), pictures * 5, None, format="mpegts", pixel=Fraction(one))
        for at, one in ((0, 2), (400, 50), (800, 2))
    )
    parts = list(decode_spans(later, 25.0, [(0.0, 0.3), (0.5, 0.7), (0.9, 1.1)]))
    assert [isinstance(part, MediaError) for part in parts] == [False, True, False]


def test_cover_picture_of_music_is_no_video() -> None:
    music = make_music_with_cover()
    assert decode_frames(music).shape == (0, 0, 0)
    sound = decode_sound(music)
    assert sound is not None
    assert abs(len(sound) - 8000) < 2500  # whole MP3 frames


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\nfile://{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
    ids=["playlist", "concatenation", "session description"],
)
def test_a_file_cannot_have_others_opened(content: str, tmp_path: Path) -> None:
    other = tmp_path / "other.ts"
    other.write_bytes(make_video(range(0, 400, 40), [DARK] * 10, None, format="mpegts"))
    with pytest.raises(MediaError, match="cannot be decoded"):
        decode_frames(content.format(path=other).encode())


def test_pictures_of_another_size_are_scaled_to_the_first() -> None:
    half = np.concatenate([np.full((32, 64), BRIGHT, np.uint8), np.full((32, 64), DARK, np.uint8)])
    sizes = [(64, 64), (128, 128), (32, 32), (64, 128), (96, 48)]  # height, width
    media = b"".join(
        make_film(
            range(400 * at, 400 * at + 400, 40),
            [np.asarray(cv2.resize(half, size[::-1]), np.uint8)] * 10,
            None,
            format="mpegts",
        )
        for at, size in enumerate(sizes)
    )
    shown = decode_frames(media, 5.0)
    assert shown.shape == (10, 64, 64)
    for frame in shown[:6]:
        np.testing.assert_allclose(frame[4:28], BRIGHT, atol=12)
        np.testing.assert_allclose(frame[36:60], DARK, atol=12)
    for frame in shown[6:8]:
        assert not frame[:15].any()
        assert not frame[49:].any()
        np.testing.assert_allclose(frame[18:30], BRIGHT, atol=12)
        np.testing.assert_allclose(frame[34:46], DARK, atol=12)
    for frame in shown[8:]:
        assert not frame[:, :15].any()
        assert not frame[:, 49:].any()
        np.testing.assert_allclose(frame[4:28, 18:46], BRIGHT, atol=12)
    later = list(decode_spans(media, 5.0, [(0.5, 0.8), (0.8, 1.1)]))
    assert [part.shape for part in later if isinstance(part, np.ndarray)] == [
        (2, 128, 128),
        (2, 32, 32),
    ]


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264", "mpeg4"])
def test_pixels_may_change_their_form_in_a_file(codec: str) -> None:
    forms = {240: Fraction(4, 3), 160: Fraction(16, 9), 80: Fraction(1)}  # level -> form
    media = b"".join(
        make_film(
            range(at, at + 400, 40),
            [np.full((64, 64), level, np.uint8)] * 10,
            None,
            format="mpegts",
            video_codec=codec,
            pixel=form,
        )
        for at, (level, form) in zip((0, 400, 800), forms.items(), strict=True)
    )
    parts = list(decode_spans(media, 25.0, [(0.0, 0.3), (0.5, 0.7), (0.9, 1.1)]))
    shapes = [part.shape[1:] for part in parts if isinstance(part, np.ndarray)]
    assert shapes == [(64, 85), (64, 114), (64, 64)]
    whole = decode_frames(media, 25.0)  # each fitted into the first
    assert whole.shape[1:] == (64, 85)
    black_above = {240: 0, 160: 8, 80: 0}
    black_beside = {240: 0, 160: 0, 80: 10}
    seen = set()
    for frame in whole:
        level = min(forms, key=lambda one: abs(one - int(frame[32, 42])))
        seen.add(level)
        assert not frame[: black_above[level]].any()
        assert not frame[:, : black_beside[level]].any()
        assert frame[black_above[level] + 2, black_beside[level] + 2] > 40
    assert seen == forms.keys()


def test_a_video_too_long_for_one_utterance_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MOST_BYTES", 9 * 64 * 64)
    assert len(decode_frames(make_video(range(0, 900, 100), [DARK] * 9, None))) == 9
    with pytest.raises(MediaError, match="too long; cut it into utterances"):
        decode_frames(make_video(range(0, 1000, 100), [DARK] * 10, None))


def test_a_stream_without_times_is_refused() -> None:
    media = make_video([0, 40], [DARK] * 2, None, format="h264", video_codec="libx264")
    with pytest.raises(MediaError, match="carries no times"):
        decode_frames(media)


def test_frames_are_grey_pictures_at_the_rate_asked_for() -> None:
    media = make_video(range(0, 1000, 40), [DARK] * 25, None)
    for fps in (5.0, 10.0, 25.0, 30.0):
        frames = decode_frames(media, fps)
        assert frames.shape == (fps, 64, 64)
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


def test_the_end_of_wma_is_heard_though_it_carries_no_time() -> None:
    heard = decode_sound(
        make_sound(click(1.95, 2.0, 44_100), rate=44_100, format="asf", codec="wmav2")
    )
    assert heard is not None
    assert abs(onset_s(heard) - 1.95) < 0.05


@pytest.mark.parametrize(
    ("suffix", "format", "video_codec", "audio_codec"),
    [
        (".mts", "mpegts", "libx264", "ac3"),
        (".m2ts", "mpegts", "libx264", "ac3"),
        (".m2t", "mpegts", "mpeg2video", "mp2"),
        (".vob", "dvd", "mpeg2video", "ac3"),
        (".dv", "dv", "dvvideo", "pcm_s16le"),
        (".mxf", "mxf", "mpeg2video", "pcm_s16le"),
        (".asf", "asf", "wmv2", "libmp3lame"),
        (".f4v", "f4v", "libx264", "aac"),
        (".3g2", "3g2", "mpeg4", "aac"),
        (".qt", "mov", "mpeg4", "aac"),
        (".divx", "avi", "mpeg4", "libmp3lame"),
        (".rm", "rm", "rv20", "ac3"),
    ],
)
def test_videos_of_each_suffix_are_decoded(
    suffix: str, format: str, video_codec: str, audio_codec: str
) -> None:
    assert suffix in VIDEOS
    shape = (576, 720) if video_codec == "dvvideo" else (144, 176)
    pictures = [np.full(shape, BRIGHT if 10 <= at < 15 else DARK, np.uint8) for at in range(75)]
    media = make_film(
        range(0, 3000, 40),
        pictures,
        np.tile(click(0.5, 1.0, 48_000), 3),
        rate=48_000,
        format=format,
        video_codec=video_codec,
        audio_codec=audio_codec,
        channels=2,
    )
    bright, sound = brightness(decode_frames(media, 25.0)) > 128, decode_sound(media)
    assert sound is not None
    np.testing.assert_allclose(onsets_s(sound), [0.5, 1.5, 2.5], atol=0.06)
    assert 9 <= bright.argmax() <= 11
    assert 4 <= bright.sum() <= 6


@pytest.mark.parametrize(
    ("suffix", "format", "codec", "rate"),
    [
        (".aac", "adts", "aac", 44_100),
        (".wma", "asf", "wmav2", 44_100),
        (".aiff", "aiff", "pcm_s16be", 44_100),
        (".aif", "aiff", "pcm_s16be", 16_000),
        (".oga", "oga", "libopus", 48_000),
        (".mka", "matroska", "aac", 44_100),
        (".weba", "webm", "libopus", 48_000),
        (".caf", "caf", "pcm_s16le", 16_000),
        (".au", "au", "pcm_s16be", 16_000),
        (".ac3", "ac3", "ac3", 48_000),
        (".mp2", "mp2", "mp2", 48_000),
        (".m4b", "ipod", "aac", 44_100),
        (".amr", "amr", "libopencore_amrnb", 8_000),
    ],
)
def test_sounds_of_each_suffix_are_decoded(suffix: str, format: str, codec: str, rate: int) -> None:
    assert suffix in SOUNDS
    times = np.arange(3 * rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 400 * times) * (times >= 1)
    heard = decode_sound(make_sound(tone.astype(np.float32), rate=rate, format=format, codec=codec))
    assert heard is not None
    assert abs(len(heard) / 16_000 - 3) < 0.1
    assert abs(onset_s(heard) - 1) < 0.06


def test_a_missing_stream_is_not_an_error() -> None:
    assert decode_sound(make_video([0, 40], [DARK, DARK], None)) is None
    assert decode_frames(make_sound(click(0.1, 0.2, 16_000))).shape == (0, 0, 0)


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


def test_damage_breaks_the_parts_that_it_lies_in() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 160_000).astype(np.float32)
    levels = [time // 100 + 20 for time in range(0, 10_000, 40)]
    media = make_video(range(0, 10_000, 40), levels, sound)
    spans = [(0.0, 1.0), (4.0, 4.8), (4.9, 5.2), (5.6, 6.0), (9.0, 10.0)]
    broken = list(decode_spans(damage(media, "video", 5.0, 5.4), 10.0, spans))
    for part, undamaged in zip(broken, decode_spans(media, 10.0, spans), strict=True):
        assert not isinstance(undamaged, MediaError)
        if isinstance(part, MediaError):
            assert str(part) == "the video cannot be decoded from 4.96 s on"
        else:
            np.testing.assert_allclose(part, undamaged, atol=30)  # later ones build on lost ones
    assert [isinstance(part, MediaError) for part in broken] == [False, False, True, False, False]
    track = decode_track(damage(media, "audio", 5.0, 5.4))
    whole = decode_track(media)
    assert track is not None
    assert whole is not None
    assert len(track.samples) == len(whole.samples)
    (broken_span,) = track.broken
    assert list(broken_span) == pytest.approx([5.05, 5.4], abs=0.1)
    for span in spans[:2] + spans[3:]:
        np.testing.assert_allclose(track.part(*span), whole.part(*span), atol=0.1)
    for span in [(4.9, 5.2), (0.0, math.inf), (5.3, 5.35)]:
        with pytest.raises(MediaError, match=r"the sound cannot be decoded from 5\.\d\d s on"):
            track.part(*span)
    with pytest.raises(MediaError, match="the sound cannot be decoded from"):
        decode_sound(damage(media, "audio", 5.0, 5.4))


def test_parts_of_a_file_that_does_not_open_are_all_broken() -> None:
    parts = list(decode_spans(b"no video", 10.0, [(0.0, 1.0), (2.0, 3.0)]))
    assert [str(part)[:27] for part in parts] == ["the video cannot be decoded"] * 2


def test_a_picture_that_stands_for_minutes_is_seen_as_it_was_shown() -> None:
    levels = [40, 80, 120, 160, 200]
    media = make_video([0, 40, 290_000, 290_040, 291_000], levels, None, format="matroska")
    spans = [(1.0, 2.0), (100.0, 101.0), (289.5, 290.5)]
    shown = list(decode_spans(media, 10.0, spans))
    for part, expected in zip(
        shown, ([80] * 10, [80] * 10, [80] * 5 + [120] + [160] * 4), strict=True
    ):
        assert isinstance(part, np.ndarray)
        np.testing.assert_allclose(brightness(part), expected, atol=4)


def test_an_open_file_is_read_as_its_content_is() -> None:
    media = make_video(range(0, 400, 40), [DARK] * 10, click(0.2, 0.4, 16_000))
    file = io.BytesIO(media)
    for _ in range(2):
        sound, expected = decode_sound(file), decode_sound(media)
        assert sound is not None
        assert expected is not None
        np.testing.assert_array_equal(sound, expected)
        np.testing.assert_array_equal(decode_frames(file), decode_frames(media))


def test_stereo_is_heard_as_mono() -> None:
    sound = click(0.2, 0.4, 16_000)
    media = make_video(
        [0, 40], [DARK] * 2, sound, format="matroska", audio_codec="pcm_s16le", channels=2
    )
    heard = decode_sound(media)
    assert heard is not None
    np.testing.assert_allclose(heard, sound, atol=1e-3)


def real(shared: Path, archive: str, member: str) -> bytes:
    with tarfile.open(shared / "data" / archive) as tar:
        file = tar.extractfile(member)
        assert file is not None
        return file.read()


@pytest.mark.corpora
def test_grid_speaks_when_its_alignment_says(shared: Path) -> None:
    media = real(shared, "grid_s1.tar", "grid_s1/clips/bbaf2n.mp4")
    frames, sound = decode_frames(media), decode_sound(media)
    assert frames.shape == (30, 288, 360)
    assert sound is not None
    assert abs(len(sound) / 16_000 - 3.0) < 0.1
    loudness = np.square(sound[: 29 * 1600]).reshape(29, 1600).mean(axis=1)  # of tenths of seconds
    # transcripts.tsv: silence until 0.95 and from 2.12 on.
    loud = np.flatnonzero(loudness > loudness.max() / 30)
    assert 8 <= loud[0] <= 10
    assert 19 <= loud[-1] <= 22


@pytest.mark.corpora
def test_ravdess_has_sound_of_the_length_in_its_manifest_and_no_video(shared: Path) -> None:
    media = real(shared, "ravdess.tar", "ravdess/speech/03-01-01-01-01-01-01.ogg")
    assert len(decode_frames(media)) == 0
    sound = decode_sound(media)
    assert sound is not None
    assert abs(len(sound) / 16_000 - 3.30) < 0.01
    assert 0.01 < np.abs(sound).max() <= 1
