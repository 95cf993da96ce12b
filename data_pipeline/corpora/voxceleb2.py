"""VoxCeleb2 (Chung, Nagrani and Zisserman, Interspeech 2018): talking faces out of interviews.

Layout: `dev/mp4/id00012/21Uxsk56VDQ/00001.mp4` and `test/mp4/...`, or `mp4/...` of one of the parts
alone; the folder of the videos is found by its names, below whatever others. `vox2_meta.csv`, with
the columns VoxCeleb2 ID, Gender and Set, may lie anywhere. The sound that is published apart
(`aac`) is not needed, the videos have it.

Labels: none but `sex` of the person, where the table is there; no text. For pretraining.

Speakers and sessions: the person's id; the session is the YouTube video. Splits: test is what lies
in a folder of that name, or whose person the table puts into the set test; train is the rest.
1,092,009 videos of 5,994 people and 36,237 of 118.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source, find_file, read_table
from data_pipeline.errors import UserError

VIDEO = re.compile(r"(.*/)?(id\d{5})/([\w-]+)/(\d+)\.mp4")
"""Folders, person, YouTube video, and number of the cut."""

META = "vox2_meta.csv"
COLUMNS = ("VoxCeleb2 ID", "Gender", "Set")
SEXES = {"m": "male", "f": "female"}


class _Person(NamedTuple):
    sex: str
    tests: bool


@register
class VoxCeleb2(Corpus):
    """VoxCeleb2: without text and emotion."""

    name = "voxceleb2"
    licence = "CC BY 4.0 for the annotation (VoxCeleb2); the videos are their owners'"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a cut, by name."""
        names = source.names()
        people = _people(source, names)
        videos = [(name, match) for name in names if (match := VIDEO.fullmatch(name))]
        if not videos:
            raise UserError("VoxCeleb2: the source has no mp4/<id>/<video>/<number>.mp4")
        return [_recording(name, match, people.get(match[2])) for name, match in videos]


def _recording(name: str, video: re.Match[str], person: _Person | None) -> Recording:
    folders, speaker, session, number = video.groups(default="")
    tests = "test" in re.split(r"[/_]", folders) or (person is not None and person.tests)
    return Recording(
        key=f"{speaker}-{session}-{number}",
        split="test" if tests else "train",
        media=name,
        speaker=speaker,
        session=session,
        labels={"sex": person.sex} if person else {},
    )


def _people(source: Source, names: Sequence[str]) -> dict[str, _Person]:
    """What the table says of each person; nothing without it. Its cells have spaces around them.

    Raises:
        UserError: a column is missing, or a line has neither m nor f.
    """
    table = find_file(source, META)
    if table not in names:
        return {}
    found = {}
    for number, row in enumerate(read_table(source, table, "VoxCeleb2", ()), start=2):
        cells = {name.strip(): value.strip() for name, value in row.items()}
        missing = [name for name in COLUMNS if name not in cells]
        if missing:
            raise UserError(f"VoxCeleb2: {table} has no column {missing[0]!r}")
        speaker, sex, part = (cells[name] for name in COLUMNS)
        if sex not in SEXES:
            raise UserError(f"VoxCeleb2: line {number} of {table} has Gender={sex!r}, not m or f")
        found[speaker] = _Person(SEXES[sex], part == "test")
    return found
