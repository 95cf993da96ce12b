"""Decoding with PyAV: upright grey pictures at a constant rate, sound at 16 kHz, one time zero.

Time zero is the start of the video stream, or of the sound where there is no video: files cut out
of a longer one, and transport streams, count from elsewhere.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from numpy.typing import NDArray

SMALLEST_GAP_S = 0.1
"""A hole in the sound from here on is filled with silence; below it times may just be rounded."""
LONGEST_GAP_S = 60.0
"""No talking face stands still for so long: the times in the file are damaged."""
MOST_BYTES = 1 << 30
"""Of the grey pictures of one utterance: nearly a minute of 1080p at 10 pictures a second."""


class MediaError(Exception):
    """A file that cannot be decoded."""


def decode_frames(media: bytes, fps: float = 10.0) -> NDArray[np.uint8]:
    """The pictures shown at times 0, 1/fps, 2/fps, ...

    A picture is shown from its own time on until the next one comes, so a variable frame rate
    needs no care. A rotation noted in the file, as telephones do, is carried out.

    Args:
        media: content of a video file.
        fps: pictures a second.

    Returns:
        uint8 (T, H, W), grey; T = 0 if there is no video stream.

    Raises:
        MediaError: the file cannot be decoded, or is too long for one utterance.
    """
    return next(decode_spans(media, fps, [(0.0, math.inf)]))


def decode_spans(
    media: bytes, fps: float, spans: Sequence[tuple[float, float]]
) -> Iterator[NDArray[np.uint8]]:
    """The pictures of several parts of a video, in one pass through it.

    Args:
        media: content of a video file.
        fps: pictures a second.
        spans: begin and end of each part in seconds, ascending, without overlap.

    Yields:
        For each part the pictures shown at times begin, begin + 1/fps, ...: uint8 (T, H, W), grey;
        T = 0 if there is no video stream or it ends before.

    Raises:
        MediaError: the file cannot be decoded, or a part is too long for one utterance.
    """
    with _opened(media, "video") as container:
        pictures = _pictures(container)
        frame, until_s, grey = None, 0.0, None
        for begin_s, end_s in spans:
            chosen: list[NDArray[np.uint8]] = []
            while (time_s := begin_s + len(chosen) / fps) < end_s:
                while frame is None or until_s <= time_s:
                    frame, before_s, grey = None, until_s, None
                    following = next(pictures, None)
                    if following is None:
                        break
                    frame, until_s = following
                    if until_s - before_s > LONGEST_GAP_S:
                        raise MediaError(f"the video has a picture shown until {until_s:.0f} s")
                if frame is None:
                    break
                grey = _upright(frame) if grey is None else grey
                chosen.append(grey)
                if len(chosen) * grey.nbytes > MOST_BYTES:
                    raise MediaError("the video is too long; cut it into utterances")
            if len({picture.shape for picture in chosen}) > 1:
                raise MediaError("the video changes its size")
            yield np.stack(chosen) if chosen else np.empty((0, 0, 0), dtype=np.uint8)


def decode_sound(media: bytes, rate: int = 16_000) -> NDArray[np.float32] | None:
    """The sound, mono, from time zero on; silence where there is none yet or a hole.

    Args:
        media: content of a video or sound file.
        rate: samples a second.

    Returns:
        float32 (samples,) in [-1, 1]; None if there is no sound stream.

    Raises:
        MediaError: the file cannot be decoded.
    """
    with _opened(media, "sound") as container:
        start_s, parts = _sound(container, rate)
    if not parts:
        return None
    if start_s > LONGEST_GAP_S:
        raise MediaError(f"the sound starts {start_s:.0f} s after the video")
    return np.clip(_from_zero(np.concatenate(parts), round(start_s * rate)), -1.0, 1.0)


@contextmanager
def _opened(media: bytes, what: str) -> Iterator[Any]:
    """PyAV's container; its errors become a MediaError.

    The content stands for itself: without protocols, a playlist or session description posing as
    a video opens neither other files nor sockets.
    """
    options = {"protocol_whitelist": "none"}
    try:
        with av.open(io.BytesIO(media), options=options, metadata_errors="ignore") as container:
            yield container
    except (FFmpegError, ValueError) as error:
        raise MediaError(f"the {what} cannot be decoded ({error})") from None


def _video_stream(container: Any) -> Any:  # noqa: ANN401
    """The first video stream that is not the cover picture of a piece of music; None without."""
    streams = container.streams.video
    return next((one for one in streams if not one.disposition & Disposition.attached_pic), None)


def _zero_s(container: Any) -> float:  # noqa: ANN401
    """Time zero on the file's own clock."""
    stream = _video_stream(container) or container.streams.audio[0]
    return 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base)


def _time_s(frame: Any, what: str) -> float:  # noqa: ANN401
    """The frame's time on the file's own clock."""
    if frame.time is None:
        raise MediaError(f"the {what} carries no times")
    return float(frame.time)


def _pictures(container: Any) -> Iterator[tuple[av.VideoFrame, float]]:  # noqa: ANN401
    """Each picture and the time until which it is shown."""
    stream = _video_stream(container)
    if stream is None:
        return
    zero_s = _zero_s(container)
    shown: av.VideoFrame | None = None
    for frame in container.decode(stream):
        if shown is not None:
            yield shown, _time_s(frame, "video") - zero_s
        shown = frame
    if shown is not None:
        yield shown, _time_s(shown, "video") - zero_s + 1 / float(stream.average_rate or 25)


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The picture (H, W), grey, turned as the file says it is to be shown."""
    picture = cv2.cvtColor(frame.to_ndarray(format="rgb24"), cv2.COLOR_RGB2GRAY)
    return np.rot90(np.asarray(picture, dtype=np.uint8), round(frame.rotation / 90))


def _sound(container: Any, rate: int) -> tuple[float, list[NDArray[np.float32]]]:  # noqa: ANN401
    """When the sound starts, in seconds from time zero, and its mono parts (samples,) from there.

    No parts if there is no sound stream.
    """
    parts: list[NDArray[np.float32]] = []
    if not container.streams.audio:
        return 0.0, parts
    zero_s = _zero_s(container)
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
    start_s = end_s = None
    for frame in container.decode(container.streams.audio[0]):
        time_s = _time_s(frame, "sound") - zero_s
        if start_s is None or end_s is None:
            start_s = end_s = time_s
        parts.append(_silence(time_s - end_s, rate))
        parts += [one.to_ndarray()[0] for one in resampler.resample(frame)]
        end_s = time_s + frame.samples / frame.sample_rate
    parts += [one.to_ndarray()[0] for one in resampler.resample(None)]
    return start_s or 0.0, parts


def _silence(hole_s: float, rate: int) -> NDArray[np.float32]:
    """What fills a hole in the sound."""
    if hole_s > LONGEST_GAP_S:
        raise MediaError(f"the sound has a hole of {hole_s:.0f} s")
    return np.zeros(round(hole_s * rate) if hole_s >= SMALLEST_GAP_S else 0, dtype=np.float32)


def _from_zero(sound: NDArray[np.float32], start: int) -> NDArray[np.float32]:
    """Sound that begins `start` samples after time zero (before it, if negative), from there on."""
    if start < 0:
        return sound[-start:]
    return np.concatenate([np.zeros(start, dtype=np.float32), sound])
