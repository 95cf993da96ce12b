"""MSP-IMPROV (Busso et al., IEEE Transactions on Affective Computing 2017): pairs of actors.

Layout, in whatever folders:

| file | what of it is read |
|---|---|
| `Evalution.txt` (also `Evaluation.txt`) | a line a turn; those of its raters after it |
| `session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.avi` | picture and sound of a turn |
| the same name with `.wav` | its sound alone |
| `Human_transcriptions/.../<the same name>.txt` | its text, where it was written down |

A line of the table is `UTD-IMPROV-S01A-F01-P-FM01.avi; A; A:3.1; V:2.2; D:3.4 ; N:4.0;`: the videos
may be called UTD-IMPROV too. In `S01A-F01-P-FM01` stand the sentence (01-20) and the emotion that
was to be played (A, H, N, S), the speaker, the scenario, and the number of the turn.

Labels: `emotion` is what most raters say: A(nger), H(appiness), N(eutral), S(adness), O(ther), and
X where they do not agree; `activation`, `valence`, `dominance` and `naturalness` are means from 1
to 5; `scenario` is read or target (the sentence itself, read or improvised), improvised (other
turns of the scene) or natural (between the scenes).

Speakers and sessions: F01 and M01 to F06 and M06, a pair a session; no official split.

Sure are the names, the table and the folders, on which public readers agree. A published list of
7,787 turns tells the rest: of each scenario it has, to within ten, as many as the paper's Table 4
has with four emotions (R 578, T 640, S 3,937, P 2,632), and what the third field says is the
speaker, for only so do both partners speak about equally often in a scene. Unverified: that all
videos have sound.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from data_pipeline.clip import Label
from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, by_stem, decode_western
from data_pipeline.errors import UserError

TABLES = ("Evalution.txt", "Evaluation.txt")
TRANSCRIPTS = "human_transcriptions"
"""Part of their folders' names, in lower case; other transcripts are a machine's."""

TURN = re.compile(r"(?:MSP|UTD)-IMPROV-(S\d\d[AHNS]-([FM]0([1-6]))-([PRST])-\w+)")
"""The turn, its speaker, session and scenario."""

SCENARIOS = {"R": "read", "T": "target", "S": "improvised", "P": "natural"}
EMOTIONS = "AHNSOX"
SCORES = {"A": "activation", "V": "valence", "D": "dominance", "N": "naturalness"}


@register
class MspImprov(Corpus):
    """MSP-IMPROV."""

    name = "msp_improv"
    licence = "academic research only, by agreement (MSP-IMPROV, University of Texas at Dallas)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a turn, in the table's order."""
        names = source.names()
        table = next((name for name in names if PurePosixPath(name).name in TABLES), None)
        if table is None:
            raise UserError(f"MSP-IMPROV: the source has no {TABLES[0]}")
        media = _by_turn(names, [".avi", ".mp4", ".wav"])
        written = _by_turn([name for name in names if TRANSCRIPTS in name.lower()], [".txt"])
        judged = list(_judgements(table, decode_western(source.read(table))))
        missing = [turn[1] for turn, _ in judged if turn[1] not in media]
        if missing:
            raise UserError(
                f"MSP-IMPROV: no file of turn {missing[0]} ({len(missing)} are missing)"
            )
        return [
            Recording(
                key=f"MSP-IMPROV-{turn[1]}",
                split="train",
                media=media[turn[1]],
                text=_text(source, written.get(turn[1])),
                language="en",
                speaker=turn[2],
                session=f"session{turn[3]}",
                labels={**labels, "scenario": SCENARIOS[turn[4]]},
            )
            for turn, labels in judged
        ]


def _by_turn(names: Sequence[str], suffixes: Sequence[str]) -> dict[str, str]:
    """Files by the turn in their names."""
    files = by_stem(names, suffixes).items()
    return {match[1]: name for stem, name in files if (match := TURN.fullmatch(stem))}


def _judgements(table: str, content: str) -> Iterator[tuple[re.Match[str], dict[str, Label]]]:
    """Turn and labels of each line that is about one; the others are single raters'."""
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.startswith(("UTD-", "MSP-")):
            continue
        video, *cells = (cell.strip() for cell in line.split(";"))
        turn = TURN.fullmatch(PurePosixPath(video).stem)
        scores = _scores(cells[1:])
        if turn is None or scores is None or not cells or cells[0] not in list(EMOTIONS):
            raise UserError(
                f"MSP-IMPROV: line {number} of {table} is not 'UTD-IMPROV-<turn>.avi; emotion; "
                "A:score; V:score; ...'"
            )
        yield turn, {"emotion": cells[0], **scores}


def _scores(cells: Sequence[str]) -> dict[str, float] | None:
    """Read `A:3.1`, ...; what nobody judged (NaN) is left out. None: a cell is none of these."""
    found = {}
    for cell in filter(None, cells):
        letter, _, value = cell.partition(":")
        try:
            score = float(value)
        except ValueError:
            return None
        if letter not in SCORES:
            return None
        if math.isfinite(score):
            found[SCORES[letter]] = score
    return found


def _text(source: Source, transcript: str | None) -> str | None:
    """What was said, on one line; None where it is not known."""
    if transcript is None:
        return None
    return " ".join(decode_western(source.read(transcript)).split()) or None
