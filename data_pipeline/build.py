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
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_pipeline.clip import Clip, clip_from_members, clip_members
from data_pipeline.corpora.base import Recording, load_corpus
from data_pipeline.corpora.source import Source, open_source
from data_pipeline.errors import UserError
from data_pipeline.features.extract import SPEECH_GROUP, Extractor, ExtractSettings
from data_pipeline.features.video import MediaError
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.dataset import FaceSchema, FeatureSchema, SpeechSchema
from data_pipeline.shards.writer import ShardWriter


@dataclass(frozen=True)
class BuildSettings:
    """One build.

    Attributes:
        corpus: name of a registered corpus.
        source: its raw files, a folder or a tar archive.
        out: folder of the new dataset; must not exist.
        extract: the encoders.
        workers: processes, each with one thread.
        samples_per_shard: clips of one tar.
        max_quarantined: stop after this many broken recordings.
    """

    corpus: str
    source: Path
    out: Path
    extract: ExtractSettings
    workers: int = 2
    samples_per_shard: int = 100
    max_quarantined: int = 100


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
    corpus = load_corpus(settings.corpus)
    recordings = corpus.recordings(open_source(settings.source))
    extractor = Extractor(settings.extract)
    work = _open_work_folder(settings, extractor)
    quarantine = Quarantine(work / "quarantine.jsonl", settings.max_quarantined)
    _extract_missing(settings, recordings, work / "clips", quarantine)
    if not any((work / "clips").glob("*.tar")):
        raise UserError(f"no recording of {settings.source} can be decoded; see {work}")
    samples: dict[str, int] = {}
    with ShardWriter(
        settings.out,
        name=settings.corpus,
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
        shutil.copy(work / "quarantine.jsonl", settings.out / "quarantine.jsonl")
    shutil.rmtree(work)
    return BuildResult(samples, quarantined)


def _schema(extractor: Extractor) -> FeatureSchema:
    """The feature schema of what this extractor makes."""
    return FeatureSchema(
        face=FaceSchema(
            dim=extractor.face.dim,
            fps=extractor.face_fps,
            classes=list(extractor.face.classes),
            encoder=extractor.face.name,
            encoder_sha256=extractor.face.sha256,
        ),
        speech=SpeechSchema(
            dim=extractor.speech.dim,
            rows_per_s=extractor.speech.rows_per_s / SPEECH_GROUP,
            encoder=extractor.speech.name,
            encoder_sha256=extractor.speech.sha256,
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
    if record.exists() and json.loads(record.read_text("utf8")) != made_by:
        raise UserError(f"{work} was left by a build with other settings; remove it to start anew")
    _write_atomically(record, json.dumps(made_by).encode())
    return work


def _extract_missing(
    settings: BuildSettings, recordings: Sequence[Recording], clips: Path, quarantine: Quarantine
) -> None:
    """Decode and encode every recording that has no finished clip yet."""
    missing = [recording for recording in recordings if not _clip_path(clips, recording).exists()]
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
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _note_failure(future: "Future[None]", recording: Recording, quarantine: Quarantine) -> None:
    """Quarantine a recording that cannot be decoded; other exceptions are defects and go on."""
    try:
        future.result()
    except MediaError as error:
        quarantine.add("", recording.key, recording.media or "", str(error))


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
    _worker = _Worker(open_source(source), Extractor(extract), clips)


def _extract(recording: Recording) -> None:
    """In a worker: one recording -> one finished clip."""
    assert _worker is not None, "the pool's initialiser has run"
    media = None if recording.media is None else _worker.source.read(recording.media)
    clip = _worker.extractor.clip(recording, media)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for suffix, content in clip_members(clip):
            member = tarfile.TarInfo(suffix)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    _write_atomically(_clip_path(_worker.clips, recording), buffer.getvalue())


def _finished(recordings: Sequence[Recording], clips: Path) -> Iterator[tuple[str, Clip]]:
    """Split and clip of every recording that could be decoded, in the corpus's order."""
    for recording in recordings:
        path = _clip_path(clips, recording)
        if path.exists():
            with tarfile.open(path) as tar:
                files = [(member.name, tar.extractfile(member)) for member in tar]
                members = {name: file.read() for name, file in files if file is not None}
            yield recording.split, clip_from_members(recording.key, members)


def _clip_path(clips: Path, recording: Recording) -> Path:
    """Where the finished clip lies; hashed, for keys may hold what a file system refuses."""
    return clips / f"{hashlib.sha256(recording.key.encode()).hexdigest()[:24]}.tar"


def _write_atomically(path: Path, content: bytes) -> None:
    """The file is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
