"""Action units that a corpus brings along, in the place of a face network's rows.

OpenFace's 35 (17 intensities and 18 presences), as means over the clip: one row. No picture is
looked at, so that clips whose videos are not at hand have a face as well; where the corpus has no
row of a clip, its face is missing.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.corpora.base import UNITS
from data_pipeline.features.device import CPU
from data_pipeline.features.face_encoder import FACE
from data_pipeline.registry import Weights


@FACE.register("action-units", Weights.NONE)
class ActionUnits:
    """The rows of the corpus; see `Recording.action_units`.

    Args:
        weights: none.
        device: not needed.
    """

    name = "action-units"
    dim = UNITS
    classes: tuple[str, ...] = ()
    input_size = 0
    sha256 = hashlib.sha256(f"action units, {UNITS}, mean of a clip".encode()).hexdigest()
    """Of what the rows depend on, beside the corpus."""

    def __init__(self, weights: Path | None = None, device: torch.device = CPU) -> None:
        assert weights is None, "see Weights.NONE"
        del device

    def encode(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of pictures there are none: (0, 35) and (0, 0)."""
        assert not len(faces), "an input size of 0 says that none are looked at"
        return np.zeros((0, UNITS), np.float32), np.zeros((0, 0), np.float32)
