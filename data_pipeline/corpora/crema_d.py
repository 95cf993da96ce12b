"""CREMA-D (Cao et al., IEEE Transactions on Affective Computing 2014): 91 actors, twelve sentences.

Layout: `VideoFlash/1001_DFA_ANG_XX.flv` (or `.mp4`), `AudioWAV/1001_DFA_ANG_XX.wav` (or `AudioMP3`,
`.mp3`), and `VideoDemographics.csv` with the columns ActorID, Age, Sex. A clip's video is taken,
for it has sound and face, and its sound where there is no video. In the name stand actor, sentence,
emotion and intensity (LO, MD, HI; XX: not asked for; one sound has a single X).

Labels: `emotion`, which the actor was to show, of six; `intensity`, where it was asked for; `sex`
and `age` of the actor, where the table is there.

Speakers and sessions: the actors' numbers; no sessions, no official split. 7,442 clips; every
sentence is said in every emotion, so that the text tells nothing. 1076_MTI_SAD_XX has no sound.
"""

import re
from collections.abc import Sequence

from data_pipeline.clip import Label
from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, by_stem, find_file, read_table
from data_pipeline.errors import UserError

SUFFIXES = (".flv", ".mp4", ".wav", ".mp3")
"""Of media files; the first that there is is taken."""

DEMOGRAPHICS = "VideoDemographics.csv"

SENTENCES = {
    "DFA": "Don't forget a jacket.",
    "IEO": "It's eleven o'clock.",
    "IOM": "I'm on my way to the meeting.",
    "ITH": "I think I have a doctor's appointment.",
    "ITS": "I think I've seen this before.",
    "IWL": "I would like a new alarm clock.",
    "IWW": "I wonder what this is about.",
    "MTI": "Maybe tomorrow it will be cold.",
    "TAI": "The airplane is almost full.",
    "TIE": "That is exactly what happened.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
INTENSITIES = {"LO": "low", "MD": "medium", "HI": "high"}

CLIP = re.compile(rf"(\d{{4}})_({'|'.join(SENTENCES)})_({'|'.join(EMOTIONS)})_(LO|MD|HI|XX?)")


@register
class CremaD(Corpus):
    """CREMA-D."""

    name = "crema_d"
    licence = "Open Database License 1.0 (CREMA-D)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a clip, by name."""
        names = source.names()
        actors = _actors(source, names)
        found = {}
        for stem, name in sorted(by_stem(names, SUFFIXES).items()):
            clip = CLIP.fullmatch(stem)
            if clip is None:
                raise UserError(
                    f"CREMA-D: {name} is not named <actor>_<sentence>_<emotion>_<intensity>"
                )
            # Of one clip the sound ends in X and the video in XX, which comes later and is taken.
            found[clip[0].rstrip("X")] = _recording(clip, name, actors.get(clip[1], {}))
        if not found:
            raise UserError("CREMA-D: the source has no VideoFlash/*.flv and no AudioWAV/*.wav")
        return list(found.values())


def _recording(clip: re.Match[str], media: str, actor: dict[str, Label]) -> Recording:
    number, sentence, emotion, intensity = clip.groups()
    level = INTENSITIES.get(intensity)
    return Recording(
        key=f"{number}_{sentence}_{emotion}_{intensity if level else 'XX'}",
        split="train",
        media=media,
        text=SENTENCES[sentence],
        language="en",
        speaker=number,
        labels={
            "emotion": EMOTIONS[emotion],
            **({"intensity": level} if level else {}),
            **actor,
        },
    )


def _actors(source: Source, names: Sequence[str]) -> dict[str, dict[str, Label]]:
    """Sex and age of each actor; nothing without the table.

    Raises:
        UserError: an age that is no number.
    """
    table = find_file(source, DEMOGRAPHICS)
    if table not in names:
        return {}
    rows = read_table(source, table, "CREMA-D", ("ActorID", "Age", "Sex"))
    for row in rows:
        if not row["Age"].isdecimal():
            raise UserError(f"CREMA-D: {table} has Age={row['Age']!r} of actor {row['ActorID']}")
    return {row["ActorID"]: {"sex": row["Sex"].lower(), "age": int(row["Age"])} for row in rows}
