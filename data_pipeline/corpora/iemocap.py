"""IEMOCAP (Busso et al., Language Resources and Evaluation 2008): dialogues of pairs of actors.

Layout of `IEMOCAP_full_release`:

| file below `Session1` ... `Session5` | what of it is read |
|---|---|
| `dialog/EmoEvaluation/<dialogue>.txt` | a line an utterance: times, name, emotion, three scores |
| `dialog/transcriptions/<dialogue>.txt` | `Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.` |
| `dialog/avi/DivX/<dialogue>.avi` | picture and sound of a dialogue |
| `sentences/wav/<dialogue>/<utterance>.wav` | sound of an utterance |
| `sentences/ForcedAlignment/<dialogue>/<utterance>.wdseg` | words in frames of 10 ms, if there |

Labels: `emotion` is what most raters say (ang, hap, exc, sad, neu, fru, fea, sur, dis, oth), xxx
where they do not agree; `valence`, `activation` and `dominance` are means from 1 to 5. All judged
utterances are taken, played and improvised: 10,039 in the whole release, 5,531 of them ang, hap,
exc, neu or sad.

Speakers and sessions: `Ses01F_impro01_M000` is of session Ses01; a woman wears the markers of the
motion capture (F), a man speaks (M): speaker Ses01M. Two speakers a session; no official split.

Media: the dialogue's video with the utterance's span, for it alone has the face, and its sound is
of the same instant; without a video the utterance's WAV. (What the WAV has that the video's sound
lacks, e.g. less of the partner's voice, is unverified.) The actors are side by side in the picture,
who wears the markers on the left. The release says who wears them, but not where they are; that
rests on three published readers that cut out faces by this rule and do not know of each other.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from data_pipeline.clip import Label, Word
from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, by_stem, decode_western
from data_pipeline.errors import UserError

EVALUATION = re.compile(r"(.*/)?EmoEvaluation/Ses\w+\.txt")
_NUMBER = r"(\d+(?:\.\d+)?)"
JUDGEMENT = re.compile(
    rf"\[{_NUMBER} - {_NUMBER}\]\s+(Ses\d\d[FM]_\w+_[FM]\d+)\s+([a-z]{{3}})\s+"
    rf"\[{_NUMBER}, {_NUMBER}, {_NUMBER}\]"
)
SCORES = ("valence", "activation", "dominance")
TRANSCRIPT = re.compile(r"(Ses\w+)\s+\[.*?\]\s*:(.*)")

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
"""Halves of the picture."""

FRAMES_PER_S = 100
ALIGNED = re.compile(r"(\d+)\s+(\d+)\s+-?\d+\s+(\S+)")
"""First and last frame, score and word of an alignment."""
VARIANT = re.compile(r"\(\d+\)$")
"""Which pronunciation of a word was heard, in `EXCUSE(8)`."""


@register
class Iemocap(Corpus):
    """IEMOCAP."""

    name = "iemocap"
    licence = "research only, by agreement (IEMOCAP, University of Southern California)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a judged utterance, dialogue by dialogue."""
        names = source.names()
        tables = [name for name in names if EVALUATION.fullmatch(name)]
        if not tables:
            raise UserError("IEMOCAP: the source has no EmoEvaluation/Ses*.txt")
        judged = [one for table in tables for one in _judgements(source, table)]
        texts = _transcripts(source, names)
        _check(judged, texts, "transcript")
        sounds, dialogues = by_stem(names, [".wav"]), by_stem(names, [".avi"])
        videos = {one.name: dialogues[one.dialogue] for one in judged if one.dialogue in dialogues}
        _check(judged, sounds | videos, "video and no sound")
        alignments = by_stem(names, [".wdseg"])
        return [
            Recording(
                key=one.name,
                split="train",
                media=videos.get(one.name) or sounds[one.name],
                text=texts[one.name] or None,
                language="en",
                words=_words(source, alignments.get(one.name)),
                speaker=one.session + one.speaks,
                session=one.session,
                labels=one.labels,
                span=one.span if one.name in videos else None,
                region=one.half if one.name in videos else None,
            )
            for one in judged
        ]


@dataclass(frozen=True)
class _Judged:
    """A line of an evaluation table."""

    name: str
    span: tuple[float, float]
    labels: dict[str, Label]

    @property
    def dialogue(self) -> str:
        return self.name.rpartition("_")[0]

    @property
    def session(self) -> str:
        return self.name[:5]

    @property
    def speaks(self) -> str:
        """F or M."""
        return self.name.rpartition("_")[2][0]

    @property
    def half(self) -> tuple[float, float, float, float]:
        """Where the speaker is in the dialogue's picture."""
        wears_markers = self.name[5]
        return LEFT if self.speaks == wears_markers else RIGHT


def _judgements(source: Source, table: str) -> Iterator[_Judged]:
    """The utterances of one dialogue; their lines alone begin with a bracket."""
    lines = decode_western(source.read(table)).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.startswith("["):
            continue
        match = JUDGEMENT.fullmatch(line.strip())
        if match is None:
            raise UserError(
                f"IEMOCAP: line {number} of {table} is not '[begin - end] utterance emotion "
                "[valence, activation, dominance]'"
            )
        begin_s, end_s, name, emotion, *scores = match.groups()
        labels: dict[str, Label] = dict(zip(SCORES, map(float, scores), strict=True))
        yield _Judged(name, (float(begin_s), float(end_s)), {"emotion": emotion} | labels)


def _transcripts(source: Source, names: Sequence[str]) -> dict[str, str]:
    """Text by utterance. Other lines are what was said outside of utterances."""
    tables = [name for name in names if PurePosixPath(name).parent.name == "transcriptions"]
    lines = [line for table in tables for line in decode_western(source.read(table)).splitlines()]
    matches = [match for line in lines if (match := TRANSCRIPT.fullmatch(line.strip()))]
    return {match[1]: " ".join(match[2].split()) for match in matches}


def _check(judged: Sequence[_Judged], found: dict[str, str], what: str) -> None:
    """Every judged utterance must be among those found.

    Raises:
        UserError: names the first that is not.
    """
    missing = [one.name for one in judged if one.name not in found]
    if missing:
        raise UserError(f"IEMOCAP: no {what} of {missing[0]} ({len(missing)} are missing)")


def _words(source: Source, alignment: str | None) -> tuple[Word, ...]:
    """The words of an utterance; none without an alignment (two utterances have none)."""
    if alignment is None:
        return ()
    return parse_alignment(alignment, decode_western(source.read(alignment)))


def parse_alignment(name: str, content: str) -> tuple[Word, ...]:
    """Read `SFrm EFrm SegAScr Word`; what is not spoken (`<sil>`, `++LAUGHTER++`) is left out.

    Raises:
        UserError: a line is no word with its frames; names it and the file.
    """
    words = []
    for line in map(str.strip, content.splitlines()):
        if not line or line.startswith(("SFrm", "Total score")):
            continue
        match = ALIGNED.fullmatch(line)
        if match is None:
            raise UserError(f"IEMOCAP: {name}: {line[:60]!r} is no word with its frames")
        first, last, word = int(match[1]), int(match[2]), match[3]
        if not word.startswith(("<", "++")):
            text = VARIANT.sub("", word).lower()
            words.append(Word(text, first / FRAMES_PER_S, (last + 1) / FRAMES_PER_S))
    return tuple(words)
