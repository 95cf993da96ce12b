"""`memo predict`: emotion and probabilities of every utterance of videos or sound files."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from data_pipeline.build_worker import NO_MEMORY
from data_pipeline.clip import Clip
from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError, check_place, in_one_line, say_without_path
from data_pipeline.features.extract import Extractor, Part, check_length, length_s, show_name
from data_pipeline.features.video import WHOLE, MediaError
from data_pipeline.whole_file import write_atomically
from memo.inference.encoders import GivenEncoders, load_extractor
from memo.inference.model import ClipModel
from memo.inference.timeline import write_timeline
from memo.inference.utterances import Planned, Said, find_parts, plan
from memo.training.memory import is_shortage

ROW_S = 0.1
"""An utterance may be longer by so much than the rows that are read: the last is no whole one."""


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

    The utterances are those of the subtitles given, or of a transcript beside the file, or of those
    inside it; with a text the whole file is one; else a long file is cut by the speech in its sound
    (see `utterances.py`). A file that cannot be used takes none of the others with it.

    Args:
        model: exported, or a system of clips.
        videos: video or sound files.
        encoders: what is known of those that the model's rows come from.
        said: what is known of what is said in them.

    Raises:
        UserError: a file is missing, or none can be used; which transcript is meant cannot be told;
            or the encoders are others. What can be known before anything is decoded is said then.
    """
    _check_asked(model, videos, said)
    planned = plan(videos, said)
    extractor = load_extractor(model, encoders, videos[0])
    shown = Console(stderr=True)
    flaw, usable = "", False
    quiet = len(videos) < 2 or not shown.is_terminal
    for one in track(planned, "predicting", console=shown, transient=True, disable=quiet):
        found = _predict_file(model, extractor, one)
        yield from found
        if all(part.flaw for part in found):
            flaw = flaw or f"{found[0].file}: {found[0].flaw}"
        else:
            usable = True
    if not usable:
        raise UserError(flaw)


def _check_asked(model: ClipModel, videos: Sequence[Path], said: Said) -> None:
    """What is asked for must fit together.

    Raises:
        UserError: it does not, or a file is missing.
    """
    if (said.text is not None or said.subtitles is not None) and len(videos) > 1:
        raise UserError("--text and --subtitles belong to one video; give one")
    if said.text is not None and said.subtitles is not None:
        raise UserError("--subtitles: with --text the file is one utterance; leave one of them out")
    if said.text is not None and "text" not in model.modalities:
        raise UserError(f"--text: the model uses {', '.join(model.modalities)}; leave it out")
    for video in videos:
        if not video.is_file():
            what = "is a folder" if video.is_dir() else "is not there"
            raise UserError(f"{video} {what}; give video or sound files")


def _predict_file(model: ClipModel, extractor: Extractor, planned: Planned) -> list[Prediction]:
    """The utterances of one file, by their begin."""
    try:
        with planned.video.open("rb") as media:
            recordings, note = find_parts(planned, media)
            for line in filter(None, (planned.note, note)):
                Console(stderr=True).print(escape(line), soft_wrap=True)
            sound = [one for one in recordings if not one.flaw]
            pictures = extractor.face is not None
            parts = extractor.parts(sound, media, pictures=pictures) if sound else ()
            found = {one.key: _predict(model, extractor, one, part) for one, part in parts}
    except OSError as error:
        name = show_name(str(planned.video))
        unread = Recording(name, "", name, flaw=f"it cannot be read ({say_without_path(error)})")
        return [_flawed(unread, unread.flaw)]
    return [found.get(one.key) or _flawed(one, one.flaw) for one in recordings]


def _predict(
    model: ClipModel, extractor: Extractor, recording: Recording, part: Part | MediaError
) -> Prediction:
    """Encode and predict one utterance; what cannot be is its flaw."""
    try:
        if isinstance(part, MediaError):
            raise part
        if extractor.face is not None or extractor.speech is not None:
            check_length(recording, length_s(part.sound, len(part.frames), extractor.face_fps))
        clip = extractor.clip(recording, part)
        used = tuple(one for one in model.modalities if _has(clip, one))
        chances = model.predict([clip], used)[0].tolist() if used else []
    except (MediaError, cv2.error) as error:
        return _flawed(recording, in_one_line(error))
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        return _flawed(recording, NO_MEMORY)
    begin_s, end_s = _times(recording, clip.duration_s)
    return Prediction(
        file=recording.media or "",
        begin_s=begin_s,
        end_s=end_s,
        text=recording.text,
        used=used,
        missing=tuple(one for one in model.modalities if one not in used),
        flaw="",
        emotion=model.classes[int(np.argmax(chances))] if used else None,
        probabilities={
            name: round(one, 4) for name, one in zip(model.classes, chances, strict=False)
        },
    )


def _flawed(recording: Recording, flaw: str) -> Prediction:
    """An utterance that cannot be used."""
    begin_s, end_s = _times(recording, 0.0)
    name, text = recording.media or "", recording.text
    return Prediction(name, begin_s, end_s, text, (), (), flaw, None, {})


def _times(recording: Recording, duration_s: float) -> tuple[float, float]:
    """Where it begins and ends: no later than its file, if its length is known."""
    begin_s, end_s = recording.span or WHOLE
    end_s = min(end_s, begin_s + duration_s if duration_s else math.inf)
    return round(begin_s, 3), round(begin_s if math.isinf(end_s) else end_s, 3)


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
    if json_out is not None and json_out == html_out:
        raise UserError(f"--html {html_out}: --json is the same file; give two")
    found = list(predict_videos(model, videos, encoders, said))
    if json_out is not None:
        lines = [json.dumps(asdict(one), ensure_ascii=False) for one in found]
        write_atomically(json_out, "".join(f"{line}\n" for line in lines).encode())
    if html_out is not None:
        page = write_timeline([asdict(one) for one in found], model.classes)
        write_atomically(html_out, page.encode())
    Console().print(_table(found))
    if note := _read_in_part(model, found):
        Console(stderr=True).print(note, soft_wrap=True)


def _table(found: Sequence[Prediction]) -> Table:
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
    return table


def _read_in_part(model: ClipModel, found: Sequence[Prediction]) -> str:
    """How many utterances are longer than what the model reads of them, "" if none is."""
    face, speech = model.features.face, model.features.speech
    read_s = {
        "face": model.limits.face / face.fps if face else math.inf,
        "speech": model.limits.speech / speech.rows_per_s if speech else math.inf,
    }
    longer = [
        one
        for one in found
        if any(one.end_s - one.begin_s > read_s.get(kind, math.inf) + ROW_S for kind in one.used)
    ]
    if not longer:
        return ""
    shown = ", ".join(
        f"the first {read_s[kind]:.1f} s of the {kind}"
        for kind in model.modalities
        if math.isfinite(read_s.get(kind, math.inf))
    )
    return (
        f"{len(longer):,} of {len(found):,} utterances are longer than what this model reads of "
        f"one: {shown} (its training's limits)"
    )
