"""RAVDESS speech (Livingstone and Russo, PLOS ONE 2018): 24 actors, 8 emotions, two sentences.

Layout: `speech/<file>` and `manifest.tsv` with the columns file, dur_s, emotion, intensity, text,
repetition, actor, sex. All clips are in split `train`: RAVDESS has no official split, its folds go
by actor.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, read_table
from data_pipeline.errors import UserError

MANIFEST = "manifest.tsv"
COLUMNS = ("file", "emotion", "intensity", "text", "actor")


@register
class Ravdess(Corpus):
    """RAVDESS; every actor says both sentences in every emotion, so that the text tells nothing."""

    name = "ravdess"
    licence = "CC BY-NC-SA 4.0 (RAVDESS)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a manifest line, in its order."""
        rows = read_table(source, MANIFEST, "RAVDESS", COLUMNS)
        sounds = {PurePosixPath(name).name: name for name in source.names()}
        files = [PurePosixPath(row["file"]).name for row in rows]
        missing = [file for file in files if file not in sounds]
        if missing:
            raise UserError(f"RAVDESS: no file {missing[0]} ({len(missing)} are missing)")
        return [
            Recording(
                key=PurePosixPath(file).stem,
                split="train",
                media=sounds[file],
                text=row["text"],
                language="en",
                speaker=f"actor-{row['actor'].zfill(2)}",
                labels={"emotion": row["emotion"], "intensity": row["intensity"]},
            )
            for row, file in zip(rows, files, strict=True)
        ]
