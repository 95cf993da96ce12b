"""Transcripts with times -> cues: SubRip, WebVTT, TSV, JSON and SubStation, as they come.

Subtitles: what stands between one line of times and the next (in WebVTT, or the next empty line) is
the cue's text; hours may be missing, decimals follow a comma or a dot, numbers and blank lines
between cues may be missing. Times between the words, as `<00:00:01.500>`, are theirs: a word ends
where the next one begins, the last with its cue. Where lines roll, as in YouTube's automatic
captions (a cue shows the line before above its own, and between two one of 10 ms holds it), each
line is taken once.

TSV: a header with `text` and `begin_s`, `end_s` in seconds, or `start`, `end` in whole
milliseconds, as Whisper writes them; `speaker` and `words` if known.

JSON: a list of objects, or an object with such a list as `segments`, `cues` or `chunks`, each with
`text`, `begin_s` or `start`, `end_s` or `end` in seconds (or both as `timestamp`), and `speaker`
and `words` if known, as Whisper, WhisperX and Hugging Face's pipelines write them. Words are
`[word, begin, end]`, or objects with `word` (or `text`), `start` and `end`; those without times
are left out. A time that a transcriber has not found is null or NaN: such a cue begins where the
one before ends, and ends where the next one begins, after `LONGEST_HEARD_S` at most.

SubStation, `.ass` and `.ssa`: see `substation.py`.

What is no speech is left out (`spoken.py`): markup, [music], lines with a ♪, names of who speaks,
credits, and cues in which nothing is left. Cues may overlap, have no length or begin before 0; they
come sorted by time.
"""

import html
import json
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import PurePosixPath
from typing import NamedTuple

from data_pipeline.clip import Word
from data_pipeline.corpora.source import parse_table
from data_pipeline.encoding import UTF_8, checked_text, decode_text
from data_pipeline.errors import UserError
from data_pipeline.spoken import speech_of
from data_pipeline.substation import parse_events

SHORTEST_S = 0.02
"""Of a cue with speech: half of a frame of video, a third of a row of speech features."""
LONGEST_HEARD_S = 30.0
"""What Whisper hears at a time; no segment of it is longer."""


@dataclass(frozen=True)
class Cue:
    """What is said in a part of a recording.

    Attributes:
        begin_s, end_s: where it is, in seconds.
        text: what is said.
        speaker: who says it, "" where unknown.
        words: with their times in the recording, empty where unknown.
    """

    begin_s: float
    end_s: float
    text: str
    speaker: str = ""
    words: tuple[Word, ...] = ()


def is_short(begin_s: float, end_s: float) -> bool:
    """Whether nothing can be said from here to there."""
    return round(end_s - begin_s, 6) < SHORTEST_S


def parse_transcript(name: str, content: bytes, encoding: str = UTF_8) -> list[Cue]:
    """The cues of a transcript, by time.

    Args:
        name: of the file; its suffix, one of `PARSERS`, says what it is.
        content: of the file.
        encoding: see `decode_text`.

    Returns:
        Those with speech; of a recording in which a transcriber has heard none, nothing.

    Raises:
        UserError: it cannot be read; names the file and the line.
    """
    cues = PARSERS[PurePosixPath(name).suffix.lower()](name, decode_text(name, content, encoding))
    return with_speech(cues)


def with_speech(cues: Iterable[Cue]) -> list[Cue]:
    """The cues with what is speech of their texts, by time; without those in which nothing is."""
    heard = [replace(cue, text=text) for cue in cues if (text := speech_of(cue.text))]
    return sorted(heard, key=lambda cue: (cue.begin_s, cue.end_s))


_TIME = r"(-?)(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[,.] ?(\d{1,9}))?"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?![\d:])")
_BROKEN_TIMES = re.compile(r"\s*-?\d+:.*(?:[-=–—]>|→)")
"""Begins as a time and has an arrow, be it another one."""
_EXAMPLE = "00:00:01,000 --> 00:00:02,500"
_WORD_TIME = re.compile(r"<(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})\.(\d{1,9})>")
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s([^<>]*)>")


def parse_subtitles(name: str, text: str) -> list[Cue]:
    """The cues of a SubRip or WebVTT file, in its order; some without speech.

    Raises:
        UserError: a line with times cannot be read, or there is text and none.
    """
    lines = text.split("\n")
    headed = text.lstrip().startswith("WEBVTT")
    web = headed or name.lower().endswith(".vtt")
    starts = [at for at, line in enumerate(lines) if _times(name, at + 1, line)]
    if not starts and text.strip() and not headed:
        raise UserError(f"{name}: line 1: no line has two times, {_EXAMPLE}")
    blocks = []
    for at, following in pairwise([*starts, len(lines)]):
        match = _TIMES.match(lines[at])
        assert match is not None, "see starts"
        shown = _text_lines(lines[at + 1 : following], web, following < len(lines))
        times = _seconds(*match.groups()[:5]), _seconds(*match.groups()[5:])
        blocks.append(Block(*times, shown))
    return block_cues(blocks, web)


class Block(NamedTuple):
    """A cue as it stands in a file of subtitles."""

    begin_s: float
    end_s: float
    lines: list[str]


def block_cues(blocks: Sequence[Block], web: bool) -> list[Cue]:
    """The cues of SubRip, or of WebVTT, in their order; some without speech."""
    return [_subtitle(block, web) for block in _unrolled(blocks)]


def _subtitle(block: Block, web: bool) -> Cue:
    said = "\n".join(block.lines)
    voices = {" ".join(voice.split()) for voice in _VOICE.findall(said)}
    return Cue(
        block.begin_s,
        block.end_s,
        _plain(said, web),
        html.unescape(voices.pop()) if len(voices) == 1 else "",
        _timed_words(block, web),
    )


def _unrolled(blocks: Sequence[Block]) -> Iterator[Block]:
    """Each line once, where lines roll.

    That they do is seen by cues too short for speech that say the line before again; of other cues
    that say the same all are kept.
    """
    before, held = Block(-math.inf, -math.inf, []), list[str]()
    for block in blocks:
        own = block
        if held and _follows(block, before) and _shown(block.lines[: len(held)]) == held:
            own = block._replace(lines=block.lines[len(held) :])
        if _holds(block, before):
            held = _shown(block.lines)
        elif _shown(own.lines) or not held:
            held = []
            yield own
        before = block


def _holds(block: Block, before: Block) -> bool:
    """Whether a cue does nothing but to leave the line before where it is for a moment."""
    said = _shown(block.lines)
    short = is_short(block.begin_s, block.end_s) and not is_short(before.begin_s, before.end_s)
    again = bool(said) and _shown(before.lines)[-len(said) :] == said
    return short and again and _follows(block, before)


def _follows(block: Block, before: Block) -> bool:
    return is_short(before.end_s, block.begin_s) and is_short(block.begin_s, before.end_s)


def _shown(lines: Sequence[str]) -> list[str]:
    """What can be seen of some lines; without the empty ones."""
    plain = (" ".join(_plain(line, web=True).split()) for line in lines)
    return [line for line in plain if line]


def _timed_words(block: Block, web: bool) -> tuple[Word, ...]:
    """The words with the times that stand between them; of all of them, or none."""
    said = "\n".join(block.lines)
    marks = list(_WORD_TIME.finditer(said))
    begins = [block.begin_s, *(_seconds("", *mark.groups()) for mark in marks), block.end_s]
    cuts = [0, *(at for mark in marks for at in mark.span()), len(said)]
    parts = [
        _spoken_words(_plain(said[a:b], web)) for a, b in zip(cuts[::2], cuts[1::2], strict=True)
    ]
    spoken = _spoken_words(_plain(said, web))
    apart = all(len(words) <= 1 for words in parts) and [*chain.from_iterable(parts)] == spoken
    if not marks or not apart or begins != sorted(begins):
        return ()
    return tuple(
        Word(word, *span)
        for words, span in zip(parts, pairwise(begins), strict=True)
        for word in words
    )


def _spoken_words(text: str) -> list[str]:
    return [word for word in speech_of(text).split() if any(map(str.isalnum, word))]


def _times(name: str, number: int, line: str) -> bool:
    """Whether this is a line of times.

    Raises:
        UserError: it should be one.
    """
    if _TIMES.match(line):
        return True
    if _BROKEN_TIMES.match(line):
        raise UserError(
            f"{name}: line {number}: {line.strip()[:60]!r} should be two times, {_EXAMPLE}"
        )
    return False


def _text_lines(lines: Sequence[str], web: bool, followed: bool) -> list[str]:
    """The lines of a cue's text; the number of the next cue is not one of them."""
    kept = list(lines)
    if followed and kept and kept[-1].strip().isdecimal():
        kept.pop()
    if web:
        empty = next((at for at, line in enumerate(kept) if not line), len(kept))
        kept = kept[:empty]
    return kept


def _seconds(sign: str, *parts: str | None) -> float:
    hours, minutes, seconds, decimals = (part or "0" for part in parts)
    whole = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    time = round(whole + float(f"0.{decimals}"), 6)
    return -time if sign else time


_MARKUP = re.compile(r"</?[A-Za-z][^<>\n]*>|<\d[\d:.]*>|\{\\[^{}\n]*\}|\\[Nh]")


_SPACES = {"\\N": "\n", "\\h": " "}


def _plain(text: str, web: bool) -> str:
    """Without tags and, of WebVTT, escapes, as they stand in subtitles."""
    bare = _MARKUP.sub(lambda match: _SPACES.get(match[0], ""), text)
    return html.unescape(bare) if web else bare


def parse_substation(name: str, text: str) -> list[Cue]:
    """The cues of a SubStation file, in its order.

    Raises:
        UserError: a line cannot be read.
    """
    return [Cue(*event) for event in parse_events(name, text)]


def parse_tsv(name: str, text: str) -> list[Cue]:
    """The cues of a TSV file, in its order.

    Raises:
        UserError: a column is missing or a cell cannot be read.
    """
    whisper = "start" in text.partition("\n")[0].split("\t")
    begin, end = ("start", "end") if whisper else ("begin_s", "end_s")
    read_time = _read_milliseconds if whisper else read_seconds
    cues = []
    rows = parse_table(text, name, "transcript", ("text", begin, end))
    for number, row in enumerate(rows, start=2):
        where = f"{name}: line {number}"
        cues.append(
            Cue(
                read_time(where, row[begin]),
                read_time(where, row[end]),
                row["text"],
                row.get("speaker", "").strip(),
                read_words(where, row.get("words", "")),
            )
        )
    return cues


LISTS = ("segments", "cues", "chunks")
"""What an object calls its list of cues."""


def parse_json(name: str, text: str) -> list[Cue]:
    """The cues of a JSON file, in its order.

    Raises:
        UserError: it is not JSON, or a value cannot be read.
    """
    content = load_json(name, text)
    if isinstance(content, dict):
        content = next((content[one] for one in LISTS if one in content), None)
    if not isinstance(content, list):
        raise UserError(f"{name}: it should be a list of cues, or have one as 'segments'")
    cues = [_cue(f"{name}: cue {number}", item) for number, item in enumerate(content, start=1)]
    return _closed(name, cues)


def load_json(name: str, text: str) -> object:
    """What a JSON file holds.

    Raises:
        UserError: it is not JSON; names the line.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{name}: line {error.lineno}: {error.msg}; it should be JSON") from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"{name}: {error}; it should be JSON") from None


def _cue(where: str, item: object) -> Cue:
    """One cue of a JSON file; a time that is open is NaN."""
    if (
        not isinstance(item, dict)
        or not isinstance(item.get("text"), str)
        or (times := _times_of(item)) is None
    ):
        raise UserError(f"{where} should be an object with begin_s, end_s and text")
    speaker = item.get("speaker")
    begin_s, end_s = (math.nan if _is_open(one) else read_seconds(where, one) for one in times)
    return Cue(
        begin_s,
        end_s,
        checked_text(where, item["text"]),
        "" if speaker is None else checked_text(where, str(speaker)).strip(),
        _words(where, item.get("words") or []),
    )


def _times_of(item: Mapping[str, object]) -> Sequence[object] | None:
    """Begin and end, whatever they are; None if it has not both."""
    begins = [item[name] for name in ("begin_s", "start") if name in item]
    ends = [item[name] for name in ("end_s", "end") if name in item]
    times = item.get("timestamp", [*begins[:1], *ends[:1]])
    return times if isinstance(times, list) and len(times) == 2 else None


def _is_open(time: object) -> bool:
    """Whether a transcriber has written down that it has not found a time."""
    return time is None or (isinstance(time, float) and math.isnan(time))


def _closed(name: str, cues: Sequence[Cue]) -> list[Cue]:
    """The cues with times in the place of those that are open.

    Raises:
        UserError: of two that follow one another, neither says where the other begins.
    """
    begins, before_s = list[float](), 0.0
    for number, cue in enumerate(cues, start=1):
        begins.append(before_s if _is_open(cue.begin_s) else cue.begin_s)
        if _is_open(begins[-1]):
            raise UserError(f"{name}: cue {number} has no begin, and the one before it no end")
        before_s = cue.end_s
    later = [*sorted(begins), math.inf]
    return [
        replace(cue, begin_s=begin_s, end_s=_end(cue, begin_s, later))
        for cue, begin_s in zip(cues, begins, strict=True)
    ]


def _end(cue: Cue, begin_s: float, begins: Sequence[float]) -> float:
    """Its own end, else where the next one begins of those that begin, sorted, at these times."""
    if not _is_open(cue.end_s):
        return cue.end_s
    return min(begins[bisect_right(begins, begin_s)], begin_s + LONGEST_HEARD_S)


def read_seconds(where: str, value: object) -> float:
    """A time: a number, or its text. One before 0 is a flaw of its cue alone, so it is read.

    Raises:
        UserError: it is none.
    """
    try:
        seconds = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UserError(f"{where}: {value!r:.60} is no time; it should be a number of seconds")
    return seconds


def _read_milliseconds(where: str, value: str) -> float:
    """A time in seconds, of the whole milliseconds that Whisper writes.

    Raises:
        UserError: it is none; or has decimals, and may as well be in seconds.
    """
    time = read_seconds(where, value)
    if not value.strip().removeprefix("-").isdecimal():
        raise UserError(
            f"{where}: {value!r:.60} in start or end, which are whole milliseconds; call columns "
            "in seconds begin_s and end_s"
        )
    return time / 1000


def read_words(where: str, text: str) -> tuple[Word, ...]:
    """Words and their times in a table's cell, in JSON; none of an empty one.

    Raises:
        UserError: they cannot be read.
    """
    try:
        return _words(where, json.loads(text or "[]"))
    except (ValueError, RecursionError):
        raise UserError(f'{where}: words should be as [["so", 0.1, 0.35], ...], in JSON') from None


def _words(where: str, items: object) -> tuple[Word, ...]:
    """Words of JSON; those without times, as of a number that no aligner knows, are left out."""
    if not isinstance(items, list):
        raise UserError(f"{where}: words should be a list")
    return tuple(word for item in items for word in _word(where, item))


def _word(where: str, item: object) -> Iterator[Word]:
    if isinstance(item, Mapping):
        item = [item.get("word", item.get("text")), item.get("start"), item.get("end")]
    if not isinstance(item, list) or len(item) != 3 or not isinstance(item[0], str):
        raise UserError(f"{where}: {item!r:.60} should be a word, its begin and its end")
    text, begin, end = item
    word = checked_text(where, text).strip()
    if not _is_open(begin) and not _is_open(end) and word:
        yield Word(word, read_seconds(where, begin), read_seconds(where, end))


PARSERS: Mapping[str, Callable[[str, str], list[Cue]]] = {
    ".srt": parse_subtitles,
    ".vtt": parse_subtitles,
    ".json": parse_json,
    ".tsv": parse_tsv,
    ".ass": parse_substation,
    ".ssa": parse_substation,
}
"""By suffix; of several transcripts of one recording the first is taken."""
