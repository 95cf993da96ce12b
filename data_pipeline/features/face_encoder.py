"""The contract of a face encoder, and the registry: one file of this package an encoder."""

from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from data_pipeline.features.own import OwnEncoder, Wanted, checked_rows
from data_pipeline.registry import Registry

MOST_PIXELS = 1024
"""The largest side of a face; ten a second of it are kept at once for a whole recording."""


class FaceEncoder(Protocol):
    """A frozen network that turns aligned faces into rows.

    Attributes:
        name: its name on the command line and in `dataset.json`.
        dim: numbers in a row.
        classes: names of the K expressions that it tells apart; () if it makes features alone.
        input_size: height and width of the faces that it takes, in pixels; 0 of the one that looks
            at no pictures (`action_units.py`).
        sha256: hash of the weights' file, or of what else the rows depend on.
    """

    name: str
    dim: int
    classes: tuple[str, ...]
    input_size: int
    sha256: str

    def encode(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Grey faces (T, input_size, input_size) -> rows (T, dim) and posteriors (T, K)."""
        ...


class OwnFaceEncoder(OwnEncoder):
    """A class of one's own, whose rows are checked; see `OwnEncoder`.

    Raises:
        UserError: the class is no face encoder; of `encode`: its rows are none.
    """

    option = "face"
    wanted: ClassVar = {
        "classes": Wanted(
            "the names of its expressions, as a tuple; () if it has none",
            lambda one: isinstance(one, tuple) and all(isinstance(name, str) for name in one),
        ),
        "input_size": Wanted(
            f"how many pixels a face is wide and high, at most {MOST_PIXELS}",
            lambda one: isinstance(one, int) and 0 < one <= MOST_PIXELS,
        ),
    }

    def __init__(self, name: str, weights: Path | None, device: torch.device) -> None:
        super().__init__(name, weights, device)
        self.classes: tuple[str, ...] = self._own.classes
        self.input_size: int = self._own.input_size

    def encode(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Grey faces (T, input_size, input_size) -> rows (T, dim) and posteriors (T, K)."""
        where, answer = self._where, self._own.encode(faces)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise UserError(
                f"{where}: encode gave {type(answer).__name__}, not a pair: rows and posteriors"
            )
        return (
            checked_rows(f"{where}, rows", answer[0], len(faces), self.dim),
            checked_rows(f"{where}, posteriors", answer[1], len(faces), len(self.classes)),
        )


FACE: Registry[FaceEncoder, torch.device] = Registry(
    "face", "encoder", "data_pipeline.features", OwnFaceEncoder
)
