"""GRID (Cooke et al., JASA 2006): one frontal talking face a clip, six words of a small grammar.

Layout of `grid_<speaker>` (folder or tar): `clips/<clip>.mp4` (or `.mpg`) and `transcripts.tsv`
with the columns clip, text, word_times_s: `sil:0.00-0.95 bin:0.95-1.18 ...`, `sil` and `sp` are
silence.
"""

import re
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
ENTRY = re.compile(r"([^:]+):(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")
"""A word and when it begins and ends, in seconds."""
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
        videos = [PurePosixPath(name) for name in source.names()]
        media = {one.stem: str(one) for one in videos if one.match("clips/*.mp[4g]")}
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
                words=parse_word_times(row["clip"], row["word_times_s"]),
                speaker=source.name.rpartition("_")[2],
            )
            for number, row in enumerate(rows)
        ]


def _transcripts(source: Source) -> list[dict[str, str]]:
    """The lines of the transcript table, by clip name."""
    rows = read_table(source, TRANSCRIPTS, "GRID", ("clip", "text", "word_times_s"))
    return sorted(rows, key=lambda row: row["clip"])


def _valid_count(rows: Sequence[object]) -> int:
    return round(len(rows) * VALID_SHARE)


def parse_word_times(clip: str, times: str) -> tuple[Word, ...]:
    """Read `sil:0.00-0.95 bin:0.95-1.18 ...`; silences and pauses are left out.

    Raises:
        UserError: an entry is not of this form; names it and the clip.
    """
    words = []
    for entry in times.split():
        match = ENTRY.fullmatch(entry)
        if match is None:
            raise UserError(f"GRID: clip {clip}: {entry!r} is no word with its times")
        words.append(Word(match[1], float(match[2]), float(match[3])))
    return tuple(word for word in words if word.text not in SILENCES)
