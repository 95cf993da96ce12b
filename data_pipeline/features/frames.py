"""Decoded pictures -> grey ones, upright, of square pixels and of one size."""

import math
from typing import TypeAlias

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Frames: TypeAlias = NDArray[np.uint8]


def upright(frame: av.VideoFrame, pixel: float) -> Frames:
    """The picture (H, W), uint8, grey, of square pixels, turned as its file says it is to be shown.

    Args:
        frame: as it was decoded.
        pixel: how wide its pixels are, of a height of 1.
    """
    colours = frame.to_ndarray(format="rgb24")
    picture = np.asarray(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    if pixel != 1:
        height, width = picture.shape
        picture = _scaled(picture, height, max(1, round(pixel * width)))
    return np.rot90(picture, round(frame.rotation / 90))


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
