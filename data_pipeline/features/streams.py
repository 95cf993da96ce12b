"""Which streams of a file are taken, its time zero, and the frames of a stream."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from av.error import FFmpegError
from av.stream import Disposition

from data_pipeline.features.clock import timed_packets

SMALLEST_LEAD_S = 0.1
"""Sound that begins so long before the first picture is kept, and time zero with it. Below it is
cut off: encoders begin sound a packet early, and pictures two or three late."""


def video_stream(container: Any) -> Any:  # noqa: ANN401
    """The first video stream that is not the cover picture of a piece of music; None without."""
    streams = container.streams.video
    return next((one for one in streams if not one.disposition & Disposition.attached_pic), None)


def sound_streams(container: Any) -> list[Any]:  # noqa: ANN401
    """The sound streams of known codecs: those first that the file marks as the default."""
    streams = [one for one in container.streams.audio if one.codec_context is not None]
    return sorted(streams, key=lambda one: not one.disposition & Disposition.default)


def zero_s(container: Any) -> float:  # noqa: ANN401
    """Time zero on the file's own clock."""
    video, sounds = video_stream(container), sound_streams(container)
    picture_s = _start_s(video) if video else None
    sound_s = _start_s(sounds[0]) if sounds else None
    if picture_s is None:
        return sound_s or 0.0
    if sound_s is None or picture_s - sound_s < SMALLEST_LEAD_S:
        return picture_s
    return sound_s


def _start_s(stream: Any) -> float | None:  # noqa: ANN401
    """When a stream starts on the file's own clock, if that is known."""
    return None if stream.start_time is None else float(stream.start_time * stream.time_base)


@dataclass(frozen=True)
class Damage:
    """A packet that cannot be decoded.

    Attributes:
        time_s: its time on the clock of `timed_packets`, if known.
        length_s: how long it lasts; 0 if that is not known.
    """

    time_s: float | None
    length_s: float


def stream_frames(
    container: Any,  # noqa: ANN401
    stream: Any,  # noqa: ANN401
    decoded: Callable[[float | None], None] = lambda time_s: None,
) -> Iterator[Any]:
    """The frames of a stream; a `Damage` in the place of what cannot be decoded.

    Args:
        container: of the file.
        stream: of it.
        decoded: is told the time of each packet that was, on the same clock, if known.
    """
    for packet in timed_packets(container, stream):
        time_s = None if packet.pts is None else float(packet.pts * packet.time_base)
        try:
            frames = packet.decode()
        except FFmpegError:
            yield Damage(time_s, float((packet.duration or 0) * packet.time_base))
        else:
            decoded(time_s)
            yield from frames
