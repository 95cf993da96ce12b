"""Corpus + encoders -> shards: in parallel, and continued where it was stopped.

Every finished clip is kept as a small tar in `<out>.partial/clips/`, written under a temporary name
and renamed, so a build that was killed goes on with the clips that are missing. Recordings of one
media file are decoded together; a file that its corpus wants cut by its speech is cut before, and
the cuts are kept in `<out>.partial/cuts/`. At the end the clips are put into shards in the corpus's
own order: the same corpus and encoders give the same bytes, whatever the number of processes or
interruptions.
"""

import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from ctypes import c_bool
from dataclasses import dataclass, field, replace
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
from data_pipeline.corpora.base import Recording, load_corpus, numbered
from data_pipeline.corpora.source import Source, open_source, unpacked
from data_pipeline.errors import UserError
from data_pipeline.features.activity import find_utterances
from data_pipeline.features.extract import (
    SAMPLE_RATE,
    SPEECH_GROUP,
    Extractor,
    ExtractSettings,
    Part,
    describe,
    show_name,
)
from data_pipeline.features.video import MediaError, decode_track
from data_pipeline.features.weights import find_face_weights, find_speech_weights
from data_pipeline.quarantine import QUARANTINE, Quarantine
from data_pipeline.shards.dataset import NAME, FaceSchema, FeatureSchema, SpeechSchema
from data_pipeline.shards.writer import ShardWriter

CLIPS = "clips"
CUTS = "cuts"
SILENT = "no speech was found in it"


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
        options: of the corpus, by name.
    """

    corpus: str
    source: Path
    out: Path
    extract: ExtractSettings
    name: str | None = None
    workers: int = 2
    samples_per_shard: int = 100
    max_broken: int = 100
    options: Mapping[str, Path] = field(default_factory=dict)


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
    corpus = load_corpus(settings.corpus, settings.options)
    recordings = corpus.recordings(open_source(settings.source))
    _check_recordings(recordings)
    settings = replace(settings, extract=_find_encoders(settings, recordings))
    extractor = Extractor.load(settings.extract)
    work = _open_work_folder(settings, extractor)
    settings = replace(settings, source=unpacked(settings.source, work))
    quarantine = Quarantine(work / QUARANTINE, settings.max_broken)
    with _processes(settings, work) as pool:
        recordings = _cut_apart(recordings, work / CUTS, pool)
        _check_recordings(recordings)
        _extract_missing(settings, recordings, work / CLIPS, quarantine, pool)
    if not any(True for _ in _finished(recordings, work / CLIPS)):
        raise UserError(f"no recording of {settings.source} can be used; see {work / QUARANTINE}")
    samples: dict[str, int] = {}
    with ShardWriter(
        settings.out,
        name=name,
        corpus=settings.corpus,
        licence=corpus.licence,
        features=feature_schema(extractor),
        samples_per_shard=settings.samples_per_shard,
    ) as writer:
        finished = set()
        for split, clip in _finished(recordings, work / CLIPS):
            writer.write(split, clip)
            samples[split] = samples.get(split, 0) + 1
            finished.add(clip.key)
        broken = [one.key for one in recordings if one.key not in finished]
        if broken:
            writer.add_file(QUARANTINE, quarantine.lines(broken).encode())
    shutil.rmtree(work)
    return BuildResult(samples, len(broken))


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
        UserError: a key or a split that no clip can have, or two recordings with one key; names
            the files.
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
        if not re.fullmatch(NAME, recording.split):
            raise UserError(
                f"{recording.key}: {recording.split!r} cannot be a split; its name has letters, "
                "digits, - and _ only"
            )
        media[recording.key] = recording.media


def feature_schema(extractor: Extractor) -> FeatureSchema:
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
    for folder in (CLIPS, CUTS):
        (work / folder).mkdir(parents=True, exist_ok=True)
    made_by = {
        "corpus": settings.corpus,
        "source": str(settings.source.resolve()),
        "options": {name: str(path.resolve()) for name, path in settings.options.items()},
        "schema": feature_schema(extractor).model_dump(mode="json"),
    }
    record = work / "made_by.json"
    if record.exists() and record.read_text("utf8") != json.dumps(made_by):
        raise UserError(f"{work} was left by a build with other settings; remove it to start anew")
    _write_atomically(record, json.dumps(made_by).encode())
    return work


def _cut_apart(recordings: Sequence[Recording], cuts: Path, pool: Executor) -> list[Recording]:
    """The recordings, with numbered parts in the place of those to be cut by their speech."""
    missing = [one for one in recordings if one.cut and not _cut_path(cuts, one).exists()]
    with _progress() as progress:
        task = progress.add_task("looking for speech", total=len(missing), visible=bool(missing))
        for future in as_completed([pool.submit(_cut, recording) for recording in missing]):
            future.result()
            progress.advance(task)
    return [part for one in recordings for part in (_cut_parts(one, cuts) if one.cut else [one])]


def _cut_parts(recording: Recording, cuts: Path) -> list[Recording]:
    """The parts of a recording that has been cut; itself where nobody speaks, with this flaw."""
    spans = json.loads(_cut_path(cuts, recording).read_text("utf8"))
    flaw = SILENT if spans == [] else ""
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


def _extract_missing(
    settings: BuildSettings,
    recordings: Sequence[Recording],
    clips: Path,
    quarantine: Quarantine,
    pool: Executor,
) -> None:
    """Decode and encode every recording that needs it and has no finished clip yet."""
    missing = [
        recording
        for recording in recordings
        if not _is_plain(recording)
        and not _flaw(recording)
        and not _clip_path(clips, recording).exists()
    ]
    for recording in recordings:
        if flaw := _flaw(recording):
            quarantine.add("", recording.key, show_name(recording.media or ""), flaw)
            quarantine.check()
    with _progress() as progress:
        task = progress.add_task(settings.corpus, total=len(recordings))
        progress.advance(task, len(recordings) - len(missing))
        futures = {pool.submit(_extract, file): file for file in _files(missing)}
        for future in as_completed(futures):
            for recording, reason in future.result():
                quarantine.add("", recording.key, show_name(recording.media or ""), reason)
                quarantine.check()
            progress.advance(task, len(futures[future]))


def _files(recordings: Sequence[Recording]) -> list[list[Recording]]:
    """The recordings of each media file; those that have none alone."""
    files: dict[str, list[Recording]] = {}
    for recording in recordings:
        name = f"key {recording.key}" if recording.media is None else f"media {recording.media}"
        files.setdefault(name, []).append(recording)
    return list(files.values())


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn())


@contextmanager
def _processes(settings: BuildSettings, work: Path) -> Iterator[Executor]:
    """The processes of a build; what has begun is soon left off when the build is stopped.

    Raises:
        UserError: one of them was killed.
    """
    context = multiprocessing.get_context("spawn")
    stopped = context.RawValue(c_bool, False)  # without a lock, which a killed process would keep
    pool = ProcessPoolExecutor(
        settings.workers,
        context,
        _start_worker,
        (settings.source, settings.extract, work, stopped),
    )
    with pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise UserError(
                "a process of the build was killed, most likely for want of memory; what is done "
                "is kept: run the same command with fewer --workers"
            ) from None
        except BaseException:
            stopped.value = True
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass
class _Worker:
    source: Source
    extractor: Extractor
    work: Path
    stopped: c_bool


_worker: _Worker | None = None
"""What one process of the pool works with; set when it starts."""


def _start_worker(source: Path, extract: ExtractSettings, work: Path, stopped: c_bool) -> None:
    global _worker  # noqa: PLW0603  (a pool's initialiser has no other way to hand something on)
    torch.set_num_threads(1)
    _worker = _Worker(open_source(source), Extractor.load(extract), work, stopped)


def _cut(recording: Recording) -> None:
    """In a worker: find the speech of one recording, and keep where it is.

    What cannot be decoded is left whole; it is decoded once more and then quarantined.
    """
    assert _worker is not None, "the pool's initialiser has run"
    assert recording.media is not None, "there is nothing to be cut"
    spans: list[tuple[float, float]] | None = None
    reasons = (MediaError, MemoryError, OSError, KeyError)
    with suppress(*reasons), _worker.source.open(recording.media) as media:
        sound = decode_track(media, SAMPLE_RATE)
        spans = None if sound is None else find_utterances(sound.samples)
    _write_atomically(_cut_path(_worker.work / CUTS, recording), json.dumps(spans).encode())


def _extract(recordings: Sequence[Recording]) -> list[tuple[Recording, str]]:
    """In a worker: the recordings of one file -> finished clips.

    Returns:
        Those that cannot be used, and why. Other exceptions are defects.
    """
    assert _worker is not None, "the pool's initialiser has run"
    failed: list[tuple[Recording, str]] = []
    for recording, part in _decoded(_worker, recordings):
        if _worker.stopped.value:
            break
        try:
            _finish(_worker, recording, part)
        except (MediaError, BadSampleError, MemoryError, cv2.error) as error:
            failed.append((recording, " ".join(str(error).split()) or type(error).__name__))
    return failed


def _decoded(
    worker: _Worker, recordings: Sequence[Recording]
) -> Iterator[tuple[Recording, Part | MediaError | None]]:
    """The recordings of one file, and what there is of each."""
    name = recordings[0].media
    if name is None:
        yield from ((one, None) for one in recordings)
        return
    try:
        media = worker.source.open(name)
    except (OSError, KeyError) as error:
        yield from ((one, MediaError(f"the file cannot be read ({error})")) for one in recordings)
        return
    with media:
        yield from worker.extractor.parts(recordings, media)


def _finish(worker: _Worker, recording: Recording, part: Part | MediaError | None) -> None:
    """Write the clip of one recording."""
    if isinstance(part, MediaError):
        raise part
    clip = worker.extractor.clip(recording, part)
    if recording.image is not None:
        clip = replace(clip, image=_jpeg(worker.source.read(recording.image)))
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
    _write_atomically(_clip_path(worker.work / CLIPS, recording), buffer.getvalue())


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
        if _flaw(recording):
            continue
        if _is_plain(recording):
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


def _flaw(recording: Recording) -> str:
    """Why it cannot be used, as far as that is known before it is decoded."""
    return recording.flaw or (NOTHING if _is_plain(recording) and not recording.text else "")


def _clip_path(clips: Path, recording: Recording) -> Path:
    """Where the finished clip lies."""
    decoded = (recording.media, recording.span, recording.region, recording.aligned_face)
    return clips / f"{_hash(recording.key, *decoded, recording.image)}.tar"


def _cut_path(cuts: Path, recording: Recording) -> Path:
    """Where the spans of a recording that is to be cut lie."""
    return cuts / f"{_hash(recording.media)}.json"


def _hash(*parts: object) -> str:
    """A file's name for what it was made of: a corpus that has changed does not find the old."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _write_atomically(path: Path, content: bytes) -> None:
    """The file is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
