"""Utterances are those that a build would make of the same file."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.encoding import UTF_8
from data_pipeline.errors import UserError
from memo.inference.utterances import Utterance, find_utterances, read_inside, read_subtitles
from tests.data_pipeline.features.media import make_video
from tests.data_pipeline.features.subtitled import Track, with_subtitles

RATE = 16_000
SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Hello</i>
there.
2
00:00:02,000 --> 00:00:04,000
{\\an8}[sighs] Again

3
00:00:03,000 --> 00:00:03,500
inside the one before

4
00:00:04,500-->00:00:05
♪ la la ♪

5
01:00:05 --> 01:00:06.5
Well

"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_subtitles_are_utterances_in_order_without_overlap(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.srt"
    text = SRT.replace("Well", "Très bien").replace("\n", "\r\n")
    if encoding == "cp1252":  # it has no notes
        text = text.replace("♪ la la ♪", "(laughs)")
    path.write_bytes(text.encode(encoding))
    assert read_subtitles(path, encoding if encoding == "cp1252" else UTF_8) == [
        Utterance(1.0, 2.5, "Hello there."),
        Utterance(2.5, 4.0, "Again"),
        Utterance(3605.0, 3606.5, "Très bien"),
    ]


def test_transcripts_of_other_forms_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000 align:start\nI &amp; you\n")
    (tmp_path / "a.json").write_text('{"segments": [{"start": -1, "end": 2, "text": "So"}]}')
    assert read_subtitles(tmp_path / "a.vtt", UTF_8) == [Utterance(1.0, 2.0, "I & you")]
    assert read_subtitles(tmp_path / "a.json", UTF_8) == [Utterance(0.0, 2.0, "So")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.srt", b"", "nothing is said in these subtitles"),
        ("a.srt", b"no subtitles", "line 1: no line has two times"),
        ("a.srt", b"1\n00:01,0 --> 00:02,0\na\n\n2\n00:03 -> 00:04\nb\n", "line 6: '00:03 -> 00:"),
        ("a.srt", b"1\n00:01,0 --> 00:02,0\n\xe9\n", "line 3 is not in utf-8; say with --encoding"),
        ("a.txt", b"so", "no subtitles; give a file in .srt, .vtt, .json, .tsv"),
        ("a.srt", None, "no subtitles can be read .No such file"),
    ],
)
def test_what_is_no_subtitle_file_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: {message}"):
        read_subtitles(tmp_path / name, UTF_8)


def test_pauses_part_utterances_and_clicks_are_none() -> None:
    rng = np.random.default_rng(0)
    heard = rng.normal(0, 1e-4, 8 * RATE)
    for begin_s, end_s in ((1.0, 2.0), (2.2, 3.0), (4.0, 4.1), (5.0, 7.0)):
        part = slice(round(begin_s * RATE), round(end_s * RATE))
        heard[part] += rng.normal(0, 0.1, part.stop - part.start)
    times = [(one.begin_s, one.end_s) for one in find_utterances(heard.astype(np.float32))]
    np.testing.assert_allclose(times, [(1.0, 3.0), (5.0, 7.0)], atol=0.1)


@pytest.mark.parametrize("samples", [0, 100, RATE])
def test_silence_has_no_utterance(samples: int) -> None:
    assert find_utterances(np.zeros(samples, np.float32)) == []


def test_subtitles_inside_are_those_beside(tmp_path: Path) -> None:
    """In the language that the file says is heard; by speech if there are none."""
    beside = tmp_path / "a.srt"
    beside.write_text(
        "1\n00:00:00,100 --> 00:00:00,900\nso glad\n\n2\n00:00:00,800 --> 00:00:01,500\ntears\n"
    )
    english = Track([(100, 800, b"so glad"), (800, 700, b"tears")], language="eng")
    german = Track([(100, 800, b"so froh")], language="ger")
    media = make_video([0, 1000, 1500], [9, 90, 9], np.zeros(32_000, np.float32))
    video = tmp_path / "a.mkv"
    heard = with_subtitles(media, [german, english], sound="eng")
    assert read_inside(video, heard) == (read_subtitles(beside, UTF_8), "")
    with pytest.raises(UserError, match=r"a.mkv has subtitles in de, en inside; give those of"):
        read_inside(video, with_subtitles(media, [german, english]))
    assert read_inside(video, media) == ([], "")
    translated = with_subtitles(media, [german], sound="eng")
    assert read_inside(video, translated) == ([], "not taken: in other languages alone")
    damaged = Track([(100, 800, b"\xff\xfe\xfd")] * 3, language="eng")
    broken = with_subtitles(media, [damaged])
    assert read_inside(video, broken) == ([], "not taken: cannot be read")
