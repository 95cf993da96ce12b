"""One's own corpus as a table: a CSV or TSV file, and beside it the files that it names.

Layout: a folder or archive with one `.csv` or `.tsv` file, or that file alone. Columns that are
known: `key`, `split`, `text`, `language`, `speaker`, `session`, `tags` (separated by spaces),
`media` (a video or sound file), `begin_s` and `end_s` (of the clip in its media, where that is
longer), `words` (`[["so", 0.1, 0.35], ...]`, with times in the media) and `image` (a JPEG file); an
empty cell says nothing. A clip longer than `LONGEST_S` is quarantined. A table that is neither
UTF-8 nor UTF-16 is in what `--encoding` says.

Labels: every other column; but one that is a time by its name (`start`, `EndTime`, `stop_ms`)
is refused: taken for a label, it would make each clip all of its media. So is `Text` or ` speaker`.

Speakers, sessions and splits: as the table says; without its column the split is train.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from data_pipeline.clip import Word
from data_pipeline.corpora.base import LONGEST_S, Corpus, Recording, register
from data_pipeline.corpora.source import Source, check_files, parse_table
from data_pipeline.encoding import UTF_8, decode_exactly, known_encoding
from data_pipeline.errors import UserError
from data_pipeline.transcripts import read_words

CONTENT = ("text", "media", "image")
SPAN = ("begin_s", "end_s")
TIME_NAME = re.compile(
    r"(?:t|time|clip|cue|seg|segment|utterance)?(?:(begin|start|onset)|end|stop|offset)"
    r"(?:at|time|timestamp|ts)?(?:in)?(?:s|m?secs?|seconds?|ms|millis|milliseconds?)?"
)
"""A column of times, in lower case and without what is no letter; a group where one begins."""
KNOWN = ("key", "split", "language", "speaker", "session", "tags", "words", *CONTENT, *SPAN)


@register
class Table(Corpus):
    """A table of clips."""

    name = "table"
    licence = "not stated; see who has it"
    options = ("encoding", "licence")

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a line, in its order."""
        name = _table(source)
        encoding = known_encoding(str(self.given.get("encoding", UTF_8)))
        text = decode_exactly(name, source.read(name), encoding)
        rows = parse_table(text, name, "table", ())
        _check_content(rows, name)
        check_columns(rows[0], f"table: {name}")
        labels = [column for column in rows[0] if column not in KNOWN]
        recordings = [
            row_recording(row, f"clip-{number:06}", f"table: line {number + 1}", labels)
            for number, row in enumerate(rows, start=1)
        ]
        files = [one for row in recordings for one in (row.media, row.image) if one]
        check_files(source, files, "table")
        return recordings


def _table(source: Source) -> str:
    found = [name for name in source.names() if name.lower().endswith((".csv", ".tsv"))]
    if len(found) != 1:
        which = f" ({', '.join(found[:3])})" if found else ""
        raise UserError(
            f"table: the source has {len(found)} .csv and .tsv files{which}; one says what the "
            "clips are"
        )
    return found[0]


def _check_content(rows: Sequence[Mapping[str, str]], name: str) -> None:
    if not rows:
        raise UserError(f"table: {name} has no line below the names of its columns")
    if not any(column in rows[0] for column in CONTENT):
        raise UserError(
            f"table: {name} needs one of the columns {', '.join(CONTENT)}; it has "
            f"{', '.join(map(repr, rows[0]))} (.csv: with commas between them, .tsv: with tabs)"
        )


def check_columns(columns: Iterable[str], where: str) -> None:
    """No column may be meant for one of `KNOWN` and be taken for a label.

    Args:
        columns: their names.
        where: they stand, for messages.

    Raises:
        UserError: one is a time by its name, or differs in case or blanks alone; says how it
            should be called.
    """
    for column in columns:
        name = column.strip().lower()
        if name in KNOWN and column != name and name not in SPAN:
            raise UserError(
                f"{where}: column {column!r} is no label by its name; call it {name}, or otherwise"
            )
        letters = "".join(filter(str.isalpha, column.lower()))
        match = TIME_NAME.fullmatch(letters)
        if match and column not in SPAN:
            name = SPAN[0] if match[1] else SPAN[1]
            raise UserError(
                f"{where}: column {column!r} is a time by its name; call it {name}, in seconds, or "
                "leave it out"
            )


def row_recording(row: Mapping[str, str], key: str, where: str, labels: Sequence[str]) -> Recording:
    """The recording of a table's line.

    Args:
        row: column -> value.
        key: the recording's, if the line gives none.
        where: the line, for messages.
        labels: columns that are labels.

    Raises:
        UserError: begin and end are no part of its media, or its words cannot be read.
    """
    span = _span(row, where)
    return Recording(
        key=row.get("key") or key,
        split=row.get("split") or "train",
        media=row.get("media") or None,
        text=row.get("text", "").strip() or None,
        language=row.get("language", ""),
        speaker=row.get("speaker", ""),
        session=row.get("session", ""),
        tags=tuple(row.get("tags", "").split()),
        words=words_inside(read_words(where, row.get("words", "")), span),
        span=span,
        image=row.get("image") or None,
        longest_s=LONGEST_S,
        labels={name: row[name] for name in labels if row[name]},
    )


def words_inside(words: Sequence[Word], span: tuple[float, float] | None) -> tuple[Word, ...]:
    """The words of a part of a recording, with times in that part.

    Args:
        words: with times in the recording, in seconds.
        span: begin and end of the part; None: it is all of it.
    """
    begin_s, end_s = span or (0.0, math.inf)
    return tuple(
        Word(
            word.text,
            round(max(word.start_s, begin_s) - begin_s, 3),
            round(min(word.end_s, end_s) - begin_s, 3),
        )
        for word in words
        if word.start_s < end_s and word.end_s > begin_s
    )


def _span(row: Mapping[str, str], where: str) -> tuple[float, float] | None:
    """Where the clip lies in its media; None: it is all of it."""
    begin, end = (row.get(name, "").strip() for name in SPAN)
    if not begin and not end:
        return None
    try:
        span = float(begin), float(end)
    except ValueError:
        span = math.nan, math.nan
    if not 0 <= span[0] < span[1] < math.inf or not row.get("media"):
        raise UserError(
            f"{where} has begin_s={begin!r} and end_s={end!r}; give the seconds of a part of its "
            "media, or neither"
        )
    return span
