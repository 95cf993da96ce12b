"""MELD (Poria et al., ACL 2019): utterances of the series Friends, seven emotions.

Layout, as published: `train_sent_emo.csv`, `dev_sent_emo.csv`, `test_sent_emo.csv`, and where the
videos are there `train_splits/dia0_utt0.mp4`, `dev_splits_complete/...`,
`output_repeated_splits_test/...`. A video belongs to the part whose name its nearest folder has
(`train`, `dev` or `test`). An utterance without a video is text only: all of them of the tables
alone, and two of the whole release.

132 videos of the test part were cut anew and are called `final_videos_testdia..._utt....mp4`; they
go before those of their utterances' names, which show something else. Videos that no table names
are left out.

Labels: `emotion` of seven, `sentiment` of three.

Speakers and sessions: the characters' names; the session is the dialogue. Splits: the official
ones, dev is called valid; they share their main speakers.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import WINDOWS, Source, find_file, read_table

COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")

SPLITS = {"train": "train", "dev": "valid", "test": "test"}
"""Name in the corpus -> split."""

PART = re.compile(r"(?<![a-z])(train|dev|test)(?![a-z])")
"""The part of the corpus in a folder's name, in lower case."""

VIDEO = re.compile(r"(final_videos_test)?(dia\d+_utt\d+)\.mp4")
"""Whether it was cut anew, and the utterance."""


@register
class Meld(Corpus):
    """MELD."""

    name = "meld"
    licence = "GPL-3.0 (MELD annotations); dialogue of a television series, research only"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a line: train, valid, test."""
        videos = _videos(source)
        return [
            _recording(row, part, videos)
            for part in SPLITS
            for row in read_table(
                source, find_file(source, f"{part}_sent_emo.csv"), "MELD", COLUMNS
            )
        ]


def _videos(source: Source) -> dict[tuple[str, str], str]:
    """Video by part and utterance; those that were cut anew come last and stay."""
    names = [(VIDEO.fullmatch(PurePosixPath(name).name), name) for name in source.names()]
    found = [(match, name) for match, name in names if match]
    return {
        (_part(name), match[2]): name
        for match, name in sorted(found, key=lambda one: one[0][1] is not None)
    }


def _part(video: str) -> str:
    """The part of the corpus that a video's folders name; "" if they name none."""
    folders = reversed(PurePosixPath(video.lower()).parent.parts)
    return next((match[1] for one in folders if (match := PART.search(one))), "")


def _recording(row: dict[str, str], part: str, videos: dict[tuple[str, str], str]) -> Recording:
    split, dialogue, utterance = SPLITS[part], row["Dialogue_ID"], row["Utterance_ID"]
    return Recording(
        key=f"{split}-dia{dialogue}-utt{utterance}",
        split=split,
        media=videos.get((part, f"dia{dialogue}_utt{utterance}")),
        text=" ".join(row["Utterance"].translate(WINDOWS).split()),
        language="en",
        speaker=row["Speaker"],
        session=f"{split}-dia{dialogue}",
        labels={"emotion": row["Emotion"], "sentiment": row["Sentiment"]},
    )
