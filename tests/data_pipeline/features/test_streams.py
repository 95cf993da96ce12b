"""Which of a file's sound tracks is heard."""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from numpy.typing import NDArray

from data_pipeline.features.video import MediaError, decode_frames, decode_sound, decode_track
from tests.data_pipeline.features.clicks import click, onset_s

MP2, PCM = "mp2", "pcm_s16le"
CLICKS = [click(at_s, 2.0, 16_000) for at_s in (0.5, 1.0, 1.5)]


def with_tracks(
    sounds: Sequence[NDArray[np.float32]],
    default: int | None = None,
    codecs: Sequence[str] = (PCM,) * 3,
    pictures: int = 50,
    early_s: float = 0.0,
) -> bytes:
    """A Matroska file of pictures, 25 a second, and a track of each sound; which is its default.

    The last track begins so much earlier than the rest.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        video = container.add_stream("mpeg4", rate=25) if pictures else None
        tracks = [container.add_stream(codec, rate=16_000, layout="mono")
                  for codec, _ in zip(codecs, sounds, strict=False)]  # fmt: skip
        for number, track in enumerate(tracks):
            track.disposition = Disposition.default if number == default else Disposition(0)
        if video is not None:
            video.width = video.height = 64
            for number in range(pictures):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 100, np.uint8))
                frame.pts, frame.time_base = number + round(25 * early_s), Fraction(1, 25)
                container.mux(video.encode(frame))
            container.mux(video.encode())
        for number, (track, sound) in enumerate(zip(tracks, sounds, strict=True)):
            start = 0 if number == len(tracks) - 1 else round(16_000 * early_s)
            for at in range(0, len(sound), 1024):
                samples = np.round(sound[None, at : at + 1024] * 32767).astype(np.int16)
                block = av.AudioFrame.from_ndarray(samples, "s16", "mono")
                block.sample_rate, block.pts = 16_000, at + start
                block.time_base = Fraction(1, 16_000)
                container.mux(track.encode(block))
            container.mux(track.encode())
    return buffer.getvalue()


def of_unknown_codec(media: bytes) -> bytes:
    """What was MP2 is said to be something that nobody knows."""
    return media.replace(b"A_MPEG/L2", b"A_XPEG/L9")


def noise_instead(media: bytes, track: int) -> bytes:
    """The packets of an MP2 track overwritten, as where it is encrypted."""
    with av.open(io.BytesIO(media)) as container:
        packets = [bytes(one) for one in container.demux(container.streams.audio[track])]
    for packet in filter(None, packets):
        media = media.replace(packet, bytes(len(packet)))
    return media


@pytest.mark.parametrize(("default", "heard_s"), [(None, 0.5), (0, 0.5), (1, 1.0), (2, 1.5)])
def test_the_default_track_is_heard_and_else_the_first(default: int | None, heard_s: float) -> None:
    heard = decode_sound(with_tracks(CLICKS, default))
    assert heard is not None
    assert onset_s(heard) == pytest.approx(heard_s, abs=0.001)


@pytest.mark.parametrize(("default", "heard_s"), [(None, 1.0), (0, 1.0), (2, 1.5)])
def test_a_track_of_an_unknown_codec_is_passed_over(default: int | None, heard_s: float) -> None:
    media = of_unknown_codec(with_tracks(CLICKS, default, (MP2, PCM, PCM)))
    heard = decode_sound(media)
    assert heard is not None
    assert onset_s(heard) == pytest.approx(heard_s, abs=0.001)
    assert len(decode_frames(media)) == 20


def test_a_track_of_which_nothing_can_be_decoded_is_passed_over() -> None:
    media = noise_instead(with_tracks(CLICKS[1:], 0, (MP2, PCM)), 0)
    heard = decode_sound(media)
    assert heard is not None
    assert onset_s(heard) == pytest.approx(1.5, abs=0.001)
    alone = decode_track(noise_instead(with_tracks(CLICKS[:1], 0, (MP2,)), 0))
    assert alone is not None
    with pytest.raises(MediaError, match="sound cannot be decoded from"):
        alone.part(0.0, 1.0)


def test_pictures_are_kept_where_no_sound_can_be_decoded() -> None:
    media = of_unknown_codec(with_tracks(CLICKS[:1], 0, (MP2,)))
    assert decode_sound(media) is None
    assert len(decode_frames(media)) == 20
    with pytest.raises(MediaError, match="its codec is not known"):
        decode_sound(of_unknown_codec(with_tracks(CLICKS[:1], 0, (MP2,), pictures=0)))


@pytest.mark.parametrize(("default", "black"), [(0, 0), (1, 10)])
def test_time_zero_is_that_of_the_track_that_is_heard(default: int, black: int) -> None:
    media = with_tracks(CLICKS[:2], default, early_s=1.0)
    frames, heard = decode_frames(media), decode_sound(media)
    assert heard is not None
    assert onset_s(heard) == pytest.approx((0.5, 1.0)[default], abs=0.001)
    assert (frames.reshape(len(frames), -1).max(axis=1) == 0).sum() == black
