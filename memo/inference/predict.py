"""`memo predict`: emotion and probabilities of every utterance of videos or sound files."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_pipeline.clip import Clip
from data_pipeline.errors import UserError
from data_pipeline.features.extract import SAMPLE_RATE, Extractor
from data_pipeline.features.video import MediaError, decode_sound, decode_spans
from memo.inference.encoders import GivenEncoders, load_extractor
from memo.inference.model import EmotionModel
from memo.inference.timeline import write_timeline
from memo.inference.utterances import Utterance, find_utterances, read_subtitles


@dataclass(frozen=True)
class Prediction:
    """What was predicted of an utterance.

    Attributes:
        file: of the video.
        begin_s: where the utterance begins, in seconds.
        end_s: where it ends.
        text: what is said, if known.
        used: modalities that were used.
        missing: modalities of the task that were not there.
        emotion: the most probable class; None if there was nothing to be used.
        probabilities: class -> probability; empty if there was nothing to be used.
    """

    file: str
    begin_s: float
    end_s: float
    text: str | None
    used: tuple[str, ...]
    missing: tuple[str, ...]
    emotion: str | None
    probabilities: dict[str, float]


def predict_videos(
    model: EmotionModel,
    videos: Sequence[Path],
    encoders: GivenEncoders,
    text: str | None,
    subtitles: Path | None,
) -> Iterator[Prediction]:
    """Predict on every utterance of some files.

    The utterances are those of the subtitles given, or of an `.srt` or `.vtt` file beside the
    video; with `text` the whole file is one; else they are found by the pauses in the sound.

    Args:
        model: exported.
        videos: video or sound files.
        encoders: what is known of those that the model's rows come from.
        text: what is said in the file.
        subtitles: of the one file given.

    Raises:
        UserError: a file is missing or cannot be decoded, or the encoders are others.
    """
    if (text is not None or subtitles is not None) and len(videos) > 1:
        raise UserError("--text and --subtitles belong to one video; give one")
    for video in videos:
        if not video.is_file():
            what = "is a folder" if video.is_dir() else "is not there"
            raise UserError(f"{video} {what}; give video or sound files")
    extractor = load_extractor(model, encoders, videos[0])
    for video in videos:
        media = video.read_bytes()
        try:
            sound = decode_sound(media, SAMPLE_RATE)
            parts = _utterances(video, sound, text, subtitles)
            yield from _predict(model, extractor, video, media, sound, parts)
        except MediaError as error:
            raise UserError(f"{video}: {error}") from None


def _utterances(
    video: Path, sound: NDArray[np.float32] | None, text: str | None, subtitles: Path | None
) -> list[Utterance]:
    """See `predict_videos`."""
    if text is not None:
        return [Utterance(0.0, math.inf, text)]
    beside = [video.with_suffix(suffix) for suffix in (".srt", ".vtt")]
    path = subtitles or next((one for one in beside if one.is_file()), None)
    if path is not None:
        return read_subtitles(path)
    found = [] if sound is None else find_utterances(sound)
    return found or [Utterance(0.0, math.inf)]


def _predict(
    model: EmotionModel,
    extractor: Extractor,
    video: Path,
    media: bytes,
    sound: NDArray[np.float32] | None,
    parts: Sequence[Utterance],
) -> Iterator[Prediction]:
    """Encode and predict utterance by utterance, in one pass through the pictures."""
    for part, frames in zip(parts, _pictures(media, extractor, parts), strict=True):
        heard = None if sound is None else _cut(sound, part)
        clip = extractor.encode(Clip(key=video.stem, text=part.text), heard, frames)
        used = tuple(name for name in model.task.modalities if _has(clip, name))
        chances = model.predict([clip], used)[0].tolist() if used else []
        end_s = min(part.end_s, part.begin_s + clip.duration_s)
        yield Prediction(
            file=str(video),
            begin_s=round(part.begin_s, 3),
            end_s=round(end_s, 3),
            text=part.text,
            used=used,
            missing=tuple(name for name in model.task.modalities if name not in used),
            emotion=model.classes[int(np.argmax(chances))] if used else None,
            probabilities={
                name: round(one, 4) for name, one in zip(model.classes, chances, strict=False)
            },
        )


def _pictures(
    media: bytes, extractor: Extractor, parts: Sequence[Utterance]
) -> Iterator[NDArray[np.uint8]]:
    """Of each utterance, uint8 (T, H, W); none, and no time spent, where no face is asked for."""
    if extractor.face is None:
        yield from [np.zeros((0, 1, 1), np.uint8)] * len(parts)
    else:
        spans = [(one.begin_s, one.end_s) for one in parts]
        for frames in decode_spans(media, extractor.face_fps, spans):
            if isinstance(frames, MediaError):
                raise frames
            yield frames


def _cut(sound: NDArray[np.float32], part: Utterance) -> NDArray[np.float32] | None:
    end = len(sound) if math.isinf(part.end_s) else round(part.end_s * SAMPLE_RATE)
    heard = sound[round(part.begin_s * SAMPLE_RATE) : end]
    return heard if len(heard) else None


def _has(clip: Clip, modality: str) -> bool:
    value = getattr(clip, modality)
    return value is not None and len(value) > 0


def run_prediction(
    model: EmotionModel,
    videos: Sequence[Path],
    encoders: GivenEncoders,
    text: str | None,
    subtitles: Path | None,
    json_out: Path | None,
    html_out: Path | None,
) -> None:
    """The `memo predict` command: a table, and JSON lines and a timeline where asked for.

    Raises:
        UserError: see `predict_videos`; or nothing can be written where it is asked for.
    """
    for option, path in (("--json", json_out), ("--html", html_out)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise UserError(f"{option}: {path}; give a file in a folder that there is")
    model.model.to("cuda" if torch.cuda.is_available() else "cpu")
    found = list(predict_videos(model, videos, encoders, text, subtitles))
    table = Table("file", "from", "to", "emotion", "probability", "not there", "text")
    for one in found:
        cells = [
            Path(one.file).name,
            f"{one.begin_s:.2f}",
            f"{one.end_s:.2f}",
            one.emotion or "nothing to use",
            f"{one.probabilities[one.emotion]:.3f}" if one.emotion else "",
            ", ".join(one.missing),
            one.text or "",
        ]
        table.add_row(*map(escape, cells))
    Console().print(table)
    if json_out is not None:
        lines = [json.dumps(asdict(one), ensure_ascii=False) for one in found]
        _write(json_out, "".join(f"{line}\n" for line in lines))
    if html_out is not None:
        _write(html_out, write_timeline([asdict(one) for one in found], model.classes))


def _write(path: Path, content: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(content, encoding="utf8")
    temporary.replace(path)
