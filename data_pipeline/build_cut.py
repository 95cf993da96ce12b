"""Recordings as their files have them: of which bytes, and cut by their speech where asked for."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data_pipeline.build_pool import KILLED, BuildPool
from data_pipeline.build_worker import cut
from data_pipeline.corpora.base import Recording, numbered
from data_pipeline.corpora.source import Source
from data_pipeline.kept import cut_path
from data_pipeline.progress import build_progress

SILENT = "no speech was found in it"


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


def cut_apart(recordings: Sequence[Recording], work: Path, pool: BuildPool) -> list[Recording]:
    """The recordings, with numbered parts in the place of those to be cut by their speech.

    One that cannot be cut stays whole, with this flaw.
    """
    flaws: dict[str, str] = {}
    missing = [one for one in recordings if one.cut and not cut_path(work, one).exists()]
    with build_progress() as progress:
        task = progress.count("looking for speech", len(missing))
        for recording, reason in pool.results(cut, missing):
            if reason != "":
                flaws[recording.key] = reason or KILLED
            progress.done(task, 1, quarantined=int(reason != ""))
    return [part for one in recordings for part in _cut_parts(one, work, flaws.get(one.key, ""))]


def _cut_parts(recording: Recording, work: Path, flaw: str) -> list[Recording]:
    """The parts of a recording that is to be cut; the whole with a flaw, also if nobody speaks."""
    if not recording.cut:
        return [recording]
    spans = None if flaw else json.loads(cut_path(work, recording).read_text("utf8"))
    flaw = SILENT if spans == [] else flaw
    return [
        replace(
            recording,
            key=numbered(recording.key, number),
            span=span and (span[0], span[1]),
            cut=False,
            flaw=flaw,
        )
        for number, span in enumerate(spans or [None], start=1)
    ]
