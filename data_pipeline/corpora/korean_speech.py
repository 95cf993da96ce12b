"""Korean speech: acted emotions of 15 speakers, and 16 voices of different personality.

Layout, as in the repository `emotiontts/emotiontts_open_db`: `wav/nea00101.wav` and
`transcript/nea00101.txt`, in whatever folders; the name is the speaker and a number, the hundreds
of which tell the emotion. Or `<wav>` and `manifest.tsv` with the columns wav, part, speaker,
emotion, text.

Labels: `emotion` of the 300 clips of part Emotional: neutral, joy, anger, sadness. The 463 of part
Personality have none and serve pretraining.

Speakers and sessions: the first three letters of a name, as in the table; the session is the part.
No official split: folds go by speaker.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, by_stem, check_files, read_table, read_text
from data_pipeline.errors import UserError

MANIFEST = "manifest.tsv"
COLUMNS = ("wav", "part", "speaker", "emotion", "text")
NAME = re.compile(r"(?P<speaker>(?P<kind>ne|em|pf|pm)[a-z])(?P<number>\d{5})")
PARTS = {"ne": "Emotional", "em": "Emotional", "pf": "Personality", "pm": "Personality"}
EMOTIONS = ("neutral", "joy", "anger", "sadness")
"""Of the numbers 1 to 100, 101 to 200 and so on of the first part."""


@register
class KoreanSpeech(Corpus):
    """Korean emotional and personality speech."""

    name = "korean_speech"
    licence = "CC BY-NC-SA, research only (Korean emotional and personality speech)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a manifest line, in its order; or one a sound, by name."""
        names = source.names()
        if MANIFEST in names:
            return _from_manifest(source)
        sounds, texts = by_stem(names, (".wav",)), by_stem(_transcripts(names), (".txt",))
        found = {stem: NAME.fullmatch(stem) for stem in sorted(sounds)}
        named = {stem: match for stem, match in found.items() if match}
        if not named:
            raise UserError(
                f"Korean speech: the source has no {MANIFEST} and no wav/nea00001.wav and others"
            )
        return [
            _recording(source, sounds[stem], texts.get(stem), match)
            for stem, match in named.items()
        ]


def _transcripts(names: Sequence[str]) -> list[str]:
    """What was said; `script` has what should have been."""
    return [name for name in names if PurePosixPath(name).parent.name == "transcript"]


def _from_manifest(source: Source) -> list[Recording]:
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


def _recording(source: Source, media: str, text: str | None, match: re.Match[str]) -> Recording:
    part, place = PARTS[match["kind"]], (int(match["number"]) - 1) // 100
    if part == "Emotional" and place not in range(len(EMOTIONS)):
        raise UserError(f"Korean speech: {media} has a number beyond those of the four emotions")
    words = read_text(source, text, "Korean speech") if text else ""
    return Recording(
        key=match[0],
        split="train",
        media=media,
        text=" ".join(words.split()) or None,
        language="ko",
        speaker=match["speaker"],
        session=part,
        labels={"emotion": EMOTIONS[place]} if part == "Emotional" else {},
    )
