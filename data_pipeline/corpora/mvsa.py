"""MVSA (Niu et al., MMM 2016): tweets with a picture, words and hashtags, three sentiments.

Layout: as published `labelResultAll.txt` with `data/1.txt` and `data/1.jpg` (MVSA-Single, one
annotator, and MVSA-Multiple, three); or `manifest.tsv` with the columns id, label, text_no_tags,
hashtags, image, and the pictures as JPEG files in `img/`.

Labels: `sentiment`: positive, neutral, negative. As published `text_sentiment` and
`image_sentiment`, on which more than half of the annotators agree, and `sentiment` made of both as
is usual (Xu and Mao, CIKM 2017): where one is neutral the other counts, and there is none where one
is positive and the other negative.

Speakers and sessions: not known; no official split. 4,869 tweets in MVSA-Single, 19,598 in
MVSA-Multiple.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from data_pipeline.clip import Label
from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import (
    Source,
    by_stem,
    check_files,
    decode_western,
    read_table,
    read_text,
)
from data_pipeline.errors import UserError

MANIFEST = "manifest.tsv"
COLUMNS = ("id", "label", "text_no_tags", "hashtags", "image")
JUDGED = "labelResultAll.txt"
SENTIMENTS = ("positive", "neutral", "negative")
TAG = re.compile(r"#(\w+)")
APART = re.compile(r"#\w+|https?://\S+")
"""What is not of a tweet's words: tags, which are read on their own, and links."""


@register
class Mvsa(Corpus):
    """MVSA: images, text and tags."""

    name = "mvsa"
    licence = "research only (MVSA)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a tweet."""
        if MANIFEST in source.names():
            return _from_manifest(source)
        return list(_as_published(source))


def _from_manifest(source: Source) -> list[Recording]:
    rows = read_table(source, MANIFEST, "MVSA", COLUMNS)
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


def _as_published(source: Source) -> Iterator[Recording]:
    """The tweets that were judged, in the table's order."""
    names = source.names()
    table = _only_table(names)
    folder = PurePosixPath(table).parent / "data"
    beside = [name for name in names if PurePosixPath(name).is_relative_to(folder)]
    pictures, texts = by_stem(beside, (".jpg",)), by_stem(beside, (".txt",))
    header, *lines = read_text(source, table, "MVSA").splitlines() or [""]
    if not header.startswith("ID"):
        raise UserError(f"MVSA: {table} does not begin with a line of ID and text,image")
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        tweet, *votes = line.split()
        labels = _labels([vote.split(",") for vote in votes])
        if labels is None:
            raise UserError(
                f"MVSA: line {number} of {table} is not an id and text,image sentiments: {line!r}"
            )
        if tweet not in pictures or tweet not in texts:
            raise UserError(
                f"MVSA: {folder} has no {tweet}.jpg or no {tweet}.txt, which {table} names"
            )
        words = decode_western(source.read(texts[tweet]))
        yield Recording(
            key=f"mvsa-{tweet}",
            split="train",
            media=None,
            text=" ".join(APART.sub("", words).split()) or None,
            tags=tuple(TAG.findall(words)),
            image=pictures[tweet],
            labels=labels,
        )


def _only_table(names: Sequence[str]) -> str:
    """Both published sets number their tweets from 1: a source is one of them.

    Raises:
        UserError: there is none, or there are several.
    """
    tables = [name for name in names if PurePosixPath(name).name == JUDGED]
    if not tables:
        raise UserError(f"MVSA: the source has no {JUDGED} and no {MANIFEST}")
    if len(tables) > 1:
        raise UserError(f"MVSA: {tables[0]} and {tables[1]} are two corpora; build them one by one")
    return tables[0]


def _labels(votes: Sequence[Sequence[str]]) -> dict[str, Label] | None:
    """What is agreed on of text and image, by each annotator's two; None if those are none."""
    if not votes or any(len(vote) != 2 or not set(vote) <= set(SENTIMENTS) for vote in votes):
        return None
    text, image = (_agreed(of) for of in zip(*votes, strict=True))
    found = {"sentiment": _merged(text, image), "text_sentiment": text, "image_sentiment": image}
    return {name: value for name, value in found.items() if value}


def _agreed(votes: Sequence[str]) -> str:
    """What more than half say, "" if there is no such sentiment."""
    ((sentiment, count),) = Counter(votes).most_common(1)
    return sentiment if 2 * count > len(votes) else ""


def _merged(text: str, image: str) -> str:
    """The tweet's sentiment, "" if they contradict each other or are not agreed on."""
    if not text or not image or {text, image} == {"positive", "negative"}:
        return ""
    return image if text == "neutral" else text
