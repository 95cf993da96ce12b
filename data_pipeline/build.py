"""Corpus + encoders -> shards: in parallel, and continued where it was stopped.

Every finished clip is kept as a small tar in `<out>.partial/clips/`, written under a temporary name
and renamed, so a build that was killed goes on with the clips that are missing. At the end the
clips are put into shards in the corpus's own order: the same corpus and encoders give the same
bytes, whatever the number of processes or interruptions.
"""

import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_pipeline.clip import (
    LONGEST_KEY,
    NOTHING,
    BadSampleError,
    Clip,
    clip_from_members,
    clip_members,
    is_key,
)
from data_pipeline.corpora.base import Recording, load_corpus
from data_pipeline.corpora.source import Source, open_source, unpacked
from data_pipeline.errors import UserError
from data_pipeline.features.extract import SPEECH_GROUP, Extractor, ExtractSettings, describe
from data_pipeline.features.video import MediaError
from data_pipeline.features.weights import find_face_weights, find_speech_weights
from data_pipeline.quarantine import QUARANTINE, Quarantine
from data_pipeline.shards.dataset import NAME, FaceSchema, FeatureSchema, SpeechSchema
from data_pipeline.shards.writer import ShardWriter


@dataclass(frozen=True)
class BuildSettings:
    """One build.

    Attributes:
        corpus: name of a registered corpus.
        source: its raw files, a folder, an archive or a table.
        out: folder of the new dataset; must not exist.
        extract: the encoders; weights that are None are looked for.
        name: of the dataset; the corpus's if not given.
        workers: processes, each with one thread.
        samples_per_shard: clips of one tar.
        max_broken: stop after this many recordings that cannot be used.
    """

    corpus: str
    source: Path
    out: Path
    extract: ExtractSettings
    name: str | None = None
    workers: int = 2
    samples_per_shard: int = 100
    max_broken: int = 100


@dataclass(frozen=True)
class BuildResult:
    """What came out: clips written to each split, and recordings that could not be decoded."""

    samples: dict[str, int]
    quarantined: int


def build_dataset(settings: BuildSettings) -> BuildResult:
    """Build the dataset.

    Raises:
        UserError: an existing output, an unknown corpus or encoder, a source without the corpus's
            layout, a partial build with other settings, too many or only broken recordings.
    """
    if settings.out.exists():
        raise UserError(f"--out: {settings.out} exists already; give a new folder or remove it")
    name = settings.name or settings.corpus
    if not re.fullmatch(NAME, name):
        raise UserError(f"--name: {name!r}; a name has letters, digits, - and _ only")
    corpus = load_corpus(settings.corpus)
    recordings = corpus.recordings(open_source(settings.source))
    _check_recordings(recordings)
    settings = replace(settings, extract=_find_encoders(settings, recordings))
    extractor = Extractor.load(settings.extract)
    work = _open_work_folder(settings, extractor)
    settings = replace(settings, source=unpacked(settings.source, work))
    quarantine = Quarantine(work / QUARANTINE, settings.max_broken)
    _extract_missing(settings, recordings, work / "clips", quarantine)
    if not any(True for _ in _finished(recordings, work / "clips")):
        raise UserError(f"no recording of {settings.source} can be used; see {work / QUARANTINE}")
    samples: dict[str, int] = {}
    with ShardWriter(
        settings.out,
        name=name,
        corpus=settings.corpus,
        licence=corpus.licence,
        features=_schema(extractor),
        samples_per_shard=settings.samples_per_shard,
    ) as writer:
        for split, clip in _finished(recordings, work / "clips"):
            writer.write(split, clip)
            samples[split] = samples.get(split, 0) + 1
        quarantined = len(recordings) - sum(samples.values())
        if quarantined:
            writer.add_file(QUARANTINE, (work / QUARANTINE).read_bytes())
    shutil.rmtree(work)
    return BuildResult(samples, quarantined)


def _find_encoders(settings: BuildSettings, recordings: Sequence[Recording]) -> ExtractSettings:
    """The encoders with their weights; none where there is nothing to see or hear.

    Raises:
        UserError: weights cannot be found.
    """
    asked = settings.extract
    if all(one.media is None for one in recordings):
        return replace(asked, face_weights=None, speech_weights=None)
    return replace(
        asked,
        face_weights=asked.face_weights or find_face_weights(),
        speech_weights=asked.speech_weights
        or find_speech_weights(asked.speech_encoder, settings.source),
    )


def _check_recordings(recordings: Sequence[Recording]) -> None:
    """Every recording must be able to become a clip, before hours are spent on them.

    Raises:
        UserError: a key that no clip can have, or two recordings with one key; names the files.
    """
    media: dict[str, str | None] = {}
    for recording in recordings:
        if not is_key(recording.key):
            raise UserError(
                f"{recording.media}: {recording.key!r:.300} cannot be a clip's key: it is empty, "
                f"longer than {LONGEST_KEY} characters, has a dot or slash, or cannot be shown; "
                "rename the file"
            )
        if recording.key in media:
            raise UserError(
                f"{media[recording.key]} and {recording.media} would both be clip "
                f"{recording.key!r}; rename one"
            )
        media[recording.key] = recording.media


def _schema(extractor: Extractor) -> FeatureSchema:
    """The feature schema of what this extractor makes."""
    face, speech = extractor.face, extractor.speech
    return FeatureSchema(
        face=face
        and FaceSchema(
            dim=face.dim,
            fps=extractor.face_fps,
            classes=list(face.classes),
            encoder=face.name,
            encoder_sha256=face.sha256,
        ),
        speech=speech
        and SpeechSchema(
            dim=speech.dim,
            rows_per_s=speech.rows_per_s / SPEECH_GROUP,
            encoder=speech.name,
            encoder_sha256=speech.sha256,
        ),
    )


def _open_work_folder(settings: BuildSettings, extractor: Extractor) -> Path:
    """`<out>.partial`, new or left by a build with the same corpus and encoders."""
    work = settings.out.with_name(f"{settings.out.name}.partial")
    (work / "clips").mkdir(parents=True, exist_ok=True)
    made_by = {
        "corpus": settings.corpus,
        "source": str(settings.source.resolve()),
        "schema": _schema(extractor).model_dump(mode="json"),
    }
    record = work / "made_by.json"
    if record.exists() and record.read_text("utf8") != json.dumps(made_by):
        raise UserError(f"{work} was left by a build with other settings; remove it to start anew")
    _write_atomically(record, json.dumps(made_by).encode())
    return work


def _extract_missing(
    settings: BuildSettings, recordings: Sequence[Recording], clips: Path, quarantine: Quarantine
) -> None:
    """Decode and encode every recording that needs it and has no finished clip yet."""
    missing = [
        recording
        for recording in recordings
        if not _is_plain(recording) and not _clip_path(clips, recording).exists()
    ]
    for recording in recordings:
        if _is_plain(recording) and not recording.text:
            quarantine.add("", recording.key, "", NOTHING)
            quarantine.check()
    if not missing:
        return
    pool = ProcessPoolExecutor(
        settings.workers,
        multiprocessing.get_context("spawn"),
        _start_worker,
        (settings.source, settings.extract, clips),
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with pool, Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task(settings.corpus, total=len(recordings))
        progress.advance(task, len(recordings) - len(missing))
        futures = {pool.submit(_extract, recording): recording for recording in missing}
        try:
            for future in as_completed(futures):
                _note_failure(future, futures[future], quarantine)
                progress.advance(task)
        except BrokenProcessPool:
            raise UserError(
                "a process of the build was killed, most likely for want of memory; what is done "
                "is kept: run the same command with fewer --workers"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _note_failure(future: "Future[None]", recording: Recording, quarantine: Quarantine) -> None:
    """Quarantine a recording that cannot be used; other exceptions are defects and go on."""
    try:
        future.result()
    except (MediaError, BadSampleError, MemoryError, cv2.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        quarantine.add("", recording.key, recording.media or "", reason)
        quarantine.check()


@dataclass
class _Worker:
    source: Source
    extractor: Extractor
    clips: Path


_worker: _Worker | None = None
"""What one process of the pool works with; set when it starts."""


def _start_worker(source: Path, extract: ExtractSettings, clips: Path) -> None:
    global _worker  # noqa: PLW0603  (a pool's initialiser has no other way to hand something on)
    torch.set_num_threads(1)
    _worker = _Worker(open_source(source), Extractor.load(extract), clips)


def _extract(recording: Recording) -> None:
    """In a worker: one recording -> one finished clip."""
    assert _worker is not None, "the pool's initialiser has run"
    media = None if recording.media is None else _worker.source.read(recording.media)
    clip = _worker.extractor.clip(recording, media)
    if recording.image is not None:
        clip = replace(clip, image=_jpeg(_worker.source.read(recording.image)))
    if not clip.text and clip.face is None and clip.speech is None and clip.image is None:
        raise MediaError(NOTHING)
    members = clip_members(clip)
    clip_from_members(recording.key, dict(members))  # refuses rows that are not finite
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for suffix, content in members:
            member = tarfile.TarInfo(suffix)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    _write_atomically(_clip_path(_worker.clips, recording), buffer.getvalue())


def _jpeg(content: bytes) -> bytes:
    """The content of a JPEG file, if it can be decoded.

    Raises:
        MediaError: it cannot.
    """
    picture = None
    if content.startswith(b"\xff\xd8"):
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
    if picture is None:
        raise MediaError("the image is no JPEG file, or is damaged")
    return content


def _finished(recordings: Sequence[Recording], clips: Path) -> Iterator[tuple[str, Clip]]:
    """Split and clip of every recording that could be decoded, in the corpus's order."""
    for recording in recordings:
        path = _clip_path(clips, recording)
        if _is_plain(recording):
            if recording.text:
                yield recording.split, describe(Clip(recording.key), recording)
        elif path.exists():
            with tarfile.open(path) as tar:
                files = [(member.name, tar.extractfile(member)) for member in tar]
                members = {name: file.read() for name, file in files if file is not None}
            clip = clip_from_members(recording.key, members)
            yield recording.split, describe(clip, recording)  # the corpus may have been corrected


def _is_plain(recording: Recording) -> bool:
    """Whether there is nothing to be decoded: text alone."""
    return recording.media is None and recording.image is None


def _clip_path(clips: Path, recording: Recording) -> Path:
    """Where the finished clip lies; hashed, for keys may hold what a file system refuses."""
    return clips / f"{hashlib.sha256(recording.key.encode()).hexdigest()[:24]}.tar"


def _write_atomically(path: Path, content: bytes) -> None:
    """The file is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
