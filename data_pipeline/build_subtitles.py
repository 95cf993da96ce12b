"""Which of the subtitles inside a recording it is cut by, and why by none."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from data_pipeline.corpora.base import Recording
from data_pipeline.corpora.transcript_names import Transcript, language_code, preferred
from data_pipeline.errors import UserError
from data_pipeline.features.subtitles import Subtitles

CHOSEN = "to be read"
TAKEN = "taken"
TAKEN_DAMAGED = "taken, but for damaged lines"
SILENT = "not taken: without speech"
BROKEN = "not taken: cannot be read"
OTHERS = "not taken: in other languages alone"
FORCED = "not taken: forced alone"
PICTURES = "not taken: pictures alone"
UNKNOWN = "not taken: in an unknown form alone"


class CutBy(NamedTuple):
    """How a recording is to be cut.

    Attributes:
        recording: that has no transcript.
        stream: number of the subtitles inside it; None: it is cut by its speech.
        language: of the subtitles, two letters, "" where unknown.
        outcome: why there are none, or `CHOSEN`; "" if nothing is known of any.
    """

    recording: Recording
    stream: int | None = None
    language: str = ""
    outcome: str = ""


def choose_all(recordings: Sequence[Recording], found: Mapping[str, Subtitles]) -> list[CutBy]:
    """How each recording is to be cut.

    Args:
        recordings: in the corpus's order.
        found: the subtitles inside them, by key; of some nothing may be known.

    Raises:
        UserError: a recording has subtitles in several languages, and which one is meant cannot be
            told.
    """
    usable = {
        one.key: usable_texts(one.subtitles or (), found[one.key])
        for one in recordings
        if one.key in found
    }
    _check_one(recordings, usable)
    return [
        _cut_by(one, found[one.key], usable[one.key]) if one.key in found else CutBy(one)
        for one in recordings
    ]


def outcomes_line(outcomes: Counter[str]) -> str:
    """What came of the subtitles inside the recordings, for the terminal."""
    return ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))


def usable_texts(languages: Sequence[str], subtitles: Subtitles) -> list[Transcript]:
    """Those that may be taken, the best first: in the language of the sound, if none is wanted.

    A translation is not what is said. In several languages where it is open which one is meant.
    """
    texts = [one for one in subtitles.texts if not one.forced]
    if not languages and subtitles.sound:
        languages = [language_code(subtitles.sound)]
    return preferred(texts, languages)


def why_none(subtitles: Subtitles) -> str:
    """Why none may be taken of those inside a file, "" if there are none."""
    forced = [one.forced for one in subtitles.texts]
    reasons = (
        (OTHERS, bool(forced) and not all(forced)),
        (FORCED, bool(forced)),
        (PICTURES, subtitles.pictures),
        (UNKNOWN, subtitles.others),
    )
    return next((why for why, so in reasons if so), "")


def languages_of(texts: Iterable[Transcript]) -> list[str]:
    """Their languages, by code; "" of those that say none."""
    return sorted({language_code(text.language) for text in texts})


def _check_one(recordings: Sequence[Recording], usable: Mapping[str, list[Transcript]]) -> None:
    """All that may be taken of a recording must be in one language.

    Raises:
        UserError: it is not.
    """
    languages = {one.media: languages_of(usable.get(one.key, ())) for one in recordings}
    several = {media: of for media, of in languages.items() if len(of) > 1}
    if several:
        media, of = next(iter(several.items()))
        more = f" ({len(several) - 1:,} more have several)" if len(several) > 1 else ""
        raise UserError(
            f"{media} has subtitles in {', '.join(of)} inside, and does not say in which its sound "
            f"is{more}; say which with --language {of[0]}, that of what is spoken"
        )


def _cut_by(recording: Recording, subtitles: Subtitles, usable: list[Transcript]) -> CutBy:
    if usable:
        return CutBy(recording, int(usable[0].name), usable[0].code, CHOSEN)
    return CutBy(recording, outcome=why_none(subtitles))
