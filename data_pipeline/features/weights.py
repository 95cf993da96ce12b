"""Where the encoders' weights are looked for when the command line names none."""

import os
from pathlib import Path

from data_pipeline.errors import UserError


def find_weights(encoder: str, folder: str, option: str, source: Path) -> Path:
    """The folder of an encoder's weights; nothing is ever downloaded.

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
