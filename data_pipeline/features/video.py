"""Decoding with PyAV: pictures at a constant rate, sound at 16 kHz, both from time zero."""

import io
from collections.abc import Iterator

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray


class MediaError(Exception):
    """A file that cannot be decoded."""


def decode_frames(media: bytes, fps: float = 10.0) -> NDArray[np.uint8]:
    """The pictures shown at times 0, 1/fps, 2/fps, ...

    A picture is shown from its own time on until the next one comes, so a variable frame rate
    needs no care.

    Args:
        media: content of a video file.
        fps: pictures a second.

    Returns:
        uint8 (T, H, W, 3), RGB; T = 0 if there is no video stream.

    Raises:
        MediaError: the file cannot be decoded.
    """
    chosen: list[NDArray[np.uint8]] = []
    for until_s, frame in _pictures(media):
        while len(chosen) / fps < until_s:
            chosen.append(frame.to_ndarray(format="rgb24"))
    return np.stack(chosen) if chosen else np.empty((0, 0, 0, 3), dtype=np.uint8)


def _pictures(media: bytes) -> Iterator[tuple[float, av.VideoFrame]]:
    """Each picture with the time in seconds until which it is shown."""
    try:
        with av.open(io.BytesIO(media)) as container:
            if not container.streams.video:
                return
            stream = container.streams.video[0]
            before: av.VideoFrame | None = None
            for frame in container.decode(stream):
                if before is not None:
                    yield frame.time, before
                before = frame
            if before is not None:
                yield before.time + 1 / float(stream.average_rate or 25), before
    except (FFmpegError, ValueError) as error:
        raise MediaError(f"the video cannot be decoded ({error})") from None


def decode_sound(media: bytes, rate: int = 16_000) -> NDArray[np.float32] | None:
    """The sound, mono, from time 0 of the file.

    Args:
        media: content of a video or sound file.
        rate: samples a second.

    Returns:
        float32 (samples,) in [-1, 1]; None if there is no sound stream.

    Raises:
        MediaError: the file cannot be decoded.
    """
    try:
        with av.open(io.BytesIO(media)) as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
            start_s: float | None = None
            parts: list[NDArray[np.float32]] = []
            for frame in container.decode(stream):
                start_s = start_s if start_s is not None else frame.time
                parts += [one.to_ndarray()[0] for one in resampler.resample(frame)]
            parts += [one.to_ndarray()[0] for one in resampler.resample(None)]
    except (FFmpegError, ValueError) as error:
        raise MediaError(f"the sound cannot be decoded ({error})") from None
    if not parts:
        return None
    return _from_zero(np.concatenate(parts), round((start_s or 0.0) * rate))


def _from_zero(sound: NDArray[np.float32], start: int) -> NDArray[np.float32]:
    """Sound that begins `start` samples after time 0 (before it, if negative), from time 0 on."""
    if start < 0:
        return sound[-start:]
    return np.concatenate([np.zeros(start, dtype=np.float32), sound])
