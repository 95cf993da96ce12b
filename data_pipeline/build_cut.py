"""Recordings as their files have them: of which bytes, and cut by what is inside where asked for.

That is the subtitles inside a file, where they are looked for and there are some, else its speech.
First all files are looked into, so that an open choice is told before any is read.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from data_pipeline.build_pool import KILLED, BuildPool
from data_pipeline.build_subtitles import choose_all, outcomes_line
from data_pipeline.build_worker import cut, look_inside
from data_pipeline.corpora.base import Recording
from data_pipeline.corpora.source import Source
from data_pipeline.cutting import cut_parts
from data_pipeline.features.subtitles import Subtitles
from data_pipeline.kept import cut_path, read_cuts
from data_pipeline.progress import build_progress, say


class CutApart(NamedTuple):
    """Recordings, none of which is to be cut.

    Attributes:
        recordings: in the corpus's order.
        subtitles: what came of the subtitles inside the media -> files that have some.
    """

    recordings: list[Recording]
    subtitles: Mapping[str, int]


def stamped(recordings: Sequence[Recording], source: Source) -> list[Recording]:
    """The recordings with what tells whether their files are those that were read before."""
    names = {name for one in recordings for name in (one.media, one.image) if name is not None}
    stamps = {name: _stamp(source, name) for name in names}
    return [
        replace(one, stamp=" ".join(stamps[name] for name in (one.media, one.image) if name))
        for one in recordings
    ]


def _stamp(source: Source, name: str) -> str:
    try:
        return source.stamp(name)
    except (OSError, KeyError):  # whoever reads it says so
        return ""


def cut_apart(recordings: Sequence[Recording], work: Path, pool: BuildPool) -> CutApart:
    """The recordings, with numbered parts in the place of those to be cut.

    One that cannot be cut stays whole, with this flaw.

    Raises:
        UserError: which of the subtitles inside a recording is meant cannot be told.
    """
    missing = [one for one in recordings if one.cut and not cut_path(work, one).exists()]
    found, flaws = _look_inside(missing, pool)
    ways = choose_all([one for one in missing if one.key not in flaws], found)
    if seen := Counter(way.outcome for way in ways if way.outcome):
        say([f"subtitles inside files: {outcomes_line(seen)}"])
    with build_progress() as progress:
        task = progress.count("looking for speech", len(missing))
        progress.done(task, len(flaws), quarantined=len(flaws))
        for way, reason in pool.results(cut, ways):
            if reason != "":
                flaws[way.recording.key] = reason or KILLED
            progress.done(task, 1, quarantined=int(reason != ""))
    parts, outcomes = list[Recording](), Counter[str]()
    for one in recordings:
        cuts = read_cuts(cut_path(work, one)) if one.cut and one.key not in flaws else None
        parts += cut_parts(one, cuts, flaws.get(one.key, "")) if one.cut else [one]
        outcomes.update([cuts.outcome] if cuts and cuts.outcome else [])
    return CutApart(parts, dict(sorted(outcomes.items())))


def _look_inside(
    recordings: Sequence[Recording], pool: BuildPool
) -> tuple[dict[str, Subtitles], dict[str, str]]:
    """The subtitles inside the recordings in which they are looked for, by key.

    And why some cannot be looked into: those are not cut by their speech, as if they had none.
    """
    asked = [one for one in recordings if one.subtitles is not None]
    found, flaws = dict[str, Subtitles](), dict[str, str]()
    with build_progress() as progress:
        task = progress.count("looking for subtitles", len(asked))
        for recording, subtitles in pool.results(look_inside, asked):
            if isinstance(subtitles, Subtitles):
                found[recording.key] = subtitles
            else:
                flaws[recording.key] = subtitles or KILLED
            progress.done(task, 1)
    return found, flaws
