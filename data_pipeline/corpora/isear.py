"""ISEAR (Scherer and Wallbott, 1994): situations of seven emotions, told by students.

Layout: `isear.csv`, separated by `|`. A `|` inside an answer stood for the end of a line, as did
`á`; quotation marks had become backslashes. An answer in square brackets says that there is none.

Labels: `emotion`: joy, fear, anger, sadness, disgust, shame, guilt.

Speakers and sessions: the students; no sessions, no official split. 7,467 answers.
"""

from collections.abc import Sequence

from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, find_file, read_text
from data_pipeline.errors import UserError

TABLE = "isear.csv"
COLUMNS = ("ID", "Field1", "MYKEY", "SIT")
AFTER = 2
"""Columns that follow the answer."""


@register
class Isear(Corpus):
    """ISEAR, text only."""

    name = "isear"
    licence = "free for research (ISEAR, Swiss Center for Affective Sciences)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording an answer; the student is the speaker."""
        name = find_file(source, TABLE)
        head, *lines = (
            read_text(source, name, "ISEAR").replace("\r\n", "\n").removesuffix("\n").split("\n")
        )
        columns = head.split("|")
        missing = [column for column in COLUMNS if column not in columns]
        if missing:
            raise UserError(f"ISEAR: {name} has no column {missing[0]!r}")
        student, emotion, key, answer = (columns.index(column) for column in COLUMNS)
        found = []
        for number, line in enumerate(lines, start=2):
            cells = line.split("|")
            if len(cells) < len(columns):
                raise UserError(f"ISEAR: line {number} of {name} has not as many columns as line 1")
            text = _mended(" ".join(cells[answer:-AFTER]))
            if text and not text.startswith("["):
                found.append(
                    Recording(
                        key=f"isear-{cells[key]}",
                        split="train",
                        media=None,
                        text=text,
                        language="en",
                        speaker=cells[student],
                        labels={"emotion": cells[emotion]},
                    )
                )
        return found


def _mended(answer: str) -> str:
    """Without the marks of old lines, and with quotation marks."""
    text = " ".join(answer.replace("á", " ").replace('\\"', '"').replace("\\", '"').split())
    return text.removesuffix('"') if text.count('"') % 2 else text
