"""JPEG files -> pixels; what they say of themselves is not believed."""

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import IMAGE, BadSampleError, Fault

MOST_PIXELS = 1 << 26
"""Of an image, 200 MB when decoded. A few bytes can say that they are 65,535 x 65,535."""


def decode_jpeg(content: bytes) -> NDArray[np.uint8]:
    """The pixels of a JPEG file, uint8 (H, W, 3), blue, green, red.

    Raises:
        BadSampleError: it cannot be decoded, or is too large.
    """
    height, width = _declared_size(content)
    if height * width > MOST_PIXELS:
        raise BadSampleError(IMAGE, f"is {width} x {height}, too large to be decoded", Fault.LARGE)
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        pixels = None
    if not height or pixels is None:
        raise BadSampleError(IMAGE, "does not decode")
    return np.asarray(pixels, dtype=np.uint8)


def _declared_size(content: bytes) -> tuple[int, int]:
    """Height and width that the frame header of a JPEG file says; zeros if there is none."""
    at = 2
    while content[:2] == b"\xff\xd8" and content[at : at + 1] == b"\xff" and at + 9 <= len(content):
        kind, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if kind in _FRAMES:
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return int(height), int(width)
        at += 1 if kind == 0xFF else 2 + length
    return 0, 0


_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Second bytes of the markers that begin a frame header."""
