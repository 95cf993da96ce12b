"""Subtitles inside media files: they say what the same subtitles say beside them."""

import numpy as np
import pytest
from av.stream import Disposition

from data_pipeline.corpora.transcript_names import Transcript
from data_pipeline.features.subtitles import Subtitles, find_subtitles, read_cues
from data_pipeline.features.video import MediaError, decode_frames
from data_pipeline.transcripts import Cue, parse_transcript
from tests.data_pipeline.features.media import make_video
from tests.data_pipeline.features.subtitled import HEADER, Line, Track, mov_text, with_subtitles

FIRST = 2
"""Number of the first stream of subtitles, after picture and sound."""
CLUSTER = b"\x1f\x43\xb6\x75"
"""In Matroska pictures, sound and subtitles come after the first of these."""


def film(begin_ms: int = 0) -> bytes:
    """Four seconds of pictures, lighter from the third on, and sound."""
    times = range(begin_ms, begin_ms + 4000, 100)
    levels = [90 if time < begin_ms + 2000 else 180 for time in times]
    return make_video(times, levels, np.zeros(4 * 16_000, np.float32), sound_start_ms=begin_ms)


def inside(codec: str, *lines: Line, form: str = "matroska") -> bytes:
    return with_subtitles(film(), [Track(lines, codec)], form)


SAID = ["- <i>Hello</i> you,\nJOHN: well!", "[door slams]", "I <3 안녕 {\\an8}", "Bye."]
TIMES = [(500, 1250), (1300, 400), (1800, 690), (3000, 10)]


def clock(ms: int, point: str) -> str:
    return f"0:00:{ms // 1000:02}{point}{ms % 1000:03}"


def beside(suffix: str) -> list[Cue]:
    """The cues of a file with these lines."""
    blocks = [
        f"{clock(begin, '.')} --> {clock(begin + length, '.')}\n{said}\n"
        for (begin, length), said in zip(TIMES, SAID, strict=True)
    ]
    head = "WEBVTT\n\n" if suffix == ".vtt" else ""
    return parse_transcript(f"a{suffix}", (head + "\n".join(blocks)).encode())


@pytest.mark.parametrize(
    ("codec", "form", "suffix"),
    [
        ("subrip", "matroska", ".srt"),
        ("webvtt", "matroska", ".vtt"),
        ("mov_text", "mp4", ".srt"),
        ("mov_text", "mov", ".srt"),
    ],
)
def test_cues_inside_a_file_are_those_of_a_file_beside_it(
    codec: str, form: str, suffix: str
) -> None:
    lines = [
        (*times, mov_text(said) if codec == "mov_text" else said.encode())
        for times, said in zip(TIMES, SAID, strict=True)
        # in MP4 one ends where the next one begins
        if codec != "mov_text" or times != TIMES[1]
    ]
    found = read_cues(inside(codec, *lines, form=form), FIRST)
    assert found == (beside(suffix), 0)
    assert [cue.text for cue in found[0]] == ["Hello you, well!", "I <3 안녕", "Bye."]


def test_substation_inside_a_file_is_as_beside_it() -> None:
    fields = ["Default,Ann,0,0,0,,So{\\i1}, yes", "OP,,0,0,0,,la", "Default,,0,0,0,,Well\\Nno"]
    fields.append(fields[0])
    times = [(500, 1000), (600, 1000), (1500, 20), (500, 1000)]
    lines = [
        (*time, f"{number},0,{text}".encode())
        for number, (time, text) in enumerate(zip(times, fields, strict=True))
    ]
    rows = [
        f"Dialogue: 0,{clock(begin, '.')},{clock(begin + length, '.')},{text}\n"
        for (begin, length), text in zip(times, fields, strict=True)
    ]
    wanted = parse_transcript("a.ass", HEADER + "".join(rows).encode())
    assert wanted == [Cue(0.5, 1.5, "So, yes", "Ann"), Cue(1.5, 1.52, "Well no")]
    ordered = sorted(lines, key=lambda line: line[0])
    assert read_cues(inside("ass", *ordered), FIRST) == (wanted, 0)


def test_times_count_from_the_first_picture() -> None:
    late = with_subtitles(film(begin_ms=5000), [Track([(7000, 500, b"Light")])])
    (cue,), _ = read_cues(late, FIRST)
    frames = decode_frames(late)
    lights = np.asarray(frames[:40]).mean(axis=(1, 2)) > 135
    assert (cue.begin_s, cue.end_s) == (2.0, 2.5)
    assert int(lights.argmax()) == 20


def test_what_a_file_says_of_its_subtitles() -> None:
    hearing, forced, comment = (
        int(getattr(Disposition, name)) for name in ("hearing_impaired", "forced", "comment")
    )
    tracks = [
        Track([], language="eng"),
        Track([], language="eng", title="English [SDH]"),
        Track([], language="eng", disposition=hearing),
        Track([], language="ger", disposition=forced),
        Track([], language="ger", title="Signs & Songs"),
        Track([], "ass", language="kor", disposition=int(Disposition.default)),
        Track([], disposition=comment),
        Track([], language="pt-BR", title="Design Hi"),
    ]
    found = find_subtitles(with_subtitles(film(), tracks, sound="kor"))
    texts = [
        ("7", "kor", set()),
        ("2", "eng", set()),
        ("3", "eng", {"sdh"}),
        ("4", "eng", {"sdh"}),
        ("5", "ger", {"forced"}),
        ("6", "ger", {"forced"}),
        ("8", "", {"forced"}),
        ("9", "pt-br", set()),
    ]
    wanted = [Transcript(name, "", language, frozenset(of)) for name, language, of in texts]
    assert found == Subtitles(tuple(wanted), False, False, "kor")
    assert find_subtitles(film()) == Subtitles()


def as_codec(media: bytes, name: bytes) -> bytes:
    """A Matroska file whose subtitles say that they are of another codec."""
    assert media.count(b"S_TEXT/UTF8") == 1
    return media.replace(b"S_TEXT/UTF8", name.ljust(11, b"\0"))


def test_pictures_and_unknown_forms_are_told_apart() -> None:
    text = inside("subrip", (500, 1000, b"Hello"))
    assert find_subtitles(as_codec(text, b"S_HDMV/PGS")) == Subtitles(pictures=True)
    assert find_subtitles(as_codec(text, b"S_UNKNOWN")) == Subtitles(others=True)


def test_a_damaged_packet_costs_its_own_line() -> None:
    lines = [(100 * at, 90, b"So %d it goes" % at) for at in range(12)]
    broken = [*lines[:5], (500, 90, "да".encode("cp1251")), *lines[6:]]
    cues, damaged = read_cues(inside("subrip", *broken), FIRST)
    assert [cue.text for cue in cues] == [f"So {at} it goes" for at in range(12) if at != 5]
    assert damaged == 1
    cut_off = [(100 * at, 90, mov_text("So")) for at in range(12)]
    cut_off[3] = (300, 90, b"\0\x09So")
    cues, damaged = read_cues(inside("mov_text", *cut_off, form="mp4"), FIRST)
    assert (len(cues), damaged) == (11, 1)
    few = [(100 * at, 90, b"%d,0,Default,,0,0,0,,a, b" % at) for at in range(12)]
    few[3] = (300, 90, b"3,0,Default,so")
    cues, damaged = read_cues(inside("ass", *few), FIRST)
    assert (len(cues), damaged) == (11, 1)


def test_subtitles_in_another_encoding_are_not_half_read() -> None:
    lines = [(100 * at, 90, ("да" if at % 3 else "Ok").encode("cp1251")) for at in range(12)]
    with pytest.raises(MediaError, match="8 of its 12 subtitles cannot be read"):
        read_cues(inside("subrip", *lines), FIRST)


def test_subtitles_whose_times_begin_anew_are_refused() -> None:
    """As of two files, one behind the other: the sound goes on there."""
    first = with_subtitles(film(), [Track([(3000, 500, b"One")])])
    second = with_subtitles(film(), [Track([(500, 500, b"Two")])])
    clusters = second[second.index(CLUSTER) :]
    with pytest.raises(MediaError, match="the times of its subtitles begin anew"):
        read_cues(first + clusters, FIRST)


@pytest.mark.parametrize("lines", [[], [(500, 1000, b"[music]")], [(500, 1000, b" ")]])
def test_subtitles_without_speech_have_no_cues(lines: list[Line]) -> None:
    assert read_cues(inside("subrip", *lines), FIRST) == ([], 0)


def test_a_file_that_ends_too_early_has_the_cues_until_there() -> None:
    media = inside("subrip", *((400 * at, 300, b"So %d" % at) for at in range(9)))
    counts, head = [], media.index(CLUSTER)
    for share in (0.3, 0.6, 1):
        cues, _ = read_cues(media[: head + round(share * (len(media) - head))], FIRST)
        assert [cue.text for cue in cues] == [f"So {at}" for at in range(len(cues))]
        counts.append(len(cues))
    assert counts[0] < counts[1] < counts[2] == 9
    with pytest.raises(MediaError):
        read_cues(media[:50], FIRST)
