"""What a build keeps of each recording in `<out>.partial/` until it is done.

Every file is written under a temporary name and renamed, so that a build that was killed finds it
whole or not at all.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from data_pipeline.clip import Clip, clip_from_members, clip_members
from data_pipeline.corpora.base import Recording
from data_pipeline.filters import Measures

CLIPS = "clips"
CUTS = "cuts"
AT_WORK = "at_work"
MADE_BY = "made_by.json"
"""In the work folder: what it was made from; the last of it to be removed."""
_MEASURES = "measures.json"
_OUTCOMES = "outcomes.json"


def work_folder(out: Path) -> Path:
    """Where is kept what the build of a dataset has done."""
    return out.with_name(f"{out.name}.partial")


def remove_work(work: Path) -> None:
    """Remove the folder, its record last: a job that was stopped within can tell that it was."""
    for one in work.iterdir():
        if one.is_dir():
            shutil.rmtree(one)
        elif one.name != MADE_BY:
            one.unlink()
    shutil.rmtree(work)


class Kept(NamedTuple):
    """What is kept of a recording.

    Attributes:
        clip: None if a filter has dropped it.
        measures: by which filters judge it.
        outcomes: of recognising and aligning what is said in it.
    """

    clip: Clip | None
    measures: Measures
    outcomes: tuple[str, ...] = ()


def clip_path(work: Path, recording: Recording, transcribed: bool) -> Path:
    """Where the finished clip lies.

    Args:
        work: folder of what is kept.
        recording: what the corpus says of it.
        transcribed: the clip depends on what the corpus says of text, language and words.
    """
    decoded = (recording.media, recording.span, recording.region, recording.aligned_face)
    given = (recording.action_units, recording.image)
    said = (recording.text, recording.language, recording.words) if transcribed else ()
    made_of = (recording.key, recording.stamp, *decoded, *given, *said)
    return work / CLIPS / f"{_hash(*made_of)}.tar"


def cut_path(work: Path, recording: Recording) -> Path:
    """Where the spans of a recording that is to be cut lie."""
    return work / CUTS / f"{_hash(recording.media, recording.stamp)}.json"


def keep(path: Path, kept: Kept) -> None:
    """Write what came of a recording.

    Raises:
        BadSampleError: the clip could not be read again, e.g. for rows that are not finite.
    """
    members = [] if kept.clip is None else clip_members(kept.clip)
    if kept.clip is not None:
        clip_from_members(kept.clip.key, dict(members))
    members.append((_MEASURES, json.dumps(asdict(kept.measures)).encode()))
    members.append((_OUTCOMES, json.dumps(kept.outcomes).encode()))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    write_atomically(path, buffer.getvalue())


def read_kept(path: Path, key: str) -> Kept:
    """What `keep` has written."""
    with tarfile.open(path) as tar:
        files = [(member.name, tar.extractfile(member)) for member in tar]
        members = {name: file.read() for name, file in files if file is not None}
    measures = Measures(**json.loads(members.pop(_MEASURES)))
    outcomes = tuple(json.loads(members.pop(_OUTCOMES)))
    return Kept(clip_from_members(key, members) if members else None, measures, outcomes)


def write_atomically(path: Path, content: bytes) -> None:
    """The file is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _hash(*parts: object) -> str:
    """A file's name for what it was made of: a corpus that has changed does not find the old."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
