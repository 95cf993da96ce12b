"""GRID (Cooke et al., JASA 2006): one frontal talking face a clip, six words of a small grammar.

Layout of `grid_<speaker>` (folder or tar): `clips/<clip>.mp4` and `transcripts.tsv` with
the columns clip, text, word_times_s: `sil:0.00-0.95 bin:0.95-1.18 ...`, `sil` and `sp` are silence.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from data_pipeline.clip import Word
from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, read_table
from data_pipeline.errors import UserError

VALID_SHARE = 1 / 9
"""One clip in nine validates: 100 of a speaker's 900."""

SPLIT_SEED = 2006
TRANSCRIPTS = "transcripts.tsv"
SILENCES = ("sil", "sp")
"""Entries of the alignment in which nobody speaks: silence and short pause."""


@register
class Grid(Corpus):
    """GRID; the letter and the digit of a sentence cannot be guessed from its other words."""

    name = "grid"
    licence = "free for research (GRID audiovisual sentence corpus)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a transcript line; the validation clips are a fixed random ninth."""
        rows = _transcripts(source)
        media = {PurePosixPath(name).stem: name for name in source.names()}
        missing = [row["clip"] for row in rows if row["clip"] not in media]
        if missing:
            raise UserError(f"GRID: no video of clip {missing[0]} ({len(missing)} are missing)")
        valid = set(np.random.default_rng(SPLIT_SEED).permutation(len(rows))[: _valid_count(rows)])
        return [
            Recording(
                key=row["clip"],
                split="valid" if number in valid else "train",
                media=media[row["clip"]],
                text=row["text"],
                language="en",
                words=parse_word_times(row["word_times_s"]),
                speaker=source.name.rpartition("_")[2],
            )
            for number, row in enumerate(rows)
        ]


def _transcripts(source: Source) -> list[dict[str, str]]:
    """The lines of the transcript table, by clip name."""
    rows = read_table(source, TRANSCRIPTS, "GRID", "\t")
    return sorted(rows, key=lambda row: row["clip"])


def _valid_count(rows: Sequence[object]) -> int:
    return round(len(rows) * VALID_SHARE)


def parse_word_times(times: str) -> tuple[Word, ...]:
    """Read `sil:0.00-0.95 bin:0.95-1.18 ...`; silences and pauses are left out."""
    words = []
    for entry in times.split():
        text, _, span = entry.rpartition(":")
        start_s, _, end_s = span.partition("-")
        words.append(Word(text, float(start_s), float(end_s)))
    return tuple(word for word in words if word.text not in SILENCES)
