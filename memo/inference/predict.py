"""`memo predict`: emotion and probabilities of every utterance of videos or sound files."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_pipeline.clip import Clip
from data_pipeline.encoding import UTF_8
from data_pipeline.errors import UserError, check_place
from data_pipeline.features.extract import SAMPLE_RATE, Extractor
from data_pipeline.features.frames import Frames
from data_pipeline.features.video import MediaError, Sound, decode_spans, decode_track
from data_pipeline.whole_file import write_atomically
from memo.inference.encoders import GivenEncoders, load_extractor
from memo.inference.model import ClipModel
from memo.inference.timeline import write_timeline
from memo.inference.utterances import Utterance, find_utterances, read_inside, read_subtitles

BESIDE = (".srt", ".vtt", ".ass", ".ssa")
"""Subtitles that are looked for beside a video; the first is taken."""


@dataclass(frozen=True)
class Said:
    """What the command line knows of what is said in the files.

    Attributes:
        text: of the one file given, which is one utterance then.
        subtitles: of the one file given.
        encoding: of subtitles that are neither in UTF-8 nor in UTF-16.
    """

    text: str | None = None
    subtitles: Path | None = None
    encoding: str = UTF_8


@dataclass(frozen=True)
class Prediction:
    """What was predicted of an utterance.

    Attributes:
        file: of the video.
        begin_s: where the utterance begins, in seconds.
        end_s: where it ends.
        text: what is said, if known.
        used: modalities that were used.
        missing: modalities of the model that were not there.
        flaw: why it cannot be decoded, and nothing was used; "" if it can.
        emotion: the most probable class; None if there was nothing to be used.
        probabilities: class -> probability; empty if there was nothing to be used.
    """

    file: str
    begin_s: float
    end_s: float
    text: str | None
    used: tuple[str, ...]
    missing: tuple[str, ...]
    flaw: str
    emotion: str | None
    probabilities: dict[str, float]


def predict_videos(
    model: ClipModel,
    videos: Sequence[Path],
    encoders: GivenEncoders,
    said: Said,
) -> Iterator[Prediction]:
    """Predict on every utterance of some files.

    The utterances are those of the subtitles given, or of a file of subtitles (`BESIDE`) beside the
    video, or of those inside it; with a text the whole file is one; else they are found by the
    speech in the sound.

    Args:
        model: exported, or a system of clips.
        videos: video or sound files.
        encoders: what is known of those that the model's rows come from.
        said: what is known of what is said in them.

    Raises:
        UserError: a file is missing or cannot be decoded, or the encoders are others.
    """
    if (said.text is not None or said.subtitles is not None) and len(videos) > 1:
        raise UserError("--text and --subtitles belong to one video; give one")
    if said.text is not None and said.subtitles is not None:
        raise UserError("--subtitles: with --text the file is one utterance; leave one of them out")
    for video in videos:
        if not video.is_file():
            what = "is a folder" if video.is_dir() else "is not there"
            raise UserError(f"{video} {what}; give video or sound files")
    extractor = load_extractor(model, encoders, videos[0])
    for video in videos:
        media = video.read_bytes()
        try:
            sound = decode_track(media, SAMPLE_RATE)
        except MediaError as error:
            raise UserError(f"{video}: {error}") from None
        parts = _utterances(video, media, sound, said)
        found = list(_predict(model, extractor, video, media, sound, parts))
        if all(one.flaw for one in found):
            raise UserError(f"{video}: {found[0].flaw}")
        yield from found


def _utterances(video: Path, media: bytes, sound: Sound | None, said: Said) -> list[Utterance]:
    """See `predict_videos`."""
    if said.text is not None:
        return [Utterance(0.0, math.inf, said.text)]
    beside = [video.with_suffix(suffix) for suffix in BESIDE]
    path = said.subtitles or next((one for one in beside if one.is_file()), None)
    if path is not None:
        return read_subtitles(path, said.encoding)
    found, why_none = read_inside(video, media)
    if why_none:
        note = f"{video}: subtitles inside are {why_none}; lay others beside it"
        Console(stderr=True).print(escape(note), soft_wrap=True)
    if not found and sound is not None:
        found = find_utterances(sound.samples)
    return found or [Utterance(0.0, math.inf)]


def _predict(
    model: ClipModel,
    extractor: Extractor,
    video: Path,
    media: bytes,
    sound: Sound | None,
    parts: Sequence[Utterance],
) -> Iterator[Prediction]:
    """Encode and predict utterance by utterance, in one pass through the pictures."""
    for part, frames in zip(parts, _pictures(media, extractor, parts), strict=True):
        clip, flaw = Clip(key=video.stem, text=part.text), ""
        try:
            clip = _encode(extractor, clip, part, sound, frames)
        except MediaError as error:
            flaw = str(error)
        used = tuple(one for one in model.modalities if not flaw and _has(clip, one))
        chances = model.predict([clip], used)[0].tolist() if used else []
        yield Prediction(
            file=str(video),
            begin_s=round(part.begin_s, 3),
            end_s=round(_end_s(part, clip.duration_s), 3),
            text=part.text,
            used=used,
            missing=tuple(one for one in model.modalities if not flaw and one not in used),
            flaw=flaw,
            emotion=model.classes[int(np.argmax(chances))] if used else None,
            probabilities={
                name: round(one, 4) for name, one in zip(model.classes, chances, strict=False)
            },
        )


def _encode(
    extractor: Extractor,
    clip: Clip,
    part: Utterance,
    sound: Sound | None,
    frames: Frames | MediaError,
) -> Clip:
    """The clip with its rows.

    Raises:
        MediaError: its pictures or its sound cannot be decoded.
    """
    if isinstance(frames, MediaError):
        raise frames
    heard = None if sound is None else sound.part(part.begin_s, part.end_s)
    return extractor.encode(clip, heard if heard is not None and len(heard) else None, frames)


def _end_s(part: Utterance, duration_s: float) -> float:
    """Where it ends: no later than its file, if its length is known."""
    end_s = part.begin_s + duration_s if duration_s else math.inf
    end_s = min(part.end_s, end_s)
    return part.begin_s if math.isinf(end_s) else end_s


def _pictures(
    media: bytes, extractor: Extractor, parts: Sequence[Utterance]
) -> Iterator[Frames | MediaError]:
    """Of each utterance, uint8 (T, H, W); none, and no time spent, where no face is asked for."""
    if extractor.face is None:
        yield from [np.zeros((0, 1, 1), np.uint8)] * len(parts)
    else:
        spans = [(one.begin_s, one.end_s) for one in parts]
        yield from decode_spans(media, extractor.face_fps, spans)


def _has(clip: Clip, modality: str) -> bool:
    value = getattr(clip, modality)
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and len(value) > 0


def run_prediction(
    model: ClipModel,
    videos: Sequence[Path],
    encoders: GivenEncoders,
    said: Said,
    json_out: Path | None,
    html_out: Path | None,
) -> None:
    """Predict on videos: a table, and JSON lines and a timeline where asked for.

    Raises:
        UserError: see `predict_videos`; or nothing can be written where it is asked for.
    """
    check_place("--json", json_out)
    check_place("--html", html_out)
    found = list(predict_videos(model, videos, encoders, said))
    table = Table("file", "from", "to", "emotion", "probability", "not there", "text")
    for one in found:
        cells = [
            Path(one.file).name,
            f"{one.begin_s:.2f}",
            f"{one.end_s:.2f}",
            one.emotion or "nothing to use",
            f"{one.probabilities[one.emotion]:.3f}" if one.emotion else "",
            one.flaw or ", ".join(one.missing),
            one.text or "",
        ]
        table.add_row(*map(escape, cells))
    Console().print(table)
    if json_out is not None:
        lines = [json.dumps(asdict(one), ensure_ascii=False) for one in found]
        write_atomically(json_out, "".join(f"{line}\n" for line in lines).encode())
    if html_out is not None:
        page = write_timeline([asdict(one) for one in found], model.classes)
        write_atomically(html_out, page.encode())
