"""SubStation files: which lines are speech, and that they say what SubRip says."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import UserError
from data_pipeline.spoken import speech_of
from data_pipeline.transcripts import Cue, parse_transcript

HEAD = """[Script Info]
; Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,a comment
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname
Style: Default,Arial

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def line(text: str, style: str = "Default", effect: str = "", layer: int = 0) -> str:
    return f"Dialogue: {layer},0:00:01.00,0:00:02.50,{style},,0,0,0,{effect},{text}\n"


def texts(*lines: str) -> list[str]:
    return [cue.text for cue in parse_transcript("a.ass", (HEAD + "".join(lines)).encode())]


LINES = st.lists(st.text("abc한é,;:'?! ", min_size=1, max_size=9).filter(str.strip), min_size=1)
CUES = st.lists(st.tuples(st.integers(0, 4_000_000), st.integers(0, 6_000), LINES), min_size=1)


@given(CUES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_substation_says_what_subrip_says(
    cues: list[tuple[int, int, list[str]]], end: str, marked: bool
) -> None:
    def clock(at: int, point: str, decimals: str) -> str:
        return f"{at // 360_000}:{at // 6000 % 60:02}:{at // 100 % 60:02}{point}{decimals}"

    srt, ass = "", HEAD
    for number, (begin, length, lines) in enumerate(cues):
        said = [*lines, f"no {number} x"]  # without it, two may be one line in two layers
        a, b = begin, begin + length
        times = [clock(at, ",", f"{at % 100:02}0") for at in (a, b)]
        srt += f"{number}\n{times[0]} --> {times[1]}\n" + "\n".join(said) + "\n\n"
        times = [clock(at, ".", f"{at % 100:02}") for at in (a, b)]
        first = "Marked=0" if marked else "0"
        text = "{\\an8\\i1}" + "\\N".join(said) + "{\\i0}"
        ass += f"Dialogue: {first},{times[0]},{times[1]},Default,,0000,0000,0000,,{text}\n"
    wanted = parse_transcript("a.srt", srt.encode())
    name = "a.ssa" if marked else "a.ASS"
    assert parse_transcript(name, ass.replace("\n", end).encode("utf-8-sig")) == wanted


def test_columns_stand_as_the_format_says_and_lines_come_by_time() -> None:
    content = (
        "[Events]\nFormat: Start,End , Actor, Text\n"
        "Dialogue: 0:00:03.5,1:00:04,Ann,Well, yes\n"
        "Comment: 0:00:01.00,0:00:02.00,Ann,Nobody says this\n"
        "Dialogue: -0:00:00.02,0:00:02.00,NTP,So\n"
        "[Fonts]\nDialogue: 0:00:00.00,0:00:02.00,,no\n"
    )
    assert parse_transcript("a.ass", content.encode()) == [
        Cue(-0.02, 2.0, "So"),
        Cue(3.5, 3604.0, "Well, yes", "Ann"),
    ]
    assert parse_transcript("a.ass", b"") == []


def test_what_nobody_says_is_left_out() -> None:
    assert texts(line("{\\p1}m 0 0 l 9 9{\\p0}")) == []
    assert texts(line("{\\p1}m 0 0{\\p0\\pos(1,2)}so{\\p4}m 1 1")) == ["so"]
    assert texts(line("{a note}We{\\i1} do{\\i0}\\hso\\nmuch,\\Nyes")) == ["We do so much, yes"]
    for tags in ("\\k20", "\\K9", "\\kf5", "\\ko5", "\\move(1,2,3,4)"):
        assert texts(line(f"{{{tags}}}la {{\\fs9}}la")) == []
    for style in (
        "Signs",
        "sign_top",
        "OP",
        "ED2",
        "OP-Romaji",
        "Insert Song",
        "*Karaoke",
        "Title",
    ):
        assert texts(line("x", style)) == []
    for style in ("Default", "Ed", "Main - Top", "Signora", "Operator", "Italics", "Alternate"):
        assert texts(line("x", style)) == ["x"]
    assert texts(line("x", effect="Karaoke")) == texts(line("x", effect="Scroll up;1;2;3")) == []
    assert texts(line("[door]"), line("JOHN: Hi"), line("♪ la ♪")) == ["Hi"]


def test_what_is_never_closed_is_plain_and_takes_no_time() -> None:
    assert texts(line("{\\i1}So {on")) == ["So {on"]
    assert texts(line("so" + "{" * 1_000_000)) == ["so" + "{" * 1_000_000]  # squared, hours


def test_lines_in_several_layers_are_taken_once() -> None:
    layers = [line("{\\bord3}So", layer=1), line("{\\blur2}So", layer=0), line("No")]
    later = line("So").replace("0:00:02.50", "0:00:02.60")
    assert texts(*layers, later) == ["So", "No", "So"]


ERRORS = {
    "time": (
        HEAD + "Dialogue: 0,0:00:01,5 s,D,,0,0,0,,x",
        "a.ass: line 11: '5 s' should be a time",
    ),
    "short": (HEAD + "Dialogue: 0,0:00:01.00,so", r"a.ass: line 11: .* should have 10 columns"),
    "format": (
        "[Events]\nFormat: Start, Text\n",
        "a.ass: line 2: Format should have Start and End",
    ),
    "last": ("[Events]\nFormat: Start, Text, End\n", "and Text as its last"),
    "srt": ("1\n00:00:01,000 --> 00:00:02,500\nHello.\n", r"a.ass: line 1: it has no \[Events\]"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_read_is_said_with_file_and_line(name: str) -> None:
    content, message = ERRORS[name]
    with pytest.raises(UserError, match=message) as caught:
        parse_transcript("a.ass", content.encode())
    assert "\n" not in str(caught.value)


@given(st.text(st.sampled_from("0123456789:.,\n{}\\pkN[]DFialogue Etvnsrmx")))
def test_any_text_is_cues_or_an_error(text: str) -> None:
    for content in (text, f"[Events]\n{text}", f"[Events]\nDialogue: {text}"):
        with suppress(UserError):
            found = parse_transcript("a.ssa", content.encode())
            assert all(speech_of(cue.text) for cue in found)
