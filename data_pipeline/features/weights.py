"""Where the encoders' weights are looked for when the command line names none."""

import os
from pathlib import Path

from data_pipeline.errors import UserError
from data_pipeline.features.speech import speech_encoders

FACE_WEIGHTS = Path(__file__).with_name("denseface.safetensors")
"""The face network that ships with the package; its card is `denseface.md`."""


def find_face_weights() -> Path:
    """The face network that ships with the package.

    Raises:
        UserError: the installation lacks it.
    """
    if not FACE_WEIGHTS.exists():
        raise UserError(
            f"no face network at {FACE_WEIGHTS}; train one with launch/train_face.py and give it "
            "with --face-weights"
        )
    return FACE_WEIGHTS


def find_speech_weights(encoder: str, source: Path) -> Path:
    """The folder of a speech encoder's weights, see `find_weights`.

    Args:
        encoder: its name.
        source: the corpus.

    Raises:
        UserError: it is in none of these places, or the encoder is unknown.
    """
    known = speech_encoders()
    if encoder not in known:
        raise UserError(f"--speech: no encoder {encoder!r}; known are {', '.join(known)}")
    return find_weights(encoder, known[encoder], "--speech-weights", source)


def find_weights(encoder: str, folder: str, option: str, source: Path) -> Path:
    """The folder of a model's weights; nothing is ever downloaded.

    Looked for in `$MEMO_WEIGHTS` if it is set, else in a folder `weights` beside the one that the
    corpus is in, and in `~/.cache/memo/weights`.

    Args:
        encoder: its name.
        folder: name of the folder that has its weights.
        option: of the command line that names them.
        source: the corpus.

    Raises:
        UserError: it is in none of these places.
    """
    folders = [place / folder for place in _weight_places(source)]
    for found in folders:
        if found.exists():
            return found
    places = " or ".join(str(one) for one in folders)
    raise UserError(f"no weights of {encoder} at {places}; give them with {option}")


def _weight_places(source: Path) -> list[Path]:
    if "MEMO_WEIGHTS" in os.environ:
        return [Path(os.environ["MEMO_WEIGHTS"])]
    return [
        source.absolute().parent.parent / "weights",
        Path.home() / ".cache" / "memo" / "weights",
    ]
