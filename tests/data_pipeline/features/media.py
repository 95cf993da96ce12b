"""Small video files made in memory."""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

SIZE = 64


def make_video(
    times_ms: Sequence[int],
    levels: Sequence[int],
    sound: NDArray[np.float32] | None,
    *,
    rate: int = 16_000,
    format: str = "mp4",
    video_codec: str = "mpeg4",
    audio_codec: str = "aac",
) -> bytes:
    """Grey pictures of these levels at these times, and mono sound from time 0."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        video = container.add_stream(video_codec, rate=25)
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = None
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=rate, layout="mono")
        for time_ms, level in zip(times_ms, levels, strict=True):
            picture = np.full((SIZE, SIZE, 3), level, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None and sound is not None:
            for start in range(0, len(sound), 1024):
                part = np.ascontiguousarray(sound[None, start : start + 1024])
                block = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                block.sample_rate, block.pts = rate, start
                block.time_base = Fraction(1, rate)
                container.mux(audio.encode(block))
            container.mux(audio.encode())
    return buffer.getvalue()


def make_sound(sound: NDArray[np.float32], *, rate: int = 16_000, format: str = "wav") -> bytes:
    """A sound file of 16-bit samples."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        samples = np.round(sound * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()
