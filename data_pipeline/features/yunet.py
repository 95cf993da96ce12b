"""YuNet (Wu, Peng and Yu, Machine Intelligence Research 2023): faces, also from the side.

A face lies as its eyes, nose and corners of the mouth do: they are laid over where FER2013 has
them. All five also tell the size of a face that is turned away, whose eyes come together.
"""

import hashlib
from pathlib import Path

import cv2
import numpy as np

from data_pipeline.errors import UserError
from data_pipeline.features.detector import Floats, Frames

SEARCH_PIXELS = 200
"""Larger frames are searched at this length of their short side."""
LEAST_SCORE = 0.6
OVERLAP = 0.3
"""Boxes that share more of their union are one face."""
MOST_CANDIDATES = 5000
POINTS = np.array(
    [(-0.185, -0.108), (0.185, -0.108), (0.0, 0.108), (-0.154, 0.264), (0.154, 0.264)]
)
"""Where left and right eye (in the picture), nose and corners of the mouth lie in FER2013's crops:
x and y in sides from the centre; medians over the 27,647 of 28,709 faces of its train split that
were found at twice their size, left and right made alike."""


class YuNetDetector:
    """A network of a file; see `FaceDetector`. Of a face there are its box and five points.

    Args:
        weights: the ONNX file.

    Raises:
        UserError: it is no YuNet.
    """

    name = "yunet"

    def __init__(self, weights: Path) -> None:
        if not weights.is_file():
            raise UserError(f"--detector-weights: there is no file {weights}")
        content = weights.read_bytes()
        self.sha256: str | None = hashlib.sha256(content).hexdigest()
        try:
            self._net = cv2.FaceDetectorYN.create(
                "onnx",
                np.frombuffer(content, np.uint8),
                np.zeros(0, np.uint8),
                (32, 32),
                LEAST_SCORE,
                OVERLAP,
                MOST_CANDIDATES,
            )
            self.find(np.zeros((32, 32), np.uint8))
        except cv2.error:
            raise UserError(
                f"--detector-weights: {weights} is no YuNet; give OpenCV's "
                "face_detection_yunet_*.onnx"
            ) from None

    def find(self, grey: Frames) -> Floats:
        """Faces (n, 14): boxes, and the points of `POINTS`, x and y each, in pixels."""
        scale: float = min(1.0, SEARCH_PIXELS / min(grey.shape))
        small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._net.setInputSize(small.shape[::-1])
        _, found = self._net.detect(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR))
        if found is None:
            return np.zeros((0, 14))
        return np.asarray(found[:, :14], np.float64) / scale

    def squares(self, greys: Frames, faces: Floats) -> Floats:
        """Of the five points."""
        return _squares_of_points(faces[:, 4:].reshape(-1, 5, 2))


def _squares_of_points(points: Floats) -> Floats:
    """Points (n, 5, 2) -> squares (n, 4) in which they lie best, by least squares, as FER2013's."""
    seen = points[..., 0] + 1j * points[..., 1]  # (n, 5)
    known = POINTS[:, 0] + 1j * POINTS[:, 1]  # (5,)
    mean, known_mean = seen.mean(axis=1), known.mean()
    spread = known - known_mean
    turns = (seen - mean[:, None]) @ spread.conj() / np.square(np.abs(spread)).sum()
    centres = mean - turns * known_mean
    return np.column_stack([centres.real, centres.imag, np.abs(turns), np.angle(turns)])
