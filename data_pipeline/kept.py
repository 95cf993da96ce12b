"""What a build keeps of each recording in `<out>.partial/` until it is done.

Every file is written under a temporary name and renamed, so that a build that was killed finds it
whole or not at all.
"""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from data_pipeline.clip import Clip, Word, clip_from_members, clip_members
from data_pipeline.corpora.base import Recording
from data_pipeline.cutting import Cuts
from data_pipeline.errors import UserError, say_without_path
from data_pipeline.filters import Measures
from data_pipeline.lock import sole_process
from data_pipeline.transcripts import Cue
from data_pipeline.whole_file import write_atomically

CLIPS = "clips"
CUTS = "cuts"
AT_WORK = "at_work"
MADE_BY = "made_by.json"
"""In the work folder: what it was made from; the last of it to be removed."""
_LOCK = "lock"
_MEASURES = "measures.json"
_OUTCOMES = "outcomes.json"


def work_folder(out: Path) -> Path:
    """Where is kept what the build of a dataset has done."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def sole_build(work: Path) -> Iterator[None]:
    """No other process builds in this folder meanwhile.

    Raises:
        UserError: another one does, or a file cannot be written or read.
    """
    work.mkdir(parents=True, exist_ok=True)
    doing = f"{work.with_suffix('')} is being built"
    with sole_process(work / _LOCK, doing, "wait for it, or give another --out"):
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{error.filename or work}: {say_without_path(error)}; what is done is kept in "
                f"{work}: once that is mended, run the same command again"
            ) from error


def empty_work(work: Path) -> None:
    """Remove what is kept, but not the lock of who does so, and the record: see `remove_work`."""
    for one in work.iterdir():
        if one.is_dir():
            shutil.rmtree(one)
        elif one.name not in (MADE_BY, _LOCK):
            one.unlink()


def remove_work(work: Path) -> None:
    """Remove the emptied folder, its record last: a job that was stopped within can tell that.

    The lock is to be free: some network file systems keep a file that is open in its folder.
    """
    (work / _LOCK).unlink(missing_ok=True)
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
    """Where it lies how a recording that is to be cut was cut."""
    made_of = (recording.media, recording.stamp, recording.subtitles)
    return work / CUTS / f"{_hash(*made_of)}.json"


def keep_cuts(path: Path, cuts: Cuts) -> None:
    """Write where a recording is cut."""
    fields = {**cuts._asdict(), "cues": [asdict(cue) for cue in cuts.cues]}
    write_atomically(path, json.dumps(fields).encode())


def read_cuts(path: Path) -> Cuts:
    """What `keep_cuts` has written."""
    fields = json.loads(path.read_text("utf8"))
    spans, cues = fields.pop("spans"), fields.pop("cues")
    return Cuts(
        spans if spans is None else [(begin_s, end_s) for begin_s, end_s in spans],
        [Cue(**{**cue, "words": tuple(Word(*word) for word in cue["words"])}) for cue in cues],
        **fields,
    )


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


def _hash(*parts: object) -> str:
    """A file's name for what it was made of: a corpus that has changed does not find the old."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
