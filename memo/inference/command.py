"""`memo predict`: what lies in the folder says how it is asked, and what about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from data_pipeline.errors import UserError, check_place
from memo.inference.encoders import GivenEncoders
from memo.inference.model import CONFIG, load
from memo.inference.predict import run_prediction
from memo.inference.system_clips import ClipSystem
from memo.inference.system_rows import of_posts, of_texts, run_rows
from memo.inference.utterances import Said
from memo.multitask.artifact import RECORD as SYSTEM
from memo.multitask.trained import TrainedTexts, open_system
from memo.tuning.artifact import RECORD as TUNED


@dataclass(frozen=True)
class Wanted:
    """What the command line says besides the model and the files.

    Attributes:
        said: what is known of what is said in videos; its encoding is that of tables, too.
        encoders: what is known of those of videos.
        task: of a system of texts.
        pretrained: the backbone of a system, where it is not where it was.
        image_weights: likewise of a frozen image network.
        json_out: file for JSON lines.
        html_out: file for the timeline of videos.
    """

    said: Said
    encoders: GivenEncoders
    task: str | None = None
    pretrained: Path | None = None
    image_weights: Path | None = None
    json_out: Path | None = None
    html_out: Path | None = None

    @property
    def of_task(self) -> Mapping[str, object]:
        """The option of systems of several tasks."""
        return {"--task": self.task}

    @property
    def of_systems(self) -> Mapping[str, object]:
        """Options of trained systems."""
        weights = {"--pretrained": self.pretrained, "--image-weights": self.image_weights}
        return {**self.of_task, **weights}

    @property
    def of_videos(self) -> Mapping[str, object]:
        """Options of what is asked about videos."""
        face, speech = self.encoders.face, self.encoders.speech
        return {
            "--text": self.said.text,
            "--subtitles": self.said.subtitles,
            "--language": self.said.languages or None,
            "--html": self.html_out,
            "--face": face.name,
            "--face-weights": face.weights,
            "--speech": speech.name,
            "--speech-weights": speech.weights,
            "--detector-weights": self.encoders.detector_weights,
        }


def run_command(place: Path, files: Sequence[Path], wanted: Wanted) -> None:
    """Answer videos with an exported model or a system of clips, or texts or posts with a system.

    Args:
        place: folder of a model or a system, or a run with a single system.
        files: videos and sound files, or tables and text files.
        wanted: the options.

    Raises:
        UserError: the folder holds neither, or an option or a file does not fit what it holds.
    """
    check_place("--json", wanted.json_out)
    folder = find_system(place)
    if folder is not None:
        _run_system(folder, files, wanted)
        return
    _refuse(wanted.of_systems, f"{place} is no system of several tasks")
    model = load(place)
    model.model.to("cuda" if torch.cuda.is_available() else "cpu")
    run_prediction(model, files, wanted.encoders, wanted.said, wanted.json_out, wanted.html_out)


def _run_system(folder: Path, files: Sequence[Path], wanted: Wanted) -> None:
    system = open_system(folder, wanted.pretrained, wanted.image_weights)
    if isinstance(system, TrainedTexts):
        _refuse(wanted.of_videos, f"{folder} is a system of texts")
        asked = of_texts(system, wanted.task)
        run_rows(asked, files, wanted.said.encoding, wanted.json_out)
        return
    _refuse(wanted.of_task, f"{folder} has one task")
    if system.features is not None:
        clips = ClipSystem(system, system.features)
        run_prediction(clips, files, wanted.encoders, wanted.said, wanted.json_out, wanted.html_out)
        return
    _refuse(wanted.of_videos, f"{folder} is a system of posts")
    run_rows(of_posts(system), files, wanted.said.encoding, wanted.json_out)


def find_system(place: Path) -> Path | None:
    """The system that a path means: itself, or the only one of a run; None: a model lies there.

    Raises:
        UserError: it holds neither, or several systems.
    """
    if (place / CONFIG).is_file():
        return None
    if (place / SYSTEM).is_file():
        return place
    found = sorted(path.parent for path in place.glob(f"**/{SYSTEM}"))
    if len(found) > 1:
        raise UserError(f"{place} has {len(found)} trained systems; name one, e.g. {found[0]}")
    if found:
        return found[0]
    if next(place.glob(f"**/{TUNED}"), None) is not None:
        raise UserError(f"{place} is tuned to one task; 'memo export' makes a model of it first")
    raise UserError(
        f"{place} holds neither a model that 'memo export' made ({CONFIG}) nor a trained system "
        f"({SYSTEM}, in folds/*/system of its run); give the folder of one"
    )


def _refuse(options: Mapping[str, object], reason: str) -> None:
    """No option may be given that says nothing here."""
    for name, value in options.items():
        if value is not None:
            raise UserError(f"{name}: {reason}; leave it out")
