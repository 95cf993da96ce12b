"""MELD (Poria et al., ACL 2019): utterances of the series Friends, seven emotions; its text.

Layout: `train_sent_emo.csv`, `dev_sent_emo.csv`, `test_sent_emo.csv`, as published. The official
split shares its main speakers between train and test.
"""

from collections.abc import Sequence

from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import WINDOWS, Source, find_file, read_table

COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")

SPLITS = {"train": "train", "dev": "valid", "test": "test"}
"""Name in the corpus -> split."""


@register
class Meld(Corpus):
    """MELD, text only."""

    name = "meld"
    licence = "GPL-3.0 (MELD annotations); dialogue of a television series, research only"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a line: train, valid, test."""
        return [
            _recording(row, split)
            for table, split in SPLITS.items()
            for row in read_table(
                source, find_file(source, f"{table}_sent_emo.csv"), "MELD", COLUMNS
            )
        ]


def _recording(row: dict[str, str], split: str) -> Recording:
    dialogue, utterance = row["Dialogue_ID"], row["Utterance_ID"]
    return Recording(
        key=f"{split}-dia{dialogue}-utt{utterance}",
        split=split,
        media=None,
        text=" ".join(row["Utterance"].translate(WINDOWS).split()),
        language="en",
        speaker=row["Speaker"],
        session=f"{split}-dia{dialogue}",
        labels={"emotion": row["Emotion"], "sentiment": row["Sentiment"]},
    )
