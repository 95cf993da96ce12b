"""Essays (Pennebaker and King, 1999): streams of consciousness and the Big Five of their writers.

Layout: `essays.csv` with the columns AUTHID (published as #AUTHID), TEXT and cEXT, cNEU, cAGR,
cCON, cOPN, each y or n (1 or 0 in some copies); in UTF-8 or as a Windows machine wrote it.

Labels: `openness`, `conscientiousness`, `extraversion`, `agreeableness`, `neuroticism`, each yes or
no.

Speakers and sessions: the writers; no sessions, no official split. 2,468 texts.
"""

from collections.abc import Sequence

from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, decode_western, find_file, parse_table
from data_pipeline.errors import UserError

TABLE = "essays.csv"
TRAITS = {
    "cOPN": "openness",
    "cCON": "conscientiousness",
    "cEXT": "extraversion",
    "cAGR": "agreeableness",
    "cNEU": "neuroticism",
}
"""Column -> label, in the order of the published tables."""

ANSWERS = {"y": "yes", "1": "yes", "n": "no", "0": "no"}


@register
class Essays(Corpus):
    """Essays, text only; each trait is a label of its own."""

    name = "essays"
    licence = "research only (Pennebaker and King's essays)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording an essay; its writer is the speaker."""
        name = find_file(source, TABLE)
        if name not in source.names():
            raise UserError(f"Essays: the source has no {TABLE}")
        header, line_end, lines = decode_western(source.read(name)).partition("\n")
        text = header.replace("#", "") + line_end + lines
        rows = parse_table(text, name, "Essays", ("AUTHID", "TEXT", *TRAITS))
        return [_recording(row, name) for row in rows]


def _recording(row: dict[str, str], name: str) -> Recording:
    for column in TRAITS:
        if row[column] not in ANSWERS:
            raise UserError(
                f"Essays: {name} has {column}={row[column]!r} of {row['AUTHID']}, not y or n"
            )
    return Recording(
        key=f"essay-{row['AUTHID'].removesuffix('.txt').replace('.', '_')}",
        split="train",
        media=None,
        text=" ".join(row["TEXT"].split()),
        language="en",
        speaker=row["AUTHID"],
        labels={trait: ANSWERS[row[column]] for column, trait in TRAITS.items()},
    )
