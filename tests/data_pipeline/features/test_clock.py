"""Files that were joined as bytes, and packets whose times jump."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.features.clock import timed_packets
from data_pipeline.features.video import decode_frames, decode_sound, decode_spans
from tests.data_pipeline.features.clicks import brightness, click, clicks, onsets_s
from tests.data_pipeline.features.media import Form, make_video

DARK, BRIGHT = 20, 230
KINDS = {
    ".ts": Form(format="mpegts", video_codec="libx264"),
    ".m2ts": Form(format="mpegts", video_codec="mpeg2video", audio_codec="mp2"),
    ".vob": Form(format="dvd", video_codec="mpeg2video", audio_codec="mp2"),
    ".mpg": Form(format="mpeg", video_codec="mpeg2video", audio_codec="mp2"),
    ".mkv": Form(format="matroska", video_codec="libx264"),
}


def film(seconds: int, form: Form) -> bytes:
    """A flash and a click in the middle of every second."""
    times = range(0, 1000 * seconds, 40)
    levels = [BRIGHT if 500 <= time % 1000 < 600 else DARK for time in times]
    return make_video(times, levels, clicks(seconds), **form)


def flashes_s(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The begin of each flash, in pictures that come 25 a second."""
    bright = brightness(frames) > 128
    return (np.flatnonzero(bright[1:] & ~bright[:-1]) + 1) / 25


@pytest.mark.parametrize(
    ("kind", "lengths"),
    [(".ts", (2, 3)), (".ts", (3, 2, 4)), (".m2ts", (3, 2)), (".vob", (3, 2, 4)), (".mpg", (2, 3)),
     (".mkv", (3, 2))],
)  # fmt: skip
def test_where_files_are_joined_pictures_and_sound_go_on_together(
    kind: str, lengths: tuple[int, ...]
) -> None:
    media = b"".join(film(length, KINDS[kind]) for length in lengths)
    frames, sound = decode_frames(media, 25.0), decode_sound(media)
    assert sound is not None
    seen, heard = flashes_s(frames), onsets_s(sound)
    np.testing.assert_allclose(heard, np.arange(sum(lengths)) + 0.5, atol=0.15 * len(lengths))
    np.testing.assert_allclose(seen, heard, atol=0.07)
    assert abs(len(frames) / 25 - len(sound) / 16_000) < 0.15


def test_parts_of_a_joined_file_are_those_of_the_whole() -> None:
    media = film(2, KINDS[".ts"]) + film(3, KINDS[".ts"])
    whole = decode_frames(media, 25.0)
    for part, begin in zip(
        decode_spans(media, 25.0, [(1.0, 2.0), (3.0, 4.0)]), (25, 75), strict=True
    ):
        np.testing.assert_array_equal(part, whole[begin : begin + 25])


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 1), (16_000, 2), (44_100, 2)])
def test_files_that_are_joined_may_have_different_sound(rate: int, channels: int) -> None:
    def heard_in(rate: int, channels: int) -> bytes:
        form = Form(**KINDS[".m2ts"], rate=rate, channels=channels)
        return make_video(
            range(0, 3000, 40), [DARK] * 75, np.tile(click(0.5, 1.0, rate), 3), **form
        )

    sound = decode_sound(heard_in(16_000, 1) + heard_in(rate, channels) + heard_in(16_000, 1))
    assert sound is not None
    np.testing.assert_allclose(onsets_s(sound), np.arange(9) + 0.5, atol=0.15)


@dataclass
class Packet:
    """What of PyAV's packets the clock looks at; in milliseconds. The last one has no size."""

    stream: SimpleNamespace
    dts: int | None
    duration: int = 0
    size: int = 1
    time_base: Fraction = Fraction(1, 1000)
    said: int | None = None
    pts: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.pts = self.said = self.dts


def times_s(
    packets: Sequence[tuple[str, float]], of: str, step_s: float = 0.5, fails: bool = False
) -> list[float]:
    """The times that packets of these kinds and times, in their file's order, are given.

    PyAV fails at the end of some files.
    """
    kinds = ("video", "audio")
    streams = {kind: SimpleNamespace(index=at, type=kind) for at, kind in enumerate(kinds)}
    made = [
        Packet(streams[kind], round(time * 1000), round(step_s * 1000)) for kind, time in packets
    ]
    ends = [Packet(streams[kind], None, size=0) for kind in kinds]

    def demux(_: object) -> Iterator[Packet]:
        yield from [*made, *ends]
        if fails:
            raise IndexError

    container = SimpleNamespace(
        streams=SimpleNamespace(video=[streams["video"]], audio=[streams["audio"]]), demux=demux
    )
    timed = list(timed_packets(container, streams[of]))
    assert [one.said for one in timed if one.size] == [
        round(time * 1000) for kind, time in packets if kind == of
    ]  # none is lost, and their order is the file's
    return [one.dts / 1000 for one in timed if one.dts is not None]


def steps(kind: str, *runs: tuple[float, float]) -> list[tuple[str, float]]:
    """Packets of half a second from each time to another."""
    return [(kind, time) for run in runs for time in np.arange(*run, 0.5).tolist()]


@pytest.mark.parametrize("late", ["video", "audio"])
def test_the_second_stream_follows_the_step_of_the_first(late: str) -> None:
    early = "audio" if late == "video" else "video"
    packets = [
        *steps(early, (0, 10)),
        *steps(late, (0, 9.5)),
        *steps(early, (0, 2)),
        (late, 9.5),  # packed up with what comes next
        *steps(late, (0, 4)),
        *steps(early, (2, 4)),
    ]
    for kind in ("video", "audio"):
        assert times_s(packets, kind) == np.arange(0, 14, 0.5).tolist()


def test_a_file_begins_when_all_streams_of_the_one_before_have_ended() -> None:
    packets = steps("video", (0, 10)) + steps("audio", (0, 7))
    packets += steps("audio", (0, 3)) + steps("video", (0, 3))
    assert times_s(packets, "video") == np.arange(0, 13, 0.5).tolist()
    assert times_s(packets, "audio") == [*np.arange(0, 7, 0.5), *np.arange(10, 13, 0.5)]


@pytest.mark.parametrize("far", [-3.0, -1.5, 100.0, 3600.0])
@pytest.mark.parametrize("count", [1, 2])
def test_a_few_packets_that_jump_to_and_fro_are_put_right(far: float, count: int) -> None:
    times = np.arange(0, 20, 0.25)
    jumping = times.copy()
    jumping[20 : 20 + count] += far
    packets = [("audio", time) for time in jumping.tolist()]
    np.testing.assert_allclose(times_s(packets, "audio", 0.25), times)


@pytest.mark.parametrize("far", [5.0, 59.0, 61.0, 3600.0])
def test_a_hole_that_lasts_is_one(far: float) -> None:
    packets = steps("audio", (0, 5), (5 + far, 10 + far))
    assert times_s(packets, "audio") == [time for _, time in packets]
    packets = [("video", 0.0), ("video", far), ("video", 2 * far), ("video", 3 * far)]
    assert times_s(packets, "video", 0.0) == [time for _, time in packets]


def test_nothing_is_lost_where_pyav_fails_at_the_end() -> None:
    packets = steps("audio", (0, 5)) + steps("video", (0, 5))
    for kind in ("video", "audio"):
        assert times_s(packets, kind, fails=True) == np.arange(0, 5, 0.5).tolist()
