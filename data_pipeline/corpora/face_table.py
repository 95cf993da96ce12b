"""`fer2013.csv`, as Kaggle hands FER2013 out, read as the pictures of the form with folders.

A header with `emotion`, `pixels` and `Usage` in any order, and a line of each face: the number of
its expression, 2,304 numbers from 0 to 255 with blanks between, row by row, and `Training`,
`PublicTest` or `PrivateTest`. Both tests are `test`, as in the form with folders.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data_pipeline.corpora.source import Source, file_stamp
from data_pipeline.errors import UserError

COLUMNS = ("emotion", "pixels", "usage")
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""By their number."""
SPLITS = {"Training": "train", "PublicTest": "test", "PrivateTest": "test"}
SIZE = 48
LONGEST_HEADER = 100


def is_face_table(path: Path) -> bool:
    """Whether this is a table of pixels."""
    with path.open("rb") as file:
        return sorted(_columns(file.readline(LONGEST_HEADER))) == sorted(COLUMNS)


class _Face(NamedTuple):
    line: int
    offset: int


class FaceTable(Source):
    """The pictures of a table of pixels, `train/angry/Training-00002.png` after its second line.

    Raises:
        UserError: a line has not the three columns, or says no known expression or part.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path
        with path.open("rb") as file:
            self._columns = _columns(file.readline(LONGEST_HEADER))
            offset = file.tell()
            self._faces: dict[str, _Face] = {}
            for number, line in enumerate(file, start=2):
                if line.strip():
                    self._faces[self._name(number, line)] = _Face(number, offset)
                offset += len(line)

    def names(self) -> list[str]:
        """See `Source`."""
        return sorted(self._faces)

    def read(self, name: str) -> bytes:
        """The face as a PNG file; see `Source`."""
        number, offset = self._faces[name]
        with self._path.open("rb") as file:
            file.seek(offset)
            numbers = self._cells(file.readline())["pixels"].split()
        try:
            pixels = np.array(numbers, dtype=np.int64).reshape(SIZE, SIZE)
        except ValueError:
            pixels = np.array([-1])
        if pixels.min() < 0 or pixels.max() > np.iinfo(np.uint8).max:
            raise OSError(f"line {number} should have {SIZE} x {SIZE} numbers from 0 to 255")
        return cv2.imencode(".png", pixels.astype(np.uint8))[1].tobytes()

    def stamp(self, name: str) -> str:
        """See `Source`."""
        return f"{file_stamp(self._path)} {self._faces[name].line}"

    def _cells(self, line: bytes) -> dict[str, str]:
        cells = [cell.strip(' "') for cell in line.decode("latin-1").strip().split(",")]
        return dict(zip(self._columns, cells, strict=True))

    def _name(self, number: int, line: bytes) -> str:
        cells = self._cells(line) if line.count(b",") == len(COLUMNS) - 1 else {}
        emotion, usage = cells.get("emotion", ""), cells.get("usage", "")
        known = emotion.isdecimal() and int(emotion) < len(EMOTIONS) and usage in SPLITS
        if not known:
            raise UserError(
                f"FER2013: line {number} of {self._path.name}: it should have an emotion from 0 to "
                f"{len(EMOTIONS) - 1}, pixels, and a Usage of {', '.join(SPLITS)}"
            )
        return f"{SPLITS[usage]}/{EMOTIONS[int(emotion)]}/{usage}-{number:05}.png"


def _columns(header: bytes) -> list[str]:
    text = header.decode("utf-8-sig", "replace")
    return [column.strip(' "\r\n').lower() for column in text.split(",")]
