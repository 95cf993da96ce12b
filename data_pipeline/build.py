"""Corpus + encoders -> shards: in parallel, and continued where it was stopped.

Every finished clip is kept as a small tar in `<out>.partial/clips/`, written under a temporary name
and renamed, so a build that was killed goes on with the clips that are missing. Recordings of one
media file are decoded together; a file that its corpus wants cut by its speech, or by the subtitles
inside it, is cut before, and the cuts are kept in `<out>.partial/cuts/`. At the end the clips are
put into shards in the corpus's own order: the same corpus and encoders give the same bytes,
whatever the number of processes or interruptions.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from data_pipeline.build_broken import BrokenFiles
from data_pipeline.build_check import check_recordings
from data_pipeline.build_cut import CutApart, cut_apart, stamped
from data_pipeline.build_models import find_encoders, find_transcribers
from data_pipeline.build_part import BuildPart
from data_pipeline.build_pool import KILLED, BuildPool, open_pool
from data_pipeline.build_report import (
    BUILD_REPORT,
    BuildOrigin,
    BuildReport,
    BuildTally,
    PartOrder,
    hash_recordings,
    read_report,
)
from data_pipeline.build_worker import extract
from data_pipeline.clip import NOTHING, Clip
from data_pipeline.corpora.base import Recording, load_corpus
from data_pipeline.corpora.source import open_source, unpacked
from data_pipeline.errors import UserError
from data_pipeline.features.extract import Extractor, ExtractSettings, describe
from data_pipeline.features.speech import speech_group
from data_pipeline.filters import (
    FILTERED,
    Dropped,
    Filters,
    Measures,
    count_words,
    filtered_lines,
)
from data_pipeline.held_out import doubled_lines, hold_out
from data_pipeline.kept import (
    AT_WORK,
    CLIPS,
    CUTS,
    MADE_BY,
    Kept,
    clip_path,
    empty_work,
    read_kept,
    remove_work,
    sole_build,
    work_folder,
)
from data_pipeline.progress import build_progress, say
from data_pipeline.quarantine import QUARANTINE
from data_pipeline.shards.dataset import (
    NAME,
    FaceSchema,
    FeatureSchema,
    SpeechSchema,
    TranscriberInfo,
)
from data_pipeline.shards.reader import open_dataset
from data_pipeline.shards.writer import ShardWriter
from data_pipeline.transcribe.transcriber import Transcriber, TranscribeSettings
from data_pipeline.whole_file import write_atomically


@dataclass(frozen=True)
class BuildSettings:
    """One build.

    Attributes:
        corpus: name of a registered corpus.
        source: its raw files, a folder, an archive or a table.
        out: folder of the new dataset; must not exist.
        extract: the encoders; weights that are None are looked for, and a device is chosen.
        name: of the dataset; the corpus's if not given.
        workers: processes, each with one thread.
        samples_per_shard: clips of one tar.
        max_broken: stop after this many files of which something cannot be used.
        options: of the corpus, by name.
        filters: which clips are left out.
        part: of the recordings; None is all of them.
        transcribe: the recogniser and the aligner, if any; weights that are None are looked for.
        valid_share: of the training part validates; None leaves the corpus's splits as they are.
    """

    corpus: str
    source: Path
    out: Path
    extract: ExtractSettings
    name: str | None = None
    workers: int = 2
    samples_per_shard: int = 100
    max_broken: int = 100
    options: Mapping[str, Path | str] = field(default_factory=dict)
    filters: Filters = field(default_factory=Filters)
    part: BuildPart | None = None
    transcribe: TranscribeSettings = field(default_factory=TranscribeSettings)
    valid_share: float | None = None


class BuildPlan(NamedTuple):
    """A build in which no mistake was found.

    Attributes:
        settings: with the weights that were looked for, and the device that was chosen.
        licence: the corpus's, or what the user says.
        recordings: all of the corpus, before long media are cut.
        left_out: suffix, or why -> files that the corpus does not take.
        remarks: what whoever builds should know before, a line each.
    """

    settings: BuildSettings
    licence: str
    recordings: Sequence[Recording]
    left_out: Mapping[str, int]
    remarks: Sequence[str]

    @property
    def origin(self) -> BuildOrigin:
        """What all parts of the build have in common."""
        return BuildOrigin(
            corpus=self.settings.corpus,
            corpus_sha256=hash_recordings(self.recordings),
            filters=self.settings.filters,
            samples_per_shard=self.settings.samples_per_shard,
            device=self.settings.extract.device,
            left_out=dict(self.left_out),
            speakers=len({one.speaker for one in self.recordings} - {""}),
        )


class Outcome(NamedTuple):
    """What became of a recording: a clip, or it was dropped by a filter, or it is broken."""

    recording: Recording
    clip: Clip | None
    dropped: Dropped | None
    transcribed: tuple[str, ...] = ()


def build_dataset(settings: BuildSettings) -> BuildReport:
    """Build the dataset.

    Raises:
        UserError: an existing output, an unknown corpus or encoder, a source without the corpus's
            layout, thresholds that make no sense, a partial build with other settings, too many
            broken files, or no clip at all.
    """
    plan = plan_build(settings)
    settings, origin = plan.settings, plan.origin
    say(plan.remarks)
    recordings = settings.part.share(plan.recordings) if settings.part else plan.recordings
    schema = feature_schema(Extractor.load(settings.extract))
    transcribers = Transcriber.load(settings.transcribe).infos
    with sole_build(work_folder(settings.out)):
        work = _open_work_folder(settings, schema, transcribers)
        report = _written_before(settings, origin)
        if report is None:
            broken = BrokenFiles(work / QUARANTINE, settings.max_broken)
            parts = _extract_all(settings, recordings, work, broken)
            with ShardWriter(
                settings.out,
                name=settings.name or settings.corpus,
                corpus=settings.corpus,
                licence=plan.licence,
                features=schema,
                transcribers=transcribers,
                samples_per_shard=settings.samples_per_shard,
            ) as writer:
                report = _write(settings, origin, parts, work, broken, writer)
        empty_work(work)
    remove_work(work)
    return report


def _extract_all(
    settings: BuildSettings, recordings: Sequence[Recording], work: Path, broken: BrokenFiles
) -> CutApart:
    """The recordings after long media were cut; each has its finished clip then, or is broken."""
    source = unpacked(settings.source, work)
    arguments = (source, settings.extract, settings.transcribe, settings.filters, work)
    with open_pool(settings.workers, arguments, work / AT_WORK) as pool:
        recordings = stamped(recordings, open_source(source))
        parts = cut_apart(recordings, work, pool)
        check_recordings(parts.recordings)
        if settings.valid_share is not None:
            say(doubled_lines(parts.recordings))
        _extract_missing(settings, parts.recordings, work, broken, pool)
    return parts


def _written_before(settings: BuildSettings, origin: BuildOrigin) -> BuildReport | None:
    """The report of a build that was stopped when all but its work folder was in order.

    Raises:
        UserError: something else is where the dataset is to be written.
    """
    if not settings.out.exists():
        return None
    report = read_report(open_dataset(settings.out))
    if report is None or (report.agreed, report.part) != (origin.agreed, settings.part):
        raise _exists(settings.out)
    return report


def _exists(out: Path) -> UserError:
    return UserError(f"--out: {out} exists already; give a new folder or remove it")


def plan_build(settings: BuildSettings) -> BuildPlan:
    """Everything that can be told before anything is loaded, decoded or written.

    Raises:
        UserError: see `build_dataset`.
    """
    _check_settings(settings)
    corpus = load_corpus(settings.corpus, settings.options)
    source = open_source(settings.source)
    try:
        recordings = corpus.recordings(source)
    except OSError as error:
        raise UserError(f"--source: {settings.source} cannot be read ({error})") from None
    check_recordings(recordings)
    if settings.valid_share is not None:
        recordings = hold_out(recordings, settings.valid_share)
    extract = find_encoders(settings.extract, recordings, settings.source)
    transcribe = find_transcribers(settings.transcribe, recordings, settings.source)
    found = replace(settings, extract=extract, transcribe=transcribe)
    left_out = corpus.left_out(source, recordings)
    remarks = [f"{corpus.name}: {one}" for one in corpus.remarks(recordings)]
    return BuildPlan(found, corpus.terms, recordings, left_out, remarks)


def _check_settings(settings: BuildSettings) -> None:
    """What can be seen without the source.

    Raises:
        UserError: an existing output, one inside what is read, a name or thresholds that cannot be.
    """
    out = settings.out
    if out.exists() and not (out.name and (work_folder(out) / MADE_BY).exists()):
        raise _exists(out)
    given = {"source": settings.source, **settings.options}
    for option, folder in given.items():
        if isinstance(folder, Path) and folder.is_dir() and _lies_in(out, folder):
            raise UserError(
                f"--out: {out} is in {folder}, and would be taken for a part of --{option}; give a "
                "folder elsewhere"
            )
    if not re.fullmatch(NAME, settings.name or settings.corpus):
        raise UserError(f"--name: {settings.name!r}; a name has letters, digits, - and _ only")
    settings.filters.check()


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path, which need not be there, is below a folder, whatever links lead to it."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _write(
    settings: BuildSettings,
    origin: BuildOrigin,
    parts: CutApart,
    work: Path,
    broken: BrokenFiles,
    writer: ShardWriter,
) -> BuildReport:
    """Put the finished clips into shards, and what became of the others beside them.

    Raises:
        UserError: there is no clip; of a part that is no error, others may have some.
    """
    tally, order, recordings = BuildTally(), PartOrder(), parts.recordings
    outcomes = _finished(settings, recordings, work)
    filtered, unusable = _write_clips(outcomes, writer, tally, order)
    if not settings.part and len(unusable) + len(filtered) == len(recordings):
        raise UserError(
            f"no recording of {settings.source} can be used: {len(filtered):,} are filtered out, "
            f"{len(unusable):,} are broken; {work} has what is known of them"
        )
    lines = broken.lines(unusable)
    mixed = any(one.at for one in recordings)
    placed = order if mixed else None
    report = tally.report(origin, settings.part, filtered, lines, placed, parts.subtitles)
    for name, content in (
        (QUARANTINE, lines.encode()),
        (FILTERED, filtered_lines(filtered).encode()),
        (BUILD_REPORT, report.content),
    ):
        if content:
            writer.add_file(name, content)
    return report


def _write_clips(
    outcomes: Iterable[Outcome], writer: ShardWriter, tally: BuildTally, order: PartOrder
) -> tuple[list[tuple[str, Dropped]], list[str]]:
    """Write, count and order the clips; what was filtered out, and the keys of what is broken."""
    filtered: list[tuple[str, Dropped]] = []
    broken: list[str] = []
    for recording, clip, dropped, transcribed in outcomes:
        if clip is not None:
            writer.write(recording.split, clip)
            tally.add(recording.split, clip, transcribed)
            order.written.setdefault(recording.split, []).append(recording.at)
        elif dropped is not None:
            filtered.append((recording.key, dropped))
            order.filtered.append(recording.at)
        else:
            broken.append(recording.key)
            order.broken.append(recording.at)
    return filtered, broken


def feature_schema(extractor: Extractor) -> FeatureSchema:
    """The feature schema of what this extractor makes."""
    face, speech, detector = extractor.face, extractor.speech, extractor.detector
    return FeatureSchema(
        face=face
        and FaceSchema(
            dim=face.dim,
            fps=extractor.face_fps,
            classes=list(face.classes),
            encoder=face.name,
            encoder_sha256=face.sha256,
            detector=detector.name if detector.sha256 else None,
            detector_sha256=detector.sha256,
        ),
        speech=speech
        and SpeechSchema(
            dim=speech.dim,
            rows_per_s=speech.rows_per_s / speech_group(speech.rows_per_s),
            encoder=speech.name,
            encoder_sha256=speech.sha256,
        ),
    )


def _open_work_folder(
    settings: BuildSettings, schema: FeatureSchema, transcribers: Sequence[TranscriberInfo]
) -> Path:
    """`<out>.partial`, new or left by a build with the same corpus and encoders."""
    work = work_folder(settings.out)
    for folder in (CLIPS, CUTS):
        (work / folder).mkdir(parents=True, exist_ok=True)
    made_by = {
        "corpus": settings.corpus,
        "source": str(settings.source.resolve()),
        "options": {name: _as_recorded(value) for name, value in settings.options.items()},
        "schema": schema.model_dump(mode="json"),
        "device": settings.extract.device,
        "transcribers": [one.model_dump() for one in transcribers],
        "filters": settings.filters.thresholds,
        "part": settings.part and str(settings.part),
    }
    record = work / MADE_BY
    if record.exists() and record.read_text("utf8") != json.dumps(made_by):
        if settings.out.exists():
            raise _exists(settings.out)
        raise UserError(f"{work} was left by a build with other settings; remove it to start anew")
    write_atomically(record, json.dumps(made_by).encode())
    return work


def _as_recorded(option: Path | str) -> str:
    """What a work folder says of an option; a path means the same in every folder."""
    return str(option.resolve()) if isinstance(option, Path) else option


def _extract_missing(
    settings: BuildSettings,
    recordings: Sequence[Recording],
    work: Path,
    broken: BrokenFiles,
    pool: BuildPool,
) -> None:
    """Decode and encode every recording that needs it and has no finished clip yet."""
    missing = [
        recording
        for recording in recordings
        if not _is_plain(recording)
        and not _flaw(recording)
        and not settings.filters.first_failed(_said(settings, recording))
        and not clip_path(work, recording, settings.transcribe.on).exists()
    ]
    flawed = [(recording, flaw) for recording in recordings if (flaw := _flaw(recording))]
    for recording, flaw in flawed:
        broken.add(recording, flaw)
    with build_progress() as progress:
        task = progress.count(settings.corpus, len(recordings))
        progress.done(task, len(recordings) - len(missing), len(flawed))
        for file, failed in pool.results(extract, _files(missing)):
            failures = [(one, KILLED) for one in file] if failed is None else failed
            for recording, reason in failures:
                broken.add(recording, reason)
            progress.done(task, len(file), len(failures))


def _files(recordings: Sequence[Recording]) -> list[list[Recording]]:
    """The recordings of each media file; those that have none alone."""
    files: dict[str, list[Recording]] = {}
    for recording in recordings:
        name = f"key {recording.key}" if recording.media is None else f"media {recording.media}"
        files.setdefault(name, []).append(recording)
    return list(files.values())


def _finished(
    settings: BuildSettings, recordings: Sequence[Recording], work: Path
) -> Iterator[Outcome]:
    """What became of every recording, in the corpus's order."""
    for recording in recordings:
        path = clip_path(work, recording, settings.transcribe.on)
        said = _said(settings, recording)
        kept = None
        if _is_plain(recording):
            kept = Kept(Clip(recording.key), said)
        elif path.exists():
            kept = read_kept(path, recording.key)
        measures = kept.measures if kept else said
        if not settings.transcribe.on:  # the text is the present one: it may have been corrected
            measures = replace(measures, words=said.words, text=said.text)
        dropped = settings.filters.first_failed(measures)
        if _flaw(recording):
            yield Outcome(recording, None, None)
        elif dropped or not kept or not kept.clip:
            yield Outcome(recording, None, dropped)
        else:
            told = _with_speech_of(kept.clip, recording) if kept.outcomes else recording
            yield Outcome(recording, describe(kept.clip, told), None, kept.outcomes)


def _with_speech_of(clip: Clip, recording: Recording) -> Recording:
    """The recording with the text that was recognised, and the words that were aligned."""
    return replace(recording, text=clip.text, language=clip.language, words=clip.words)


def _said(settings: BuildSettings, recording: Recording) -> Measures:
    """What filters can judge before anything is decoded."""
    words, plain = count_words(recording.text), _is_plain(recording)
    if plain:
        return Measures(words=words, text=int(words is not None), face=0, speech=0)
    open_text = words is None and settings.transcribe.recognise is not None
    return Measures(words=words, text=None if open_text else int(words is not None))


def _is_plain(recording: Recording) -> bool:
    """Whether there is nothing to be decoded: text alone."""
    return recording.media is None and recording.image is None


def _flaw(recording: Recording) -> str:
    """Why it cannot be used, as far as that is known before it is decoded."""
    return recording.flaw or (NOTHING if _is_plain(recording) and not recording.text else "")
