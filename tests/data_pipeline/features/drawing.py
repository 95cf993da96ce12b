"""Drawn pictures of people that the face detector takes for real ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

FACE_PIXELS = 100
"""Height of a drawn head."""
_OVALS = (  # x, y, width, height in heights of the head, and grey level
    (0, -0.05, 0.84, 1.06, 60),  # hair
    (0, 0.03, 0.74, 0.95, 0),  # skin, lighter or darker
    *((side * 0.16, -0.10, 0.20, 0.14, 140) for side in (-1, 1)),  # sockets
    *((side * 0.16, -0.17, 0.20, 0.04, 60) for side in (-1, 1)),  # brows
    *((side * 0.16, -0.08, 0.13, 0.06, 230) for side in (-1, 1)),
    *((side * 0.16, -0.08, 0.06, 0.06, 30) for side in (-1, 1)),
    *((side * 0.04, 0.10, 0.03, 0.03, 110) for side in (-1, 1)),  # nostrils
    (0, 0.02, 0.06, 0.20, 205),
)


@dataclass(frozen=True)
class Person:
    """A head.

    Attributes:
        x, y: where its centre is, in pixels.
        mouth: how far it is open: 0 to 1.
        skin: its grey level.
    """

    x: float
    y: float = 144.0
    mouth: float = 0.0
    skin: int = 190


def draw(people: Sequence[Person], width: int = 360, height: int = 288) -> Picture:
    """A grey picture (height, width) of some people."""
    picture = np.full((height, width), 120, np.uint8)
    for one in people:
        lips = 0.1 * one.mouth
        mouth = ((0, 0.27, 0.26, 0.06 + lips, 110), (0, 0.27, 0.20, 0.005 + lips, 30))
        for x, y, wide, high, level in (*_OVALS, *mouth):
            centre = (one.x + x * FACE_PIXELS, one.y + y * FACE_PIXELS)
            size = (wide * FACE_PIXELS, high * FACE_PIXELS)
            cv2.ellipse(picture, (centre, size, 0), level or one.skin, -1, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 1), dtype=np.uint8)


def talk(speaks: NDArray[np.bool_], seed: int = 0) -> NDArray[np.float64]:
    """How far a mouth is open in each frame, (T,): at random in speech, else closed."""
    return np.where(speaks, np.random.default_rng(seed).uniform(0, 1, len(speaks)), 0.0)
