"""MVSA-Single (Niu et al., MMM 2016): tweets with a picture, words and hashtags, three sentiments.

Layout: `manifest.tsv` with the columns id, label, text_no_tags, hashtags, image, and the pictures
as JPEG files in `img/`.

Labels: `sentiment`: positive, neutral, negative.

Speakers and sessions: not known; no official split. 4,869 tweets.
"""

from collections.abc import Sequence

from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, check_files, read_table

COLUMNS = ("id", "label", "text_no_tags", "hashtags", "image")


@register
class Mvsa(Corpus):
    """MVSA-Single: images, text and tags."""

    name = "mvsa"
    licence = "research only (MVSA-Single)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a tweet."""
        rows = read_table(source, "manifest.tsv", "MVSA", COLUMNS)
        recordings = [
            Recording(
                key=f"mvsa-{row['id']}",
                split="train",
                media=None,
                text=" ".join(row["text_no_tags"].split()) or None,
                tags=tuple(row["hashtags"].split()),
                image=f"img/{row['image'].rpartition('/')[2]}",
                labels={"sentiment": row["label"]},
            )
            for row in rows
        ]
        check_files(source, [one.image or "" for one in recordings], "MVSA")
        return recordings
