"""OpenCV's Haar cascades (Viola and Jones, CVPR 2001): frontal faces, and their eyes.

FER2013's crops are those of such a detector, too: its box is 0.974 of their side, the eyes lie 0.37
of the side apart and 0.38 of it from the top (medians over 362 and 281 faces of its train split).
"""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from cv2.data import haarcascades

from data_pipeline.features.detector import Floats, Frames

SEARCH_PIXELS = 200
"""Larger frames are searched at this length of their short side."""
BOX_SHARE = 0.974
EYE_DISTANCE = 0.37
EYE_HEIGHT = 0.38


class HaarDetector:
    """The cascades that come with OpenCV; see `FaceDetector`. Of a face there is the box alone."""

    name = "haar"
    sha256: str | None = None

    def find(self, grey: Frames) -> Floats:
        """Boxes of frontal faces, (n, 4)."""
        scale: float = min(1.0, SEARCH_PIXELS / min(grey.shape))
        small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        least = max(24, min(small.shape) // 8)
        found = _cascade("haarcascade_frontalface_default").detectMultiScale(
            small, scaleFactor=1.15, minNeighbors=4, minSize=(least, least)
        )
        boxes: Floats = np.asarray(found, np.float64).reshape(-1, 4)
        return boxes / scale

    def squares(self, greys: Frames, faces: Floats) -> Floats:
        """With the eyes level, NaN where they are not plain; of the boxes if they seldom are."""
        eyes = np.array([_find_eyes(grey, box) for grey, box in zip(greys, faces, strict=True)])
        seen = ~np.isnan(eyes[:, 0])
        return _squares_of_eyes(eyes) if seen.sum() * 2 > len(faces) else _squares_of_boxes(faces)


def _squares_of_boxes(boxes: Floats) -> Floats:
    """Detectors' boxes (n, 4) -> upright squares (n, 4)."""
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    sides = boxes[:, 2] / BOX_SHARE
    return np.column_stack([centres, sides, np.zeros(len(boxes))])


def _squares_of_eyes(eyes: Floats) -> Floats:
    """Eyes (left x, y, right x, y) (n, 4) -> squares (n, 4) with the eyes level."""
    left, right = eyes[:, :2], eyes[:, 2:]
    across = right - left
    angles = np.arctan2(across[:, 1], across[:, 0])
    sides = np.hypot(across[:, 0], across[:, 1]) / EYE_DISTANCE
    down = np.stack([-np.sin(angles), np.cos(angles)], axis=1)
    centres = (left + right) / 2 + down * (sides * (0.5 - EYE_HEIGHT))[:, None]
    return np.column_stack([centres, sides, angles])


def _find_eyes(grey: Frames, box: Floats) -> Floats:
    """Left and right eye (x, y, x, y) of a face as the picture shows them; NaN if not plain."""
    x, y, width, height = box.astype(int)
    top, bottom = y + height // 6, y + height * 11 // 20
    region = grey[max(top, 0) : bottom, max(x, 0) : x + width]
    scale = min(1.0, 140 / width)
    small = cv2.resize(region, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    least = int(width * scale) // 7
    found = _cascade("haarcascade_eye").detectMultiScale(
        small, scaleFactor=1.1, minNeighbors=4, minSize=(least, least)
    )
    eyes = np.asarray(found, np.float64).reshape(-1, 4) / scale
    centres = eyes[:, :2] + eyes[:, 2:] / 2 + (max(x, 0), max(top, 0))
    return _pair(centres, float(width))


def _pair(centres: Floats, width: float) -> Floats:
    """Two centres that lie as eyes do in a box of this width, left first; else NaN. (4,)."""
    if len(centres) == 2:
        left, right = centres[centres[:, 0].argsort()]
        across = right - left
        if 0.25 < across[0] / width < 0.55 and abs(across[1]) < 0.4 * across[0]:
            return np.concatenate([left, right])
    return np.full(4, np.nan)


@lru_cache
def _cascade(name: str) -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(str(Path(haarcascades) / f"{name}.xml"))
