"""GRID (Cooke et al., JASA 2006): one frontal talking face a clip, six words of a small grammar.

Layout, as published: `s1/bbaf2n.mpg` (or `.mp4`), a folder a speaker, and `align/bbaf2n.align` with
`23750 29500 bin` a line, times in 1/25,000 s; in whatever folders, of which one is named after the
speaker (`s1/align`, `alignments/s1`). The record on Zenodo has some speakers' alignments in folders
of others: where a speaker's has not all clips, that which has most of them is taken. Or
`grid_<speaker>`, a folder or tar with `clips/<clip>.mp4` and `transcripts.tsv` with the columns
clip, text, word_times_s: `sil:0.00-0.95 bin:0.95-1.18 ...`. `sil` and `sp` are silence.

Labels: none. For pretraining.

Speakers and sessions: s1 to s34; no sessions. Splits: a fixed random ninth of the clips validates.
34,000 clips; of s21 there are no videos.
"""

import re
from collections.abc import Mapping, Sequence
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
    aligned = _by_speaker(source, [path for path in paths if path.suffix == ".align"])
    videos = _by_speaker(source, [path for path in paths if path.suffix in VIDEOS])
    if not aligned or not videos:
        raise UserError(f"GRID: the source has no {TRANSCRIPTS} and no *.mpg with their *.align")
    pairs = [
        ((speaker, clip), video, folder.get(clip))
        for speaker, clips in sorted(videos.items())
        for folder in [_whose(speaker, clips, aligned)]
        for clip, video in sorted(clips.items())
    ]
    missing = ["/".join(clip) for clip, _, alignment in pairs if alignment is None]
    if missing:
        raise UserError(
            f"GRID: no alignment of clip {missing[0]} ({len(missing)} are missing); *.align lie in "
            "a folder that is called like the speaker"
        )
    return [_aligned(source, clip, str(video), str(found)) for clip, video, found in pairs]


def _by_speaker(
    source: Source, paths: Sequence[PurePosixPath]
) -> dict[str, dict[str, PurePosixPath]]:
    """Speaker -> clip -> file, by the folders."""
    found: dict[str, dict[str, PurePosixPath]] = {}
    for path in paths:
        found.setdefault(_speaker(source, path), {})[path.stem] = path
    return found


def _whose(
    speaker: str,
    clips: Mapping[str, PurePosixPath],
    aligned: Mapping[str, Mapping[str, PurePosixPath]],
) -> Mapping[str, PurePosixPath]:
    """The alignments that have most of a speaker's clips; of several those called like him.

    None where none are called so: it is not a folder with another's that has taken their place.
    """
    if speaker not in aligned:
        return {}
    folders = [aligned[speaker], *(aligned[name] for name in sorted(aligned))]
    return max(folders, key=lambda folder: len(clips.keys() & folder.keys()))


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
