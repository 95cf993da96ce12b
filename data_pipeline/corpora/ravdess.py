"""RAVDESS speech (Livingstone and Russo, PLOS ONE 2018): 24 actors, 8 emotions, two sentences.

Layout, as published: `Actor_01/01-01-03-02-01-01-01.mp4` and `Actor_01/03-01-....wav`, found by
their names in whatever folders. In the name stand medium (01 picture and sound, 02 picture, 03
sound), speech or song (01, 02), emotion, intensity, sentence, repetition and actor. A video is
taken where there is one; pictures without sound and songs are left out. Or `manifest.tsv` with the
columns file, emotion, intensity, text, actor, and the files that it names in `speech/`; beside it,
if it is there, `face_au_means.npz`: `clip` (N,), names of the videos, and `au_mean` (N, 35), the
means of their action units, which `--face action-units` takes.

Labels: `emotion` of eight, `intensity` normal or strong.

Speakers and sessions: actor-01 to actor-24; no sessions, no official split: folds go by actor.
1,440 takes.
"""

import io
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from zipfile import BadZipFile

import numpy as np

from data_pipeline.corpora.base import UNITS, Corpus, Recording, register
from data_pipeline.corpora.source import Source, by_stem, read_table
from data_pipeline.errors import UserError

MANIFEST = "manifest.tsv"
MOST = float(np.finfo(np.float16).max)
"""The largest number that a row can hold."""
ACTION_UNITS = "face_au_means.npz"
COLUMNS = ("file", "emotion", "intensity", "text", "actor")

TAKE = re.compile(
    r"(?P<medium>0[13])-01-"
    r"(?P<take>0(?P<emotion>[1-8])-0(?P<intensity>[12])-0(?P<sentence>[12])-0[12]-(?P<actor>\d\d))"
    r"\.(mp4|wav)"
)
"""A published name."""
VIDEO = "01"

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
INTENSITIES = ("normal", "strong")
SENTENCES = ("Kids are talking by the door", "Dogs are sitting by the door")


@register
class Ravdess(Corpus):
    """RAVDESS; every actor says both sentences in every emotion, so that the text tells nothing."""

    name = "ravdess"
    licence = "CC BY-NC-SA 4.0 (RAVDESS)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a take: by name, or in the manifest's order."""
        names = source.names()
        if MANIFEST in names:
            return _from_manifest(source, names)
        once = by_stem(names, (".mp4", ".wav")).values()  # Kaggle's copy has each file twice
        matches = {name: TAKE.fullmatch(PurePosixPath(name).name) for name in once}
        takes = {name: match for name, match in matches.items() if match}
        if not takes:
            raise UserError(f"RAVDESS: the source has no {MANIFEST} and no Actor_*/*.mp4 or *.wav")
        videos = {match["take"] for match in takes.values() if match["medium"] == VIDEO}
        return [
            _recording(name, match)
            for name, match in takes.items()
            if match["medium"] == VIDEO or match["take"] not in videos
        ]


def _recording(media: str, take: re.Match[str]) -> Recording:
    return Recording(
        key=PurePosixPath(media).stem,
        split="train",
        media=media,
        text=SENTENCES[int(take["sentence"]) - 1],
        language="en",
        speaker=f"actor-{take['actor']}",
        labels={
            "emotion": EMOTIONS[int(take["emotion"]) - 1],
            "intensity": INTENSITIES[int(take["intensity"]) - 1],
        },
    )


def _from_manifest(source: Source, names: Sequence[str]) -> list[Recording]:
    """The takes of a table's lines."""
    rows = read_table(source, MANIFEST, "RAVDESS", COLUMNS)
    sounds = {PurePosixPath(name).name: name for name in names}
    files = [PurePosixPath(row["file"]).name for row in rows]
    missing = [file for file in files if file not in sounds]
    if missing:
        raise UserError(f"RAVDESS: no file {missing[0]} ({len(missing)} are missing)")
    units = _action_units(source) if ACTION_UNITS in names else {}
    return [
        Recording(
            key=PurePosixPath(file).stem,
            split="train",
            media=sounds[file],
            text=row["text"],
            language="en",
            speaker=f"actor-{row['actor'].zfill(2)}",
            labels={"emotion": row["emotion"], "intensity": row["intensity"]},
            action_units=units.get(VIDEO + PurePosixPath(file).stem[len(VIDEO) :]),
        )
        for row, file in zip(rows, files, strict=True)
    ]


def _action_units(source: Source) -> dict[str, tuple[float, ...]]:
    """Name of a video -> the means of its action units.

    Raises:
        UserError: the file is none of the form above.
    """
    try:
        with np.load(io.BytesIO(source.read(ACTION_UNITS)), allow_pickle=False) as content:
            clips, means = content["clip"], content["au_mean"]
        if means.shape != (len(clips), UNITS) or not (np.abs(means) <= MOST).all():
            raise ValueError(f"not {UNITS} numbers up to {MOST:.0f} for each of {len(clips)} clips")
    except (ValueError, TypeError, KeyError, OSError, EOFError, BadZipFile) as error:
        raise UserError(f"RAVDESS: {ACTION_UNITS} cannot be read ({error})") from None
    return {str(clip): tuple(row) for clip, row in zip(clips, means.tolist(), strict=True)}
