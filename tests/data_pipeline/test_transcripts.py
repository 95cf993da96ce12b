"""Transcripts: what is written is read, and what people really have is read, too."""

import html
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.clip import Word
from data_pipeline.errors import UserError
from data_pipeline.spoken import speech_of
from data_pipeline.transcripts import Cue, parse_transcript, read_words

WORDS = st.lists(
    st.text(st.characters(categories=["Lu", "Ll", "Lo", "Nd"]), min_size=1, max_size=9).filter(
        lambda word: not word.isdecimal()
    ),
    min_size=1,
    max_size=6,
)
MILLISECONDS = st.integers(0, 40_000_000)


@st.composite
def cues(draw: st.DrawFn) -> list[Cue]:
    """In no order, some of them at once; no two say the same."""
    found = []
    times = draw(st.lists(st.tuples(MILLISECONDS, st.integers(0, 9_999)), min_size=1))
    for number, (begin, length) in enumerate(times):
        text = " ".join([*draw(WORDS), f"no{number}"])
        found.append(Cue(begin / 1000, (begin + length) / 1000, text))
    return found


def clock(seconds: float, point: str, hours: bool) -> str:
    ms = round(seconds * 1000)
    minutes = f"{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"
    return f"{ms // 3_600_000:02}:{minutes}" if hours or ms >= 3_600_000 else minutes


def in_order(given: Sequence[Cue]) -> list[Cue]:
    return sorted(given, key=lambda cue: (cue.begin_s, cue.end_s))


@given(cues(), st.sampled_from(",."), st.booleans(), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_subtitles_that_are_written_are_read(
    given: list[Cue], point: str, hours: bool, numbers: bool, end: str
) -> None:
    times = [
        f"{clock(one.begin_s, point, hours)} --> {clock(one.end_s, point, hours)}" for one in given
    ]
    blocks = [f"{time}\n{one.text}\n" for time, one in zip(times, given, strict=True)]
    if numbers:
        blocks = [f"{number}\n{block}" for number, block in enumerate(blocks, start=1)]
    srt = "\ufeff" + "\n".join(blocks).replace("\n", end)
    assert parse_transcript("a.SRT", srt.encode()) == in_order(given)
    web = "WEBVTT - a title\nKind: captions\n\nNOTE\nno cue\n\n" + "\n".join(blocks)
    assert parse_transcript("a.vtt", web.replace("\n", end).encode()) == in_order(given)
    if numbers:
        crowded = "".join(blocks)
        assert parse_transcript("a.srt", crowded.encode()) == in_order(given)


@given(cues())
def test_tables_that_are_written_are_read(given: list[Cue]) -> None:
    seconds = "".join(f"{one.begin_s}\t{one.end_s}\t{one.text}\n" for one in given)
    found = parse_transcript("a.tsv", f"begin_s\tend_s\ttext\n{seconds}".encode())
    assert found == in_order(given)
    whisper = "".join(
        f"{round(one.begin_s * 1000)}\t{round(one.end_s * 1000)}\t{one.text}\n" for one in given
    )
    assert parse_transcript("a.tsv", f"start\tend\ttext\n{whisper}".encode()) == found


@given(cues(), st.booleans())
def test_json_that_is_written_is_read(given: list[Cue], plain: bool) -> None:
    names = ("begin_s", "end_s") if plain else ("start", "end")
    items = [
        {names[0]: one.begin_s, names[1]: one.end_s, "text": f" {one.text}", "id": 1}
        for one in given
    ]
    content = json.dumps(items if plain else {"text": "all", "segments": items})
    assert parse_transcript("a.json", content.encode()) == in_order(given)


NASTY_SRT = r"""

1
00:00:01,000 --> 00:00:02.5  X1:100 X2:200
<i>Hello</i>, {\an8}<font color="#fff">you</font>
2
0:00:05 --> 0:00:06,25
42
3
00:00:03, 100-->00:00:04, 2
- Who's there?
- Me, I <3 you.\NReally.

4
00:00:07,000 --> 00:00:08,000
[door
slams]

5
00:00:08,000 --> 00:00:09,000
(LAUGHS) I know (she sighs (loudly)).

6
00:00:09,000 --> 00:00:10,000
♪ La la la ♪

00:00:11,000 --> 00:00:10,000
[Ann]: backwards

still hers
99999
00:00:00,500 --> 00:00:09,500
-5 degrees
"""


def test_a_nasty_srt_file() -> None:
    found = parse_transcript("a.srt", NASTY_SRT.encode())
    assert found == [
        Cue(0.5, 9.5, "-5 degrees"),
        Cue(1.0, 2.5, "Hello, you"),
        Cue(3.1, 4.2, "Who's there? Me, I <3 you. Really."),
        Cue(5.0, 6.25, "42"),
        Cue(8.0, 9.0, "I know ."),
        Cue(11.0, 10.0, "backwards still hers"),
    ]


NASTY_VTT = """WEBVTT
Kind: captions
X-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:900000

STYLE
::cue { color: red }

REGION
id:fred

NOTE Bob, what about this?
1
2

intro
00:01.000 --> 00:02.000 align:start position:0%
<v.loud Ann Lee>Tom &amp; <c.yellow>Jerry</c> &lt;3</v>

NOTE
not said

01:00:02.000 --> 01:00:03.000
<v Ann>Yes.</v>
<v Bob>No.</v>
identifier
00:03.000 --> 00:04.000
<00:00:03.100><c> so</c><00:00:03.500><c> it</c>

00:05.000 --> 00:06.000

00:06.000 --> 00:07.000
[Music]
"""


def test_a_nasty_vtt_file() -> None:
    assert parse_transcript("a.vtt", NASTY_VTT.encode("utf-16")) == [
        Cue(1.0, 2.0, "Tom & Jerry <3", "Ann Lee"),
        Cue(3.0, 4.0, "so it", words=(Word("so", 3.1, 3.5), Word("it", 3.5, 4.0))),
        Cue(3602.0, 3603.0, "Yes. No. identifier"),
    ]


ROLLING_VTT = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:02.389 align:start position:0%
\x20
hello<00:00:00.480><c> it&#39;s</c><00:00:00.900><c> today</c>

00:00:02.389 --> 00:00:02.399 align:start position:0%
hello it&#39;s today
\x20

00:00:02.399 --> 00:00:04.510 align:start position:0%
hello it&#39;s today
&gt;&gt; we<00:00:02.560><c> will</c><00:00:02.800><c> [Music]</c><00:00:03.000><c> talk</c>

00:00:04.510 --> 00:00:04.520 align:start position:0%
&gt;&gt; we will [Music] talk
\x20

00:00:04.520 --> 00:00:06.000 align:start position:0%
&gt;&gt; we will [Music] talk
yeah

00:00:06.000 --> 00:00:06.010 align:start position:0%
yeah
\x20

00:00:06.010 --> 00:00:07.000 align:start position:0%
yeah
yeah

00:00:07.000 --> 00:00:07.010 align:start position:0%
yeah
\x20

00:00:07.010 --> 00:00:11.000 align:start position:0%
yeah
\x20

00:00:11.000 --> 00:00:11.010 align:start position:0%
yeah
\x20

00:00:11.010 --> 00:00:12.000 align:start position:0%
\x20
yeah

00:00:12.000 --> 00:00:12.010 align:start position:0%
yeah
\x20

00:00:20.000 --> 00:00:21.000 align:start position:0%
yeah

"""


def test_automatic_captions_that_roll_say_each_line_once_with_the_times_of_its_words() -> None:
    hello = (Word("hello", 0.16, 0.48), Word("it's", 0.48, 0.9), Word("today", 0.9, 2.389))
    talk = (Word("we", 2.399, 2.56), Word("will", 2.56, 2.8), Word("talk", 3.0, 4.51))
    found = [
        Cue(0.16, 2.389, "hello it's today", words=hello),
        Cue(2.399, 4.51, "we will talk", words=talk),
        Cue(4.52, 6.0, "yeah"),
        Cue(6.01, 7.0, "yeah"),
        Cue(11.01, 12.0, "yeah"),
        Cue(20.0, 21.0, "yeah"),
    ]
    assert parse_transcript("a.vtt", ROLLING_VTT.encode()) == found
    times = ROLLING_VTT.replace(".", ",").replace(" align:start position:0%", "")
    converted = re.sub("<[^>]*>", "", html.unescape(times.partition("\n\n")[2]))
    untimed = [replace(cue, words=()) for cue in found]
    assert parse_transcript("a.srt", converted.encode()) == untimed


@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_cues_that_happen_to_say_the_same_are_all_kept(suffix: str) -> None:
    blocks = [
        "00:01.000 --> 00:02.000\nNo.\n",
        "00:02.000 --> 00:03.000\nNo.\n",
        "00:03.000 --> 00:04.000\nNo.\nI said no.\n",
        "00:04.000 --> 00:05.000\nI said no.\nNo!\n",
        "00:05.000 --> 00:05.010\nWhat?\n",
        "00:05.010 --> 00:06.000\nWhat?\n",
        "00:06.000 --> 00:07.000\nYes.\n",
        "00:08.000 --> 00:08.000\nYes.\n",
        "00:08.000 --> 00:08.000\nYes.\n",
    ]
    head = "WEBVTT\n\n" if suffix == ".vtt" else ""
    texts = [
        cue.text for cue in parse_transcript(f"a{suffix}", (head + "\n".join(blocks)).encode())
    ]
    assert texts == [
        "No.",
        "No.",
        "No. I said no.",
        "I said no. No!",
        "What?",
        "What?",
        *["Yes."] * 3,
    ]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("so<00:01.500> it goes", ()),
        ("so<00:01.500> it<00:01.200> goes", ()),
        ("so<00:01.500> it<00:02.500> goes", ()),
        ("(so<00:01.500> what) it<00:01.600> goes", ()),
        ("JOHN:<00:01.500> goes", (Word("goes", 1.5, 2.0),)),
        ("so<00:01.500> *laughs*<00:01.600> goes", (Word("so", 1.0, 1.5), Word("goes", 1.6, 2.0))),
        ("so<00:01.500> -<00:01.600> goes", (Word("so", 1.0, 1.5), Word("goes", 1.6, 2.0))),
    ],
)
def test_all_words_of_a_caption_have_times_or_none(said: str, words: tuple[Word, ...]) -> None:
    (cue,) = parse_transcript("a.vtt", f"WEBVTT\n\n00:01.000 --> 00:02.000\n{said}\n".encode())
    assert cue.words == words


def srt(text: str) -> str:
    return f"1\r\n00:00:01,000 --> 00:00:02,000\r\n{text}\r\n"


SPOKEN = {
    "cp949": "그래, 똠방각하 펲시콜라",
    "cp1252": "Don’t! “Hello”, Müller, ça va",
    "cp1251": "Привет, как дела?",
    "gbk": "你好，我们今天讨论这个问题",
    "Shift_JIS": "こんにちは、元気ですか",
    "iso2022_jp": "こんにちは、元気ですか",
    "utf-16-le": "Hello.",
}


@pytest.mark.parametrize("encoding", SPOKEN)
def test_other_encodings_are_read_if_they_are_named_and_else_refused(encoding: str) -> None:
    text = SPOKEN[encoding]
    content = srt(text).encode(encoding)
    (cue,) = parse_transcript("a.srt", content, encoding)
    assert cue.text == text
    for form in ("utf-8", "utf-8-sig", "utf-16"):
        (cue,) = parse_transcript("a.srt", srt(text).encode(form), encoding)
        assert cue.text == text
    (cue,) = parse_transcript("a.srt", srt("Hello.").encode(), encoding)
    assert cue.text == "Hello."
    line = 1 if encoding == "utf-16-le" else 3
    with pytest.raises(
        UserError, match=rf"a\.srt: line {line} is not in utf-8; say with --encoding"
    ):
        parse_transcript("a.srt", content)


def test_a_file_that_is_not_in_the_encoding_that_is_named_is_refused() -> None:
    with pytest.raises(UserError, match=r"a\.srt: line 3 is not in gbk; say with --encoding"):
        parse_transcript("a.srt", srt("ça va ÿ").encode("cp1252"), "gbk")
    with pytest.raises(UserError, match=r"a\.vtt: line 1 is not in cp1251"):
        parse_transcript("a.vtt", "WEBVTT\n안녕".encode("utf-16-le"), "cp1251")
    with pytest.raises(UserError, match="half of a surrogate"):
        parse_transcript("a.vtt", b"WEBVTT\n\\ud800\xff", "unicode_escape")
    with pytest.raises(UserError, match="is not in idna"):
        parse_transcript("a.vtt", b"WEBVTT\n\xff", "idna")


def test_words_and_speakers_are_read_where_they_are_known() -> None:
    words = [
        {"word": " So", "start": 1.1, "end": 1.3, "probability": 0.9},
        {"word": "2", "probability": 0.1},
        {"text": "it", "start": 1.4, "end": 1.5},
    ]
    whisper = [{"start": 1, "end": 2.0, "text": " So 2 it", "words": words, "speaker": " S1 "}]
    (cue,) = parse_transcript("a.json", json.dumps({"segments": whisper}).encode())
    assert (cue.begin_s, cue.end_s, cue.speaker) == (1.0, 2.0, "S1")
    assert cue.words == (Word("So", 1.1, 1.3), Word("it", 1.4, 1.5))
    line = '1\t2\tit goes\tAnn\t[["it", 1.1, 1.2], ["goes", 1.2, 1.9]]\n'
    table = f"begin_s\tend_s\ttext\tspeaker\twords\n{line}3\t4\tno\t\t\n"
    first, second = parse_transcript("a.tsv", table.encode())
    assert (first.speaker, second.speaker, second.words) == ("Ann", "", ())
    assert first.words == (Word("it", 1.1, 1.2), Word("goes", 1.2, 1.9))
    assert read_words("here", "") == ()


def test_hugging_faces_chunks_are_read() -> None:
    chunks = [
        {"timestamp": [None, 2.5], "text": " So it"},
        {"timestamp": [2.5, 4.0], "text": " goes."},
        {"timestamp": [29.5, None], "text": " And"},
    ]
    found = parse_transcript("a.json", json.dumps({"text": "So", "chunks": chunks}).encode())
    spans = [(0.0, 2.5), (2.5, 4.0), (29.5, 59.5)]
    assert [(one.begin_s, one.end_s) for one in found] == spans


def test_a_cue_with_an_open_time_has_that_of_the_one_beside_it() -> None:
    times = [(9, "null"), (1, "NaN"), (3, 4), ("null", 5), (100, "null"), (100, 101), (200, 202)]
    items = [f'{{"start": {begin}, "end": {end}, "text": "a"}}' for begin, end in times]
    found = parse_transcript("a.json", f'{{"segments": [{", ".join(items)}]}}'.encode())
    assert [(one.begin_s, one.end_s) for one in found] == [
        (1, 3),
        (3, 4),
        (4, 5),
        (9, 39),
        (100, 101),
        (100, 130),
        (200, 202),
    ]


def test_words_with_an_open_time_are_left_out() -> None:
    words = '[{"word": "1", "start": 1, "end": null}, ["2", NaN, NaN], ["so", 1.5, 2]]'
    item = f'[{{"start": 1, "end": 2, "text": "1 2 so", "words": {words}}}]'
    (cue,) = parse_transcript("a.json", item.encode())
    assert cue.words == (Word("so", 1.5, 2),)


BEFORE: dict[str, str] = {
    "a.srt": "1\n-00:00:00,020 --> 00:00:01,500\nhello\n",
    "a.vtt": "WEBVTT\n\n-00:00.020 --> 00:01.500\nhello\n",
    "a.tsv": "start\tend\ttext\n-20\t1500\thello\n",
    "b.tsv": "begin_s\tend_s\ttext\n-0.02\t1.5\thello\n",
    "a.json": '[{"start": -0.02, "end": 1.5, "text": "hello"}]',
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_cue_that_begins_before_its_file_is_read_in_every_form(name: str) -> None:
    assert parse_transcript(name, BEFORE[name].encode()) == [Cue(-0.02, 1.5, "hello")]


SILENT: dict[str, str] = {
    "a.srt": "",
    "b.srt": "1\n00:01,000 --> 00:02,000\n[Music]\n",
    "a.vtt": "WEBVTT\n\n",
    "a.tsv": "start\tend\ttext\n",
    "a.json": '{"text": "", "segments": [], "language": "en"}',
}


@pytest.mark.parametrize("name", SILENT)
def test_a_transcriber_may_have_heard_nothing(name: str) -> None:
    assert parse_transcript(name, SILENT[name].encode()) == []


ERRORS: dict[str, tuple[str, bytes, str]] = {
    "no times": ("a.srt", b"Hello\nyou\n", r"a\.srt: line 1: no line has two times"),
    "times": ("a.srt", b"1\n00:00:xx,0 --> 00:00:02,0\nx\n", r"line 2: '00:00:xx,0 --> 00:00:0"),
    "arrow": (
        "a.srt",
        b"1\n00:00:01,000 --> 00:00:02,000\nyes\n2\n00:00:02,000 -> 00:00:03,000\nno\n",
        r"a\.srt: line 5: '00:00:02,000 -> 00:00:03,000' should be two times, 00:00:01,000 -->",
    ),
    "no cue": ("a.vtt", b"Hello\nyou\n", r"a\.vtt: line 1: no line has two times"),
    "letters": ("a.srt", b"1\n\n\x81\x8d\x90\n", "line 3 is not in utf-8; say with --encoding"),
    "damaged UTF-8": ("a.vtt", "WEBVTT\n안녕\n하세".encode()[:-1], "line 3 is not in utf-8"),
    "odd UTF-16": ("a.vtt", b"\xff\xfea\x00b", "line 1 is not in utf-16"),
    "no column": ("a.tsv", b"begin_s\ttext\n1\tb\n", r"a\.tsv has no column 'end_s'"),
    "no time": ("a.tsv", b"start\tend\ttext\n1\tsoon\tb\n", "line 2: 'soon' is no time"),
    "long": ("a.tsv", b"start\tend\ttext\n1\t2\t" + b"a" * 200_000, r"line 2 of a\.tsv"),
    "columns": ("a.tsv", b"start\tend\ttext\n1\t2\n", "has not as many columns as line 1"),
    "words": ("a.tsv", b"start\tend\ttext\twords\n1\t2\tb\tb:1-2\n", "line 2: words should be as"),
    "negative": ("a.srt", b"1\n-00:00:xx,0 --> 00:00:02,0\nx\n", r"line 2: '-00:00:xx,0 --> 00"),
    "seconds": ("a.tsv", b"start\tend\ttext\n0\t2.5\tb\n", "line 2: '2.5' in start or end, which"),
    "floats": ("a.tsv", b"start\tend\ttext\n500.0\t2e3\tb\n", "call columns in seconds begin_s an"),
    "no number": ("a.json", b'[{"text": "a", "start": 1e999, "end": 2}]', "cue 1: inf is no ti"),
    "no end": ("a.json", b'[{"text": "a", "start": 1}]', "cue 1 should be an object with begin_s"),
    "pair": ("a.json", b'[{"text": "a", "timestamp": [1]}]', "cue 1 should be an object with beg"),
    "open": (
        "a.json",
        b'[{"text": "a", "start": 1, "end": null}, {"text": "b", "start": null, "end": 2}]',
        r"a\.json: cue 2 has no begin, and the one before it no end",
    ),
    "no JSON": ("a.json", b"[\n1,", r"a\.json: line 2: .*; it should be JSON"),
    "deep JSON": ("a.json", b"[" * 100_000, "it should be JSON"),
    "no list": ("a.json", b'{"segment": []}', "it should be a list of cues"),
    "no text": ("a.json", b'[{"start": 1, "end": 2}]', "cue 1 should be an object with begin_s"),
    "no word": ("a.json", b'[{"text":"a","start":1,"end":2,"words":[["b",1]]}]', "should be a wor"),
    "half": ("a.json", b'[{"text": "\\ud800", "start": 1, "end": 2}]', "half of a surrogate"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_read_is_said_with_file_and_line(name: str) -> None:
    file, content, message = ERRORS[name]
    with pytest.raises(UserError, match=message) as caught:
        parse_transcript(file, content)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.sampled_from([".srt", ".vtt", ".json", ".tsv"]),
    st.text(st.sampled_from('0123456789:,.-> \n\t[]()<>{}\\♪가"uend_sbgtxart')),
)
def test_any_text_is_cues_or_an_error_in_one_line(suffix: str, text: str) -> None:
    with suppress(UserError):
        assert all(speech_of(cue.text) for cue in parse_transcript(f"a{suffix}", text.encode()))
