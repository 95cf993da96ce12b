"""KEMDy19 and KEMDy20 (Noh and Jeong, ETRI): Korean dialogues, seven emotions; speech and text.

Layout, as published: `annotation/*.csv` and, for every segment, a WAV and a TXT file of its name
below `wav/`. A table has two header lines; its columns are found by name.

Labels: `emotion`, on which most raters agree: angry, disgust, fear, happy, neutral, sad, surprise.
The cleaning is that of the ETRI competition's published baseline: segments with several emotions
(`neutral;happy`) and those whose sound or transcript is missing are left out, `disqust` is spelt
`disgust`, transcripts that are not UTF-8 are CP949. In KEMDy19 every segment is judged in the
woman's and in the man's table; only the table of the segment's own speaker counts.

Texts are what is said: the transcribers' marks are left out, `n/`, `b/`, `l/` and other letters
with a slash for noise, breath, laughter and the like, and `+`, `*` and `/` behind words that are
stammered, unclear or fillers.

Speakers and sessions: KEMDy19 has 20 sessions of two actors each (Sess01-F), KEMDy20 40 of two
speakers each (User023F). No official split: folds go by session.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source
from data_pipeline.errors import UserError

SPELLING = {"disqust": "disgust"}
SEVERAL = ";"
"""Stands between the emotions of a segment on which the raters disagree."""

MARK = re.compile(r"(?<!\w)[cnNulb]/|[*+/](?!\w)")
"""Of the transcribers; a slash within a word, as in A/S, is none."""

TABLE_SEX = re.compile(r"_([FM])(_|\.)")
"""KEMDy19: whose table it is, in `Session01_F_res.csv`."""

SPEAKER = re.compile(r"(Sess\d+)_\w*?(?:(User\d+[FM])_\d+|([FM])\d+)$")
"""Session and speaker in `Sess01_script01_F001` (19) and `Sess01_script01_User002M_001` (20)."""


class _Kemdy(Corpus):
    """What both corpora share."""

    licence = "research only, by agreement (ETRI)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a segment with one emotion, in the tables' order."""
        names = source.names()
        tables = [name for name in names if re.fullmatch(r"(.*/)?annotation/[^/]+\.csv", name)]
        if not tables:
            raise UserError(f"{self.name}: the source has no annotation/*.csv")
        files = {PurePosixPath(name).name: name for name in names}
        return [
            _recording(source, files, segment, emotion)
            for table in tables
            for segment, emotion in _segments(source, table)
            if SEVERAL not in emotion and {f"{segment}.wav", f"{segment}.txt"} <= files.keys()
        ]


@register
class Kemdy19(_Kemdy):
    """KEMDy19: acted dialogues."""

    name = "kemdy19"


@register
class Kemdy20(_Kemdy):
    """KEMDy20: free dialogues, most of them neutral."""

    name = "kemdy20"


def _segments(source: Source, table: str) -> Iterator[tuple[str, str]]:
    """Segment and emotion of each line that is to be used."""
    rows = [row for row in csv.reader(io.StringIO(_decoded(source.read(table)), newline="")) if row]
    if len(rows) < 2:
        raise UserError(f"KEMDy: {table} has not its two header lines")
    segment_at = _column(rows, table, "segment id", "")
    emotion_at = _column(rows, table, "total evaluation", "emotion")
    sex = TABLE_SEX.search(PurePosixPath(table).name)
    for row in rows[2:]:
        if len(row) <= max(segment_at, emotion_at):
            raise UserError(f"KEMDy: {table} has a line that is too short: {','.join(row)[:60]}")
        segment = row[segment_at].strip()
        speaker = SPEAKER.search(segment)
        if speaker is None:
            continue  # a line of commas alone
        if sex is None or (speaker[3] or speaker[2][-1]) == sex[1]:
            emotion = row[emotion_at].strip().lower()
            yield segment, SPELLING.get(emotion, emotion)


def _column(rows: Sequence[Sequence[str]], table: str, group: str, name: str) -> int:
    """Number of a column by its two header lines; an empty upper cell repeats the one before."""
    upper = ""
    for at, (top, below) in enumerate(zip(*rows[:2], strict=False)):
        upper = top.strip().lower() or upper
        if upper == group and (not name or below.strip().lower() == name):
            return at
    raise UserError(f"KEMDy: {table} has no column {group!r}{name and f' / {name!r}'}")


def _recording(source: Source, files: dict[str, str], segment: str, emotion: str) -> Recording:
    match = SPEAKER.search(segment)
    assert match is not None, "see _segments"
    session, user, sex = match.groups()
    return Recording(
        key=segment,
        split="train",
        media=files[f"{segment}.wav"],
        text=_transcript(source.read(files[f"{segment}.txt"])) or None,
        language="ko",
        speaker=user or f"{session}-{sex}",
        session=session,
        labels={"emotion": emotion},
    )


def _transcript(content: bytes) -> str:
    """The first line, without marks."""
    line, _, _ = _decoded(content).partition("\n")
    return " ".join(MARK.sub("", line).split())


def _decoded(content: bytes) -> str:
    """Text in UTF-8 or CP949."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp949", errors="replace")
