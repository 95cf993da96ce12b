"""Pictures of the page, as `data:` URLs."""

import base64
import struct
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from data_pipeline.features.picture import decode_jpeg

LONGEST_SIDE = 480
"""Pixels of a clip's image; a larger one is shrunk."""
QUALITY = 80
"""Of JPEG files, of 100."""

MOST_ROWS, MOST_NUMBERS = 600, 128
"""Of a heat map, across and down; of more, some at even distances are shown."""
DEVIATIONS = 2.5
"""What lies further from the mean has the colour of the end."""
LEVELS = 31

_VIRIDIS = (
    "440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725",
)  # fmt: skip


def heat_map(
    rows: NDArray[np.float16], mean: Sequence[float] = (), std: Sequence[float] = ()
) -> str:
    """Rows as a PNG image, a column a row; rows of zeros are transparent.

    Args:
        rows: (T, D), T and D at least 1.
        mean: of each number, (D,); the rows' own if not given.
        std: likewise.
    """
    values = rows.astype(np.float32)
    seen = np.asarray(values.any(axis=1))  # (T,)
    known = values[seen] if seen.any() else values
    centre = np.array(mean) if len(mean) else known.mean(axis=0)
    width = np.array(std) if len(std) else known.std(axis=0)
    scaled = (values - centre) / np.where(width > 0, width, 1)
    places = np.clip((scaled / DEVIATIONS + 1) / 2, 0, 1) * (LEVELS - 1)
    levels = np.where(seen[:, None], np.round(places) + 1, 0).astype(np.uint8)
    shown = levels[_spread(len(rows), MOST_ROWS)][:, _spread(rows.shape[1], MOST_NUMBERS)]
    return _url("png", _png(shown.T))


def jpeg_url(pixels: NDArray[np.uint8]) -> str:
    """A picture, uint8 (H, W) or (H, W, 3)."""
    _, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return _url("jpeg", content.tobytes())


def image_url(content: bytes) -> str:
    """The image of a post, which is shrunk if it is large.

    Raises:
        BadSampleError: it cannot be decoded, or is too large.
    """
    pixels = decode_jpeg(content)
    height, width = pixels.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return jpeg_url(pixels)


def _spread(size: int, most: int) -> NDArray[np.int64]:
    """At most so many of the numbers 0 .. size - 1, at even distances."""
    return np.arange(min(size, most)) * size // min(size, most)


def _url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Levels (H, W) as a PNG file with a palette; 0 is transparent."""
    height, width = pixels.shape
    lines = np.pad(pixels, ((0, 0), (1, 0)))  # each begins with its filter, 0 is none
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, content)
        for kind, content in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            (b"PLTE", _palette().tobytes()),
            (b"tRNS", b"\0"),
            (b"IDAT", zlib.compress(lines.tobytes(), 9)),
            (b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _palette() -> NDArray[np.uint8]:
    """The colours of the levels, uint8 (1 + LEVELS, 3), after one that is not seen."""
    known = np.array([list(bytes.fromhex(one)) for one in _VIRIDIS])
    at = np.linspace(0, len(known) - 1, LEVELS)
    columns = [np.interp(at, np.arange(len(known)), column) for column in known.T]
    return np.concatenate([np.zeros((1, 3)), np.stack(columns, axis=1)]).round().astype(np.uint8)
