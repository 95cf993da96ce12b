"""Korean speech: acted emotions of 15 speakers, and 16 voices of different personality.

Layout: `<wav>` and `manifest.tsv` with the columns wav, part, speaker, emotion, text.

Labels: `emotion` of the 300 clips of part Emotional: neutral, joy, anger, sadness. The 463 of part
Personality have none and serve pretraining.

Speakers and sessions: the table's names; the session is the part. No official split: folds go by
speaker.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, check_files, read_table

MANIFEST = "manifest.tsv"
COLUMNS = ("wav", "part", "speaker", "emotion", "text")


@register
class KoreanSpeech(Corpus):
    """Korean emotional and personality speech."""

    name = "korean_speech"
    licence = "CC BY-NC-SA, research only (Korean emotional and personality speech)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a manifest line, in its order."""
        rows = read_table(source, MANIFEST, "Korean speech", COLUMNS)
        check_files(source, [row["wav"] for row in rows], "Korean speech")
        return [
            Recording(
                key=PurePosixPath(row["wav"]).stem,
                split="train",
                media=row["wav"],
                text=row["text"],
                language="ko",
                speaker=row["speaker"],
                session=row["part"],
                labels={"emotion": row["emotion"]} if row["emotion"] else {},
            )
            for row in rows
        ]
