"""TEC, the Twitter Emotion Corpus (Mohammad, *SEM 2012): tweets whose hashtag names an emotion.

Layout: `Jan9-2012-tweets-clean.txt`, a tweet a line: number, tab, text, tab, `:: emotion`.

Labels: `emotion`: joy, surprise, sadness, fear, anger, disgust.

Speakers and sessions: not known; no official split. 21,051 tweets, some of them twice.
"""

import re
from collections.abc import Sequence

from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, find_file, read_text
from data_pipeline.errors import UserError

TABLE = "Jan9-2012-tweets-clean.txt"
_LINE = re.compile(r"(\d+):\t(.*)\t:: (\w+)")


@register
class Tec(Corpus):
    """TEC, text only."""

    name = "tec"
    licence = "research only (Twitter Emotion Corpus, NRC Canada)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a tweet; a tweet that stands there again gets a key of its own."""
        name = find_file(source, TABLE)
        found = []
        for number, line in enumerate(read_text(source, name, "TEC").split("\n"), start=1):
            if not line.strip():
                continue
            match = _LINE.fullmatch(line.rstrip())
            if match is None:
                raise UserError(f"TEC: line {number} of {name} is not 'number: text :: emotion'")
            found.append(
                Recording(
                    key=f"tec-{number:05}",
                    split="train",
                    media=None,
                    text=" ".join(match[2].split()),
                    labels={"emotion": match[3]},
                )
            )
        return found
