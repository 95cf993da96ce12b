"""Decoding with PyAV: upright grey pictures at a constant rate, sound at 16 kHz, one time zero.

Time zero is the first picture, or the first sound where it comes well before it or there is no
video; subtitles count from there, too. Files cut out of a longer one, and transport streams, count
from elsewhere.
"""

import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, TypeAlias

import av
import cv2
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from data_pipeline.errors import say_without_path
from data_pipeline.features.frames import Frames, Pixels, fitted, upright
from data_pipeline.features.streams import (
    SMALLEST_LEAD_S,
    Damage,
    sound_streams,
    stream_frames,
    video_stream,
    zero_s,
)

SMALLEST_GAP_S = 0.05
"""Sound that comes so late has a hole before it, filled with silence; below it times may just be
rounded, to a packet of AAC or MP3 at most."""
SMALLEST_OVERLAP_S = 0.1
"""Sound that comes so early is cut off where there is some already. More than the smallest gap:
times that jump to and fro would have it filled up and cut off in turn."""
LONGEST_GAP_S = 6 * 3600.0
"""Of sound, all holes together, and of one picture, which may be a slide. If nothing is there for
longer, the times in the file are damaged."""
LONG_SILENCE_S = 60.0
"""Silence from here on takes no memory."""
LONGEST_PACKET_S = 60.0
"""Of what cannot be decoded, whatever it says of its length."""
WIDEST_PIXEL = 8.0
"""Times as wide as high, or as high as wide; no camera has such."""
MOST_BYTES = 1 << 30
"""Of the grey pictures of one utterance: nearly two minutes of 720p, the largest that there are, at
10 pictures a second."""


Media: TypeAlias = bytes | BinaryIO
"""A video or sound file: its content, or the file, open, to be read here and there."""
WHOLE = (0.0, math.inf)
"""Begin and end of all of a file, in seconds."""


class MediaError(Exception):
    """A file, or a part of it, that cannot be decoded."""


@dataclass(frozen=True)
class Sound:
    """The sound of a file from time zero on.

    Attributes:
        samples: float32 (N,) in [-1, 1], mono; silence where there is none yet, a hole, or damage.
        rate: samples a second.
        broken: begin and end, in seconds, of what cannot be decoded.
    """

    samples: NDArray[np.float32]
    rate: int
    broken: tuple[tuple[float, float], ...]

    def part(self, begin_s: float, end_s: float) -> NDArray[np.float32]:
        """The samples from one time to another, as far as there are any: (samples,).

        Raises:
            MediaError: some of them cannot be decoded.
        """
        for from_s, until_s in self.broken:
            if from_s < end_s and begin_s <= until_s:
                raise MediaError(f"the sound cannot be decoded from {from_s:.2f} s on")
        end = len(self.samples) if math.isinf(end_s) else round(end_s * self.rate)
        return self.samples[round(begin_s * self.rate) : end]


def decode_frames(media: Media, fps: float = 10.0, span: tuple[float, float] = WHOLE) -> Frames:
    """The pictures shown at times 0, 1/fps, 2/fps, ..., counted from the begin of a part.

    A picture is shown from its own time on until the next one comes, so a variable frame rate
    needs no care; before the first one, it is black. A rotation noted in the file, as telephones
    do, is carried out, and pixels that are not square, as DVDs have them, are made so by scaling
    the width. Pictures of more than 720 lines are shrunk to as many, and those of another size than
    the first are scaled into it.

    Args:
        media: a video file.
        fps: pictures a second.
        span: begin and end of the part, in seconds.

    Returns:
        uint8 (T, H, W), grey; T = 0 if there is no video stream, or it ends before.

    Raises:
        MediaError: the part cannot be decoded, or is too long for one utterance.
    """
    frames = next(decode_spans(media, fps, [span]))
    if isinstance(frames, MediaError):
        raise frames
    return frames


def decode_spans(
    media: Media, fps: float, spans: Sequence[tuple[float, float]]
) -> Iterator[Frames | MediaError]:
    """The pictures of several parts of a video, in one pass through it.

    Args:
        media: a video file.
        fps: pictures a second.
        spans: begin and end of each part in seconds from 0 on, ascending, without overlap.

    Yields:
        For each part the pictures shown at times begin, begin + 1/fps, ...: uint8 (T, H, W), grey;
        T = 0 if there is no video stream or it ends before. Or why there are none: what is wrong
        with one part leaves the others as they are.
    """
    left = list(reversed(spans))
    try:
        with opened(media, "video") as container:
            film = _Film(container)
            while left:
                yield film.part(*left[-1], fps)
                left.pop()
    except (MediaError, MemoryError, cv2.error) as error:
        yield from [MediaError(str(error) or "there is not enough memory for it")] * len(left)


class _Film:
    """The pictures of a video, run through once."""

    def __init__(self, container: Any) -> None:  # noqa: ANN401
        self._pictures = _pictures(container)
        self._picture = _Picture(None, 0.0, 0.0)

    def part(self, begin_s: float, end_s: float, fps: float) -> Frames | MediaError:
        """See `decode_spans`; a MediaError that is raised is one of all that follows."""
        pixels, count, shape = bytearray(), 0, (0, 0)
        while (time_s := begin_s + count / fps) < end_s and self._run_to(time_s):
            shown = self._picture
            if shown.flaw:
                return MediaError(shown.flaw)
            shape = shape if count else shown.grey.shape
            count += 1
            pixels += fitted(shown.grey, *shape).tobytes()
            if len(pixels) > MOST_BYTES:
                return MediaError("the video is too long; cut it into utterances")
        return np.frombuffer(pixels, dtype=np.uint8).reshape(count, *shape)

    def _run_to(self, time_s: float) -> bool:
        """Find the picture shown at a time, no earlier than the last; False after the end."""
        while self._picture.until_s <= time_s:
            following = next(self._pictures, None)
            if following is None:
                return False
            self._picture = following
        return True


@dataclass(frozen=True)
class _Picture:
    """A picture, None where it cannot be decoded, and from when until when it is shown.

    Its pixels are `pixel` times as wide as high. Of a lead, what is shown is black: the picture is
    the first, which comes after it.
    """

    frame: av.VideoFrame | None
    from_s: float
    until_s: float
    pixel: float = 1.0
    lead: bool = False

    @property
    def flaw(self) -> str:
        """Why it cannot be taken, if so."""
        if self.until_s - self.from_s > LONGEST_GAP_S:
            if self.lead:
                return f"the video has no picture until {self.until_s:.0f} s"
            return f"the video has a picture shown until {self.until_s:.0f} s"
        if self.frame is None:
            return f"the video cannot be decoded from {self.from_s:.2f} s on"
        if not 1 / WIDEST_PIXEL <= self.pixel <= WIDEST_PIXEL:
            return f"the video has pixels that are {self.pixel:g} times as wide as high"
        return ""

    @cached_property
    def grey(self) -> Frames:
        assert self.frame is not None, "asked for before"
        picture = upright(self.frame, self.pixel)
        return np.zeros_like(picture) if self.lead else picture


def decode_sound(
    media: Media, rate: int = 16_000, span: tuple[float, float] = WHOLE
) -> NDArray[np.float32] | None:
    """The sound of a part, mono; silence where there is none yet or a hole.

    Args:
        media: a video or sound file.
        rate: samples a second.
        span: begin and end of the part, in seconds.

    Returns:
        float32 (samples,) in [-1, 1]; None if there is no sound stream.

    Raises:
        MediaError: the part cannot be decoded.
    """
    sound = decode_track(media, rate)
    return None if sound is None else sound.part(*span)


def decode_track(media: Media, rate: int = 16_000) -> Sound | None:
    """The sound, and where it cannot be decoded.

    Of several tracks, it is the first one of which something can be decoded; the one that the file
    marks as its default goes before the others.

    Memory grows with its samples alone, and not with long silence where there are none.

    Args:
        media: a video or sound file.
        rate: samples a second.

    Returns:
        None if there is no sound, or none of a known codec beside the pictures.

    Raises:
        MediaError: nothing of the file can be decoded, or sound is missing for hours in it.
    """
    broken = None
    for number in itertools.count():
        with opened(media, "sound") as container:
            streams = sound_streams(container)
            if not streams and container.streams.audio and not video_stream(container):
                raise MediaError("the sound cannot be decoded (its codec is not known)")
            if number >= len(streams):
                break
            track = _Track(rate, zero_s(container))
            track.fill(stream_frames(container, streams[number]))
            sound = track.finish()
        if track.heard:
            return sound
        broken = broken or sound
    return broken


@contextmanager
def opened(media: Media, what: str) -> Iterator[Any]:
    """PyAV's container; its errors become a MediaError.

    The content stands for itself: without protocols, a playlist or session description posing as
    a video opens neither other files nor sockets.
    """
    file = io.BytesIO(media) if isinstance(media, bytes) else media
    options = {"protocol_whitelist": "none"}
    try:
        file.seek(0)
        with av.open(file, options=options, metadata_errors="ignore") as container:
            yield container
    except (FFmpegError, ValueError, OverflowError, OSError) as error:
        raise MediaError(f"the {what} cannot be decoded ({say_without_path(error)})") from None


def _time_s(frame: Any, what: str) -> float:  # noqa: ANN401
    """The frame's time on the file's own clock."""
    if frame.time is None:
        raise MediaError(f"the {what} carries no times")
    return float(frame.time)


def _pictures(container: Any) -> Iterator[_Picture]:  # noqa: ANN401
    """Each picture with its times; what is shown before damage is not shown for long enough."""
    stream = video_stream(container)
    if stream is None:
        return
    begin_s, pixels = zero_s(container), Pixels(stream)
    shown, from_s, pixel, damaged = None, 0.0, 1.0, False
    for frame in stream_frames(container, stream, pixels.note):
        if isinstance(frame, Damage):
            damaged = True
            continue
        time_s, its_pixel = _time_s(frame, "video") - begin_s, pixels.of(frame)
        if shown is None and time_s >= SMALLEST_LEAD_S:
            yield _Picture(None if damaged else frame, 0.0, time_s, its_pixel, lead=True)
            damaged = False
        if shown is not None:
            yield _Picture(None if damaged else shown, from_s, time_s, pixel)
            damaged = False
        shown, from_s, pixel = frame, time_s, its_pixel
    if shown is not None:
        until_s = from_s + 1 / float(stream.average_rate or 25)
        yield _Picture(None if damaged else shown, from_s, until_s, pixel)
    elif damaged:
        raise MediaError("the video cannot be decoded (no picture of it)")


class _Track:
    """Sound that grows.

    Args:
        rate: samples a second.
        zero_s: time zero on the file's own clock.
    """

    def __init__(self, rate: int, zero_s: float) -> None:
        self._rate = rate
        self._zero_s = zero_s
        self._resampler: Any = None
        self._form: tuple[str, str, int] | None = None
        self._samples = _Samples(round(LONG_SILENCE_S * rate))
        self._silent_s = 0.0
        self._before = 0
        """Samples before time zero."""
        self._started = False
        self._due_s = 0.0
        """When the next sample is heard, whatever its time may be."""
        self._early = 0
        """Of the next samples, those to be left out."""
        self._broken: list[tuple[float, float]] = []

    @property
    def heard(self) -> bool:
        """Whether anything of it could be decoded."""
        return self._resampler is not None

    def fill(self, frames: Iterable[Any]) -> None:
        """All frames of a stream, and what is damaged between them."""
        for frame in frames:
            if isinstance(frame, Damage):
                self._add_damage(frame)
            else:
                self._add(frame)

    def _add(self, frame: Any) -> None:  # noqa: ANN401
        """The samples of a frame, at its time; without one they follow the last, as WMA's end."""
        self._prepare(frame)
        if frame.time is not None or not self._started:
            self._go_to(_time_s(frame, "sound") - self._zero_s)
        self._add_samples(frame)
        self._due_s += frame.samples / frame.sample_rate

    def _prepare(self, frame: Any) -> None:  # noqa: ANN401
        """A resampler for this frame: files that were joined may have different rates."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:
            self._flush()
            # FFmpeg adds channels with 0.7 each: what is on both would be louder, and cut off.
            layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
            self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=self._rate)
            self._form = form

    def _flush(self) -> None:
        """What the resampler has held back."""
        if self._resampler is not None:
            self._add_samples(None)

    def _add_damage(self, damage: Damage) -> None:
        """Silence in the place of a packet; without a time of its own it follows the last one."""
        from_s = self._due_s if damage.time_s is None else damage.time_s - self._zero_s
        self._go_to(from_s)
        length_s = min(damage.length_s, LONGEST_PACKET_S)
        self._add_silence(length_s)
        until_s = from_s + length_s
        if self._broken and from_s - self._broken[-1][1] < SMALLEST_GAP_S:
            from_s = self._broken.pop()[0]
        self._broken.append((from_s, until_s))

    def finish(self) -> Sound | None:
        """All of it; None if there is none."""
        self._flush()
        if not self._samples.count and not self._broken:
            return None
        samples = self._samples.whole()[self._before :]
        return Sound(samples, self._rate, tuple(self._broken))

    def _go_to(self, time_s: float) -> None:
        """The next samples belong to this time, in seconds from time zero."""
        if not self._started:
            self._before = max(round(-time_s * self._rate), 0)
            self._started, self._due_s = True, min(time_s, 0.0)
            self._add_silence(max(time_s, 0.0))
            return
        late_s = time_s - self._due_s
        if late_s >= SMALLEST_GAP_S:
            self._add_silence(late_s)
        elif late_s <= -SMALLEST_OVERLAP_S:
            early = round(-late_s * self._rate)
            self._early += early
            self._due_s -= early / self._rate

    def _add_samples(self, frame: Any) -> None:  # noqa: ANN401
        """A frame as the resampler hands it on; None: what it has held back."""
        for part in self._resampler.resample(frame):
            self._write(part.to_ndarray().mean(axis=0))

    def _add_silence(self, length_s: float) -> None:
        self._silent_s += length_s
        if self._silent_s > LONGEST_GAP_S:
            raise MediaError(f"the sound is missing for {self._silent_s:.0f} s")
        count = round(length_s * self._rate)
        self._due_s += count / self._rate
        self._samples.add_silence(count - self._left_out(count))

    def _write(self, samples: NDArray[np.float32]) -> None:
        """Samples that come next, without those that come too early."""
        self._samples.add(samples[self._left_out(len(samples)) :])

    def _left_out(self, count: int) -> int:
        """How many of so many samples are left out, which come too early."""
        left_out = min(self._early, count)
        self._early -= left_out
        return left_out


class _Samples:
    """Samples that grow, in one piece of memory as long as there is no long silence in them.

    Args:
        long: so many samples of silence are long, and take no memory.
    """

    def __init__(self, long: int) -> None:
        self._long = long
        self._runs = [(0, bytearray())]
        self.count = 0

    def add(self, samples: NDArray[np.float32]) -> None:
        """Samples (n,) that come next, cut off at 1."""
        self._runs[-1][1].extend(np.clip(samples, -1.0, 1.0).tobytes())
        self.count += len(samples)

    def add_silence(self, count: int) -> None:
        """So many samples of nothing."""
        if count < self._long:
            self.add(np.zeros(count, dtype=np.float32))
        else:
            self.count += count
            self._runs.append((self.count, bytearray()))

    def whole(self) -> NDArray[np.float32]:
        """All samples: (count,). They are handed over, and gone from here."""
        if len(self._runs) == 1:
            return np.frombuffer(self._runs.pop()[1], dtype=np.float32)
        whole = np.zeros(self.count, dtype=np.float32)  # pages that nobody writes take no memory
        while self._runs:
            begin, run = self._runs.pop()
            samples = np.frombuffer(run, dtype=np.float32)
            whole[begin : begin + len(samples)] = samples
        return whole
