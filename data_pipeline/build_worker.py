"""What one process of a build does: raw files -> the kept clips, one file after the other."""

from collections.abc import Iterator, Sequence
from ctypes import c_bool
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from data_pipeline.build_subtitles import CutBy
from data_pipeline.clip import NOTHING, BadSampleError, Clip
from data_pipeline.corpora.base import Recording
from data_pipeline.corpora.source import Source, open_source
from data_pipeline.cutting import find_cuts
from data_pipeline.errors import in_one_line, say_without_path
from data_pipeline.features.extract import Extractor, ExtractSettings, Part, check_length, length_s
from data_pipeline.features.subtitles import Subtitles, find_subtitles
from data_pipeline.features.video import MediaError
from data_pipeline.filters import Filters, Measures, count_words, speech_level
from data_pipeline.kept import Kept, clip_path, cut_path, keep, keep_cuts
from data_pipeline.transcribe.transcriber import Transcriber, TranscribeSettings

NO_MEMORY = "there is not enough memory to encode it"


@dataclass
class _Worker:
    source: Source
    extractor: Extractor
    transcriber: Transcriber
    transcribed: bool
    filters: Filters
    work: Path
    stopped: c_bool


_worker: _Worker | None = None
"""What one process of the pool works with; set when it starts."""


def start_worker(
    source: Path,
    extract: ExtractSettings,
    transcribe: TranscribeSettings,
    filters: Filters,
    work: Path,
    stopped: c_bool,
) -> None:
    """Open the source and load the encoders, once in each process.

    Args:
        source: the raw files, unpacked.
        extract: the encoders.
        transcribe: the recogniser and the aligner.
        filters: what they drop is not encoded, or not kept.
        work: folder of what is kept.
        stopped: set when the build is stopped; what has begun is left off then.
    """
    global _worker  # noqa: PLW0603  (a pool's initialiser has no other way to hand something on)
    torch.set_num_threads(1)
    _worker = _Worker(
        open_source(source),
        Extractor.load(extract),
        Transcriber.load(transcribe),
        transcribe.on,
        filters,
        work,
        stopped,
    )


def look_inside(recording: Recording) -> Subtitles | str:
    """The subtitles inside one recording; or why it cannot be looked into."""
    assert _worker is not None, "the pool's initialiser has run"
    assert recording.media is not None, "there is nothing to look into"
    try:
        with _worker.source.open(recording.media) as media:
            return find_subtitles(media)
    except (OSError, KeyError) as error:
        return _unreadable(error)
    except (MediaError, MemoryError) as error:
        return in_one_line(error)


def cut(by: CutBy) -> str:
    """Find the cues or the speech of one recording, and keep where they are.

    Returns:
        Why it cannot be decoded; nothing is kept then. Empty: it was.
    """
    assert _worker is not None, "the pool's initialiser has run"
    assert by.recording.media is not None, "there is nothing to be cut"
    try:
        with _worker.source.open(by.recording.media) as media:
            cuts = find_cuts(media, by)
    except (OSError, KeyError) as error:
        return _unreadable(error)
    except (MediaError, MemoryError) as error:
        return in_one_line(error)
    keep_cuts(cut_path(_worker.work, by.recording), cuts)
    return ""


def extract(recordings: Sequence[Recording]) -> list[tuple[Recording, str]]:
    """The recordings of one file -> finished clips.

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
            failed.append((recording, in_one_line(error)))
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            failed.append((recording, NO_MEMORY))
    return failed


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch has not got a tensor's memory on the CPU, which it says in this way alone.

    A GPU is shared by all processes of a build: what it has not got is for the user to mend.
    """
    return "DefaultCPUAllocator" in str(error)


def _unreadable(error: OSError | KeyError) -> str:
    return f"the file cannot be read ({say_without_path(error)})"


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
        yield from ((one, MediaError(_unreadable(error))) for one in recordings)
        return
    with media:
        yield from worker.extractor.parts(recordings, media)


def _finish(worker: _Worker, recording: Recording, part: Part | MediaError | None) -> None:
    """Keep the clip of one recording, or that a filter drops it."""
    if isinstance(part, MediaError):
        raise part
    path = clip_path(worker.work, recording, worker.transcribed)
    measures, clip = _measure(worker, part), None
    outcomes: tuple[str, ...] = ()
    if worker.filters.first_failed(measures) is None:
        check_length(recording, measures.duration_s)
        sound = None if part is None else part.sound
        recording, outcomes = worker.transcriber.transcribe(recording, sound)
        words = count_words(recording.text)
        measures = replace(measures, words=words, text=int(words is not None))
    if worker.filters.first_failed(measures) is None:
        part = part and _look(worker, recording, part)
        clip = _encode(worker, recording, part)
        score = part.faces.score if part and part.faces and len(part.frames) else None
        measures = replace(
            measures,
            face_share=_face_share(clip, part),
            speaker_score=score,
            face=int(clip.face is not None),
            speech=int(clip.speech is not None),
        )
        if worker.filters.first_failed(measures) is not None:
            clip = None
    keep(path, Kept(clip, measures, outcomes))


def _measure(worker: _Worker, part: Part | None) -> Measures:
    """What can be said of a recording before it is encoded."""
    if part is None:
        return Measures()
    duration_s = length_s(part.sound, len(part.frames), worker.extractor.face_fps)
    return Measures(duration_s=duration_s, speech_dbfs=speech_level(part.sound))


def _look(worker: _Worker, recording: Recording, part: Part) -> Part:
    """The part with the speaker's faces."""
    faces = worker.extractor.look(part.frames, part.sound, recording.aligned_face)
    return replace(part, faces=faces)


def _encode(worker: _Worker, recording: Recording, part: Part | None) -> Clip:
    """The clip of one recording."""
    clip = worker.extractor.clip(recording, part)
    if recording.image is not None:
        clip = replace(clip, image=_picture(worker.source, recording.image))
    if not clip.text and clip.face is None and clip.speech is None and clip.image is None:
        raise MediaError(NOTHING)
    return clip


def _face_share(clip: Clip, part: Part | None) -> float | None:
    """Share of the frames in which a face was found; None of no video."""
    if part is None or not len(part.frames):
        return None
    rows = clip.face if clip.expression is None else clip.expression  # features may be zeros, too
    return 0.0 if rows is None else round(float(rows.any(axis=1).mean()), 4)


def _picture(source: Source, name: str) -> bytes:
    """The content of a JPEG file, if it can be decoded.

    Raises:
        MediaError: it cannot.
    """
    try:
        content = source.read(name)
    except (OSError, KeyError) as error:
        raise MediaError(_unreadable(error)) from None
    picture = None
    if content.startswith(b"\xff\xd8"):
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
    if picture is None:
        raise MediaError("the image is no JPEG file, or is damaged")
    return content
