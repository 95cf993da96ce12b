"""Decoded pictures -> grey ones, upright, of square pixels, of one moment and of one size."""

import math
from fractions import Fraction
from typing import Any, TypeAlias

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Frames: TypeAlias = NDArray[np.uint8]

LARGEST = 720
"""Height of pictures, or width if that is less, in pixels. Faces are looked for at a fraction of
it, and 48 pixels of them are kept; a minute of larger pictures would fill the memory."""
SQUARE = 0.02
"""Pixels that are so little wider or higher are taken as they are: their file rounds a size."""
COMBED = 10
"""Levels of grey, of 255, by which a line differs from those above and below it where something has
moved between them; what noise and fine detail do in one picture is mostly less."""


def upright(frame: av.VideoFrame, pixel: float) -> Frames:
    """The picture (H, W), uint8, grey, of square pixels, turned as its file says it is to be shown.

    What is larger than `LARGEST` is shrunk to it. Of one that is interlaced, as on DVDs and on
    television, it is the moment of the even lines.

    Args:
        frame: as it was decoded.
        pixel: how wide its pixels are, of a height of 1.
    """
    height, width, shrunk = frame.height, max(1, round(pixel * frame.width)), frame
    scale = LARGEST / min(height, width)
    if scale < 1:  # before there are colours of all its pixels
        height, width = round(scale * height), round(scale * width)
        if not frame.interlaced_frame:
            shrunk = frame.reformat(width, height, format="rgb24", interpolation="AREA")
    colours = shrunk.to_ndarray(format="rgb24")
    picture = np.asarray(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    if frame.interlaced_frame:
        picture = uncombed(picture)
    if picture.shape != (height, width):
        picture = _scaled(picture, height, width)
    return np.rot90(picture, round(frame.rotation / 90))


def uncombed(picture: Frames) -> Frames:
    """The moment of the even lines of a picture (H, W) whose odd lines are of another one.

    An odd line is left as it is where nothing has moved, so that what rests stays sharp, and is the
    mean of its neighbours where both are darker, or both brighter, by more than `COMBED`. The last
    line of an even number has one neighbour, and is left.
    """
    lines = picture[: (len(picture) - 1) // 2 * 2 + 1].astype(np.int32)
    above, odd, below = lines[:-2:2], lines[1::2], lines[2::2]
    combed = (np.minimum(above, below) - odd > COMBED) | (odd - np.maximum(above, below) > COMBED)
    still = picture.copy()
    still[1 : len(lines) : 2] = np.where(combed, (above + below + 1) // 2, odd)
    return still


class Pixels:
    """How wide the pixels of a video are, of a height of 1.

    What the file says goes before what its pictures say. These may say something else from a key
    picture on, as where television changes from 4:3 to 16:9; the decoder knows it as soon as it
    has that picture's packet, while pictures from before are still to come.

    Args:
        stream: PyAV's, of the video.
    """

    def __init__(self, stream: Any) -> None:  # noqa: ANN401
        self._ratio = stream.sample_aspect_ratio
        self._pictures = stream.codec_context  # None of a codec that is not known
        self._fixed = not self._pictures or self._ratio != self._pictures.sample_aspect_ratio
        self._changes: list[tuple[float, Fraction | None]] = []

    def note(self, time_s: float | None) -> None:
        """A packet has been decoded; its time on the pictures' clock, if known."""
        if self._fixed:
            return
        ratio = self._pictures.sample_aspect_ratio
        known = self._changes[-1][1] if self._changes else self._ratio
        if ratio != known:
            self._changes.append((-math.inf if time_s is None else time_s, ratio))

    def of(self, frame: av.VideoFrame) -> float:
        """Of the picture that comes next; 1 of pixels that are nearly square, or unknown."""
        while self._changes and frame.key_frame and self._changes[0][0] <= frame.time:
            _, self._ratio = self._changes.pop(0)
        pixel = float(self._ratio or 1)
        return 1.0 if abs(pixel - 1) < SQUARE else pixel


def fitted(picture: Frames, height: int, width: int) -> Frames:
    """The picture (h, w) as large as it can be in (height, width), black around it."""
    if picture.shape == (height, width):
        return picture
    scale = min(height / picture.shape[0], width / picture.shape[1])
    high, wide = (max(1, round(scale * side)) for side in picture.shape)
    top, left = (height - high) // 2, (width - wide) // 2
    fitted = np.zeros((height, width), dtype=np.uint8)
    fitted[top : top + high, left : left + wide] = _scaled(picture, high, wide)
    return fitted


def _scaled(picture: Frames, height: int, width: int) -> Frames:
    """The picture (h, w) as (height, width)."""
    smaller = height * width < picture.size
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    scaled = cv2.resize(picture, (width, height), interpolation=method)
    return np.asarray(scaled, dtype=np.uint8)


def cut_region(frames: Frames, region: tuple[float, float, float, float] | None) -> Frames:
    """A part of each picture: (T, H, W) -> (T, h, w).

    Args:
        frames: uint8, grey.
        region: left, top, right and bottom of it, as shares of width and height; None: all.
    """
    if region is None:
        return frames
    _, height, width = frames.shape
    left, top, right, bottom = region
    rows = slice(math.floor(top * height), math.ceil(bottom * height))
    return frames[:, rows, math.floor(left * width) : math.ceil(right * width)]
