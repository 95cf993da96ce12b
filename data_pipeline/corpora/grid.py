"""GRID (Cooke et al., JASA 2006): one frontal talking face a clip, six words of a small grammar.

Layout, as published: `s1/bbaf2n.mpg` (or `.mp4`), a folder a speaker, and `align/bbaf2n.align` with
`23750 29500 bin` a line, times in 1/25,000 s; in whatever folders, of which one is named after the
speaker (`s1/align`, `alignments/s1`). Or `grid_<speaker>`, a folder or tar with `clips/<clip>.mp4`
and `transcripts.tsv` with the columns clip, text, word_times_s: `sil:0.00-0.95 bin:0.95-1.18 ...`.
`sil` and `sp` are silence.

Labels: none. For pretraining.

Speakers and sessions: s1 to s34; no sessions. Splits: a fixed random ninth of the clips validates.
34,000 clips; of s21 there are no videos.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from data_pipeline.clip import Word
from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, decode_western, read_table
from data_pipeline.errors import UserError

VALID_SHARE = 1 / 9
"""One clip in nine validates: 100 of a speaker's 900."""

SPLIT_SEED = 2006
TRANSCRIPTS = "transcripts.tsv"
ENTRY = re.compile(r"([^:]+):(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")
"""A word and when it begins and ends, in seconds."""
ALIGNED = re.compile(r"(\d+)\s+(\d+)\s+(\w+)")
TICKS_PER_S = 25_000
"""Of an alignment's times: samples of the sound."""
SILENCES = ("sil", "sp")
"""Entries of the alignment in which nobody speaks: silence and short pause."""
SPEAKER = re.compile(r"s\d+")
VIDEOS = (".mpg", ".mp4")


@register
class Grid(Corpus):
    """GRID; the letter and the digit of a sentence cannot be guessed from its other words."""

    name = "grid"
    licence = "free for research (GRID audiovisual sentence corpus)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a clip, by name; the validation clips are a fixed random ninth."""
        names = source.names()
        clips = (_from_table if TRANSCRIPTS in names else _from_alignments)(source, names)
        order = np.random.default_rng(SPLIT_SEED).permutation(len(clips))
        valid = set(order[: round(len(clips) * VALID_SHARE)])
        return [
            replace(clip, split="valid") if number in valid else clip
            for number, clip in enumerate(clips)
        ]


def _from_table(source: Source, names: Sequence[str]) -> list[Recording]:
    """The clips of one speaker, of a table's lines."""
    rows = read_table(source, TRANSCRIPTS, "GRID", ("clip", "text", "word_times_s"))
    videos = [path for path in map(PurePosixPath, names) if path.suffix in VIDEOS]
    media = {path.stem: str(path) for path in videos if path.parent.name == "clips"}
    missing = sorted(row["clip"] for row in rows if row["clip"] not in media)
    if missing:
        raise UserError(f"GRID: no video of clip {missing[0]} ({len(missing)} are missing)")
    return [
        Recording(
            key=row["clip"],
            split="train",
            media=media[row["clip"]],
            text=row["text"],
            language="en",
            words=parse_word_times(row["clip"], row["word_times_s"]),
            speaker=source.name.rpartition("_")[2],
        )
        for row in sorted(rows, key=lambda row: row["clip"])
    ]


def _from_alignments(source: Source, names: Sequence[str]) -> list[Recording]:
    """The clips of the videos, of all speakers that are there."""
    paths = [PurePosixPath(name) for name in names]
    clips = [((_speaker(source, path), path.stem), path) for path in paths]
    aligned = {clip: path for clip, path in clips if path.suffix == ".align"}
    videos = {clip: path for clip, path in clips if path.suffix in VIDEOS}
    if not aligned or not videos:
        raise UserError(f"GRID: the source has no {TRANSCRIPTS} and no *.mpg with their *.align")
    missing = sorted(videos.keys() - aligned.keys())
    if missing:
        clip = "/".join(missing[0])
        raise UserError(f"GRID: no alignment of clip {clip} ({len(missing)} are missing)")
    return [
        _aligned(source, clip, str(video), str(aligned[clip]))
        for clip, video in sorted(videos.items())
    ]


def _speaker(source: Source, path: PurePosixPath) -> str:
    """Name of the nearest folder that is called like a speaker; the source's may be."""
    folders = (part for part in reversed(path.parent.parts) if SPEAKER.fullmatch(part))
    return next(folders, source.name.rpartition("_")[2])


def _aligned(source: Source, clip: tuple[str, str], video: str, alignment: str) -> Recording:
    words = parse_alignment(alignment, decode_western(source.read(alignment)))
    return Recording(
        key="-".join(clip),
        split="train",
        media=video,
        text=" ".join(word.text for word in words),
        language="en",
        words=words,
        speaker=clip[0],
    )


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


def parse_alignment(name: str, content: str) -> tuple[Word, ...]:
    """Read `0 23750 sil` a line, times in 1/25,000 s; silences and pauses are left out.

    Raises:
        UserError: a line is not of this form; names it and the file.
    """
    words = []
    for line in filter(None, map(str.strip, content.splitlines())):
        match = ALIGNED.fullmatch(line)
        if match is None:
            raise UserError(f"GRID: {name}: {line[:60]!r} is no word with its times")
        begin, end, word = match.groups()
        words.append(Word(word, int(begin) / TICKS_PER_S, int(end) / TICKS_PER_S))
    return tuple(word for word in words if word.text not in SILENCES)
