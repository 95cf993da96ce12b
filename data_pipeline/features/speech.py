"""The contract of a speech encoder, and the registry: one file of this package an encoder."""

from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from data_pipeline.features.own import OwnEncoder, Wanted, checked_rows
from data_pipeline.registry import Registry

RATE = 16_000
"""Samples a second of what is encoded."""
ROW_S = 0.06
"""About how long a speech row is in seconds (MEmoBERT), whatever the encoder's own rate."""
AMISS_S = 0.5
"""Rows may miss so much of the sound, in seconds, at its ends."""


class SpeechEncoder(Protocol):
    """A frozen network that turns sound into rows.

    Attributes:
        name: its name on the command line and in `dataset.json`.
        dim: numbers in a row.
        rows_per_s: rows a second, the same at any time of a sound.
        sha256: hash of the weights' file, or of what else the rows depend on.
    """

    name: str
    dim: int
    rows_per_s: float
    sha256: str

    def encode(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sound (samples,) at 16 kHz in [-1, 1] -> rows (T, dim); T is 0 if it is too short."""
        ...


class OwnSpeechEncoder(OwnEncoder):
    """A class of one's own, whose rows are checked; see `OwnEncoder`.

    Raises:
        UserError: the class is no speech encoder; of `encode`: its rows are none.
    """

    option = "speech"
    wanted: ClassVar = {
        "rows_per_s": Wanted(
            "how many rows a second has",
            lambda one: isinstance(one, int | float) and 0 < one <= RATE,
        ),
    }

    def __init__(self, name: str, weights: Path | None, device: torch.device) -> None:
        super().__init__(name, weights, device)
        self.rows_per_s = float(self._own.rows_per_s)

    def encode(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sound (samples,) at 16 kHz -> rows (T, dim)."""
        rows = checked_rows(self._where, self._own.encode(sound), None, self.dim)
        seconds = len(sound) / RATE
        if abs(len(rows) / self.rows_per_s - seconds) > AMISS_S:
            raise UserError(
                f"{self._where}: encode gave {len(rows)} rows of {seconds:.2f} s, but rows_per_s "
                f"is {self.rows_per_s:g}"
            )
        return rows


SPEECH: Registry[SpeechEncoder, torch.device] = Registry(
    "speech", "encoder", "data_pipeline.features", OwnSpeechEncoder
)


def speech_group(rows_per_s: float) -> int:
    """How many of an encoder's rows are averaged into one of about 60 ms: 3 of 20 ms, at least 1.

    Args:
        rows_per_s: of the encoder.
    """
    return max(1, round(rows_per_s * ROW_S))


def average_rows(rows: NDArray[np.float32], group: int) -> NDArray[np.float32]:
    """Mean of each `group` neighbouring rows.

    Args:
        rows: (T, D).
        group: rows averaged into one; the last group may be shorter.

    Returns:
        (ceil(T / group), D).
    """
    starts = np.arange(0, len(rows), group)
    sizes = np.diff(np.append(starts, len(rows)))
    return (np.add.reduceat(rows, starts) / sizes[:, None]).astype(np.float32)
