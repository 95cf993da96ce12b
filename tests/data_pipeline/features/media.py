"""Small video files made in memory."""

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import TypedDict, Unpack

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

SIZE = 64
OF_ONE_RATE = ("mpeg2video", "dvvideo", "rv20")
"""Codecs whose pictures come at 25 a second, or so."""


class Form(TypedDict, total=False):
    """How pictures and sound are packed, as `make_film` wants it."""

    rate: int
    format: str
    video_codec: str
    audio_codec: str
    sound_start_ms: int
    hole_ms: tuple[int, int]
    channels: int
    pixel: Fraction
    options: Mapping[str, str]


def make_video(
    times_ms: Sequence[int],
    levels: Sequence[int],
    sound: NDArray[np.float32] | None,
    *,
    top_level: int | None = None,
    size: int = SIZE,
    **form: Unpack[Form],
) -> bytes:
    """Grey pictures of these levels at these times, and sound; see `make_film`.

    The upper half of the pictures has the `top_level`, if one is given.
    """
    pictures = np.empty((len(levels), size, size), np.uint8)
    pictures[:] = np.asarray(levels)[:, None, None]
    if top_level is not None:
        pictures[:, : size // 2] = top_level
    return make_film(times_ms, pictures, sound, **form)


LAYOUTS = {1: "mono", 2: "stereo"}
"""Name of so many channels."""


def make_film(
    times_ms: Sequence[int],
    pictures: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    sound: NDArray[np.float32] | None,
    *,
    rate: int = 16_000,
    format: str = "mp4",
    video_codec: str = "mpeg4",
    audio_codec: str = "aac",
    sound_start_ms: int = 0,
    hole_ms: tuple[int, int] = (0, 0),
    channels: int = 1,
    pixel: Fraction = Fraction(1),
    options: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """These grey pictures (H, W) at these times, and sound, left out inside the hole.

    The sound starts at `sound_start_ms`; the hole is counted from its start. Pixels are said to be
    `pixel` times as wide as high. The options are the video codec's own.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        video = container.add_stream(video_codec, rate=25)
        video.height, video.width = pictures[0].shape
        video.pix_fmt = "yuv420p"
        video.options = dict(options)
        ticks = 25 if video_codec in OF_ONE_RATE else 1000
        video.codec_context.time_base = Fraction(1, ticks)
        if pixel != 1:
            video.codec_context.sample_aspect_ratio = pixel
        video.codec_context.thread_count = 1  # the same pictures however many cores there are
        audio = None
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=rate, layout=LAYOUTS[channels])
        for time_ms, picture in zip(times_ms, pictures, strict=True):
            coloured = np.repeat(picture[:, :, None], 3, axis=2)
            frame = av.VideoFrame.from_ndarray(coloured, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None and sound is not None:
            hole = range(*(ms * rate // 1000 for ms in hole_ms))
            for block in _blocks(sound, rate, channels, hole, sound_start_ms):
                container.mux(audio.encode(block))
            container.mux(audio.encode())
    return buffer.getvalue()


def _blocks(
    sound: NDArray[np.float32], rate: int, channels: int, hole: range, start_ms: int
) -> Iterator[av.AudioFrame]:
    """1,024 samples each, without those that begin in the hole."""
    for start in range(0, len(sound), 1024):
        if start in hole:
            continue
        part = np.repeat(sound[None, start : start + 1024], channels, axis=0)
        block = av.AudioFrame.from_ndarray(part, format="fltp", layout=LAYOUTS[channels])
        block.sample_rate, block.pts = rate, start + start_ms * rate // 1000
        block.time_base = Fraction(1, rate)
        yield block


def voice(spans: Sequence[tuple[float, float]], length_s: float) -> NDArray[np.float32]:
    """Four syllables a second in the spans, and hardly any noise; at 16 kHz."""
    times = np.arange(round(length_s * 16_000)) / 16_000
    loud = np.any([(times >= begin) & (times < end) for begin, end in spans], axis=0)
    tone = np.square(np.sin(np.pi * 4 * times)) * np.sin(2 * np.pi * 200 * times)
    noise = np.random.default_rng(0).normal(0, 1e-4, len(times))
    return np.asarray(0.2 * loud * tone + noise, np.float32)


def rotate(media: bytes) -> bytes:
    """An MP4 file that says, as a telephone does, that it must be turned clockwise by 90 degrees.

    The matrix stands 40 bytes into the track header's content (ISO/IEC 14496-12).
    """
    at = media.index(b"tkhd") + 4 + 40
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    return media[:at] + matrix + media[at + 36 :]


def damage(media: bytes, kind: str, begin_s: float, end_s: float) -> bytes:
    """An MP4 file in which the packets between two times are overwritten, of `audio` or `video`."""
    broken = bytearray(media)
    with av.open(io.BytesIO(media)) as container:
        for packet in container.demux(getattr(container.streams, kind)[0]):
            if packet.size and begin_s <= packet.pts * packet.time_base < end_s:
                broken[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    return bytes(broken)


def make_sound(
    sound: NDArray[np.float32],
    *,
    rate: int = 16_000,
    format: str = "wav",
    codec: str = "pcm_s16le",
) -> bytes:
    """A sound file, made of 16-bit samples."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 64_000  # WMA has none of its own
        samples = np.round(sound * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def make_pieces(
    pieces: Sequence[tuple[float, NDArray[np.float32]]],
    *,
    rate: int = 16_000,
    format: str = "matroska",
    codec: str = "pcm_s16le",
) -> bytes:
    """A sound file in which each piece is one packet, with this time in seconds."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        for time_s, sound in pieces:
            samples = np.round(sound * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, round(time_s * rate)
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def make_music_with_cover() -> bytes:
    """An MP3 of half a second of silence, with a picture of its cover."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        audio = container.add_stream("libmp3lame", rate=16_000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width = cover.height = SIZE
        cover.pix_fmt = "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((SIZE, SIZE, 3), np.uint8), format="rgb24")
        container.mux([*cover.encode(picture), *cover.encode()])
        block = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        block.sample_rate = 16_000
        container.mux([*audio.encode(block), *audio.encode()])
    return buffer.getvalue()
