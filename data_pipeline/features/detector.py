"""The contract of a face detector, and which one looks for faces."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from data_pipeline.shards.dataset import FaceSchema

Frames = NDArray[np.uint8]
Floats = NDArray[np.float64]


class FaceDetector(Protocol):
    """Finds faces, and how each lies in the picture.

    Attributes:
        name: in `dataset.json`.
        sha256: hash of its file; None of the one that needs none.
    """

    name: str
    sha256: str | None

    def find(self, grey: Frames) -> Floats:
        """The faces of a picture (H, W): (n, 4 + k).

        First x, y, width and height of the box, in pixels; then what `squares` wants to know.
        """
        ...

    def squares(self, greys: Frames, faces: Floats) -> Floats:
        """What FER2013 would have cut out of some pictures of one person.

        Args:
            greys: uint8 (n, H, W).
            faces: of `find`, one of each picture, (n, 4 + k).

        Returns:
            (n, 4): centre x, y and side in pixels, angle in radians; NaN where others tell it
            better, but not in all.
        """
        ...


def load_detector(weights: Path | None) -> FaceDetector:
    """YuNet of a file, or the Haar cascades, which need none.

    Raises:
        UserError: the file is no YuNet.
    """
    from data_pipeline.features.haar import HaarDetector  # noqa: PLC0415
    from data_pipeline.features.yunet import YuNetDetector  # noqa: PLC0415

    return HaarDetector() if weights is None else YuNetDetector(weights)


def load_same_detector(schema: FaceSchema, weights: Path | None) -> FaceDetector:
    """The detector that found the faces of a dataset.

    Args:
        schema: of its face rows.
        weights: the detector's file; None if it needs none.

    Raises:
        UserError: this is another one.
    """
    detector = load_detector(weights)
    if detector.sha256 == schema.detector_sha256:
        return detector
    if schema.detector_sha256 is None:
        raise UserError(
            f"the faces were found without a file, not by {weights}: leave --detector-weights out"
        )
    raise UserError(
        f"the faces were found by {schema.detector}, a file with sha256 "
        f"{schema.detector_sha256[:16]}…, not by {weights or 'the Haar cascades'}; give it with "
        "--detector-weights"
    )
