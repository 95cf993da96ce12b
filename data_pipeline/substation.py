r"""SubStation subtitles, `.ass` and `.ssa` -> what is said in them.

A file has sections; of `[Events]` the `Dialogue:` lines are read, of comments nothing. Which column
is which its `Format:` line says; the text is the last one, and may have commas. Of the text `{...}`
is markup and goes, `\N` ends a line, `\h` and `\n` are blanks, and what stands between `{\p1}` and
`{\p0}` is drawn. Inside Matroska each packet is such a line without its times.

Left out is what nobody says: lines in a style or with an effect for signs, songs and credits, by
its name (`Signs`, `OP-Romaji`, `Karaoke`), and lines that are sung syllable by syllable (`\k`) or
move about (`\move`). A line that is there several times at once, in several layers, is taken once.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from data_pipeline.errors import UserError

_OF_ALL = ("style", "name", "marginl", "marginr", "marginv", "effect", "text")
COLUMNS: tuple[str, ...] = ("layer", "start", "end", *_OF_ALL)
"""Of a line, where no `Format:` says another order."""
IN_PACKETS = ("readorder", "layer", *_OF_ALL)
"""The same inside Matroska."""

_TIME = re.compile(r"(-?)(\d{1,4}):(\d{1,2}):(\d{1,2})(?:[.,:](\d{1,9}))?")
_MARKUP = re.compile(r"(\{[^}]*\})")
_DRAWING = re.compile(r"\\p(\d+)")
_NOT_SPOKEN = re.compile(r"\\(?:k[fo]?|K)\d|\\move\(")
_SIGNS = re.compile(
    r"(?<![^\W\d_])(?:signs?|karaoke|kara|romaji|kanji|lyrics?|songs?|credits?|titles?|opening"
    r"|ending|banner|scroll|(?-i:OP|ED))(?![^\W\d_])",
    re.IGNORECASE,
)
_NO_NAME = "NTP"
"""What old editors write where nobody is named."""


class Event(NamedTuple):
    """A line of dialogue.

    Attributes:
        begin_s, end_s: when it is shown, in seconds.
        text: without markup; "" if it is no speech.
        name: of the speaker, "" where unknown.
    """

    begin_s: float
    end_s: float
    text: str
    name: str


def parse_events(name: str, text: str) -> list[Event]:
    """What is said in a file, in its order.

    Raises:
        UserError: a line cannot be read; names the file and the line.
    """
    section, columns, events = "", COLUMNS, []
    for number, line in enumerate(text.split("\n"), start=1):
        kind, _, rest = line.partition(":")
        kind = kind.strip().lower()
        if kind.startswith("["):
            section = line.strip().lower()
        elif section == "[events]" and kind == "format":
            columns = _columns(f"{name}: line {number}", rest)
        elif section == "[events]" and kind == "dialogue":
            events.append(_event(f"{name}: line {number}", columns, rest))
    if text.strip() and "[events]" not in text.lower():
        raise UserError(f"{name}: line 1: it has no [Events], in which SubStation's lines are")
    return spoken_once(events)


def packet_event(where: str, begin_s: float, end_s: float, text: str) -> Event:
    """What is said in a packet inside Matroska.

    Raises:
        UserError: it has too few columns.
    """
    row = _row(where, IN_PACKETS, text)
    return Event(begin_s, end_s, _said(row), _speaker(row))


def spoken_once(events: Iterable[Event]) -> list[Event]:
    """Those with text, and of the same times and text the first alone."""
    first: dict[tuple[float, float, str], Event] = {}
    for event in events:
        if event.text:
            first.setdefault(event[:3], event)
    return [*first.values()]


def _columns(where: str, line: str) -> tuple[str, ...]:
    """What a `Format:` line says.

    Raises:
        UserError: without what every line must have.
    """
    columns = tuple(one.strip().lower() for one in line.split(","))
    if not {"start", "end"} <= {*columns} or columns[-1] != "text":
        raise UserError(f"{where}: Format should have Start and End, and Text as its last")
    return columns


def _row(where: str, columns: Sequence[str], line: str) -> dict[str, str]:
    values = line.split(",", len(columns) - 1)
    if len(values) < len(columns):
        raise UserError(f"{where}: {line.strip()[:60]!r} should have {len(columns)} columns")
    return dict(zip(columns, values, strict=True))


def _event(where: str, columns: Sequence[str], line: str) -> Event:
    row = _row(where, columns, line)
    begin_s, end_s = (_seconds(where, row[name]) for name in ("start", "end"))
    return Event(begin_s, end_s, _said(row), _speaker(row))


def _seconds(where: str, text: str) -> float:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UserError(f"{where}: {text.strip()[:60]!r} should be a time, as 0:00:01.50")
    sign, hours, minutes, seconds, decimals = match.groups()
    whole = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    time = round(whole + float(f"0.{decimals or 0}"), 6)
    return -time if sign else time


def _speaker(row: dict[str, str]) -> str:
    name = row.get("name", row.get("actor", "")).strip()
    return "" if name == _NO_NAME else name


def _said(row: dict[str, str]) -> str:
    """The text of a line without markup and drawings; "" of a sign or a song."""
    text = row["text"]
    kind = f"{row.get('style', '')},{row.get('effect', '')}"
    markup, plain, drawn = "", "", False
    closed = text.rfind("}") + 1  # behind it nothing is closed, and so not sought: it is plain
    for part in (*_MARKUP.split(text[:closed]), text[closed:]):
        if _MARKUP.fullmatch(part):
            markup += part
            drawn = next((level != "0" for level in _DRAWING.findall(part)[::-1]), drawn)
        elif not drawn:
            plain += part
    if _SIGNS.search(kind) or _NOT_SPOKEN.search(markup):
        return ""
    return plain.replace("\\N", "\n").replace("\\n", " ").replace("\\h", " ").strip()
