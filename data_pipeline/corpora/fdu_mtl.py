"""FDU-MTL (Liu, Qiu and Huang, ACL 2017): reviews of 16 kinds, positive or negative.

Layout: `<domain>.task.{train,test,unlabel}`, a review a line; labelled ones begin with 1 or 0 and a
tab. A review without words (there is one) is left out. Some reviews occur more than once, also in
train and test of one domain; they are kept, for the published figures are of the files as they are.

Labels: `sentiment`, positive or negative.

Speakers and sessions: speakers are not known; the session is the domain. Splits: train, test and
unlabelled, as published.
"""

from collections.abc import Iterator, Sequence

from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, decode_western, find_file
from data_pipeline.errors import UserError

DOMAINS = (
    "books", "electronics", "dvd", "kitchen_housewares", "apparel", "camera_photo",
    "health_personal_care", "music", "toys_games", "video", "baby", "magazines", "software",
    "sports_outdoors", "imdb", "MR",
)  # fmt: skip
"""In the order of the paper's tables."""

SPLITS = {"train": "train", "test": "test", "unlabel": "unlabelled"}
"""Suffix of the file -> split."""

SENTIMENTS = {"1": "positive", "0": "negative"}


@register
class FduMtl(Corpus):
    """FDU-MTL, text only."""

    name = "fdu_mtl"
    licence = "research only (Amazon, IMDB and Rotten Tomatoes reviews)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a line, domain by domain."""
        return [
            recording
            for domain in DOMAINS
            for suffix, split in SPLITS.items()
            for recording in _reviews(source, domain, suffix, split)
        ]


def _reviews(source: Source, domain: str, suffix: str, split: str) -> Iterator[Recording]:
    name = f"{domain}.task.{suffix}"
    try:
        lines = source.read(find_file(source, name)).split(b"\n")
    except KeyError:
        raise UserError(f"FDU-MTL: the source has no {name}") from None
    for number, line in enumerate(lines, start=1):
        label, tab, text = "", "", decode_western(line)
        if suffix != "unlabel" and line:
            label, tab, text = text.partition("\t")
            if not tab or label not in SENTIMENTS:
                raise UserError(f"FDU-MTL: line {number} of {name} does not begin with 0 or 1")
        if text := " ".join(text.split()):
            yield Recording(
                key=f"{domain}-{split}-{number:04}",
                split=split,
                media=None,
                text=text,
                language="en",
                session=domain,
                labels={"sentiment": SENTIMENTS[label]} if label else {},
            )
