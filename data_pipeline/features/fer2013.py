"""FER2013 (Goodfellow et al., ICONIP 2013): grey faces of 48x48 pixels in seven expressions.

28,709 faces to train and 7,178 to test, as `train/<class>/*.jpg` and `test/<class>/*.jpg`, or as
`fer2013.csv`, whose public and private test are both to test.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.corpora.fer2013 import official_faces
from data_pipeline.corpora.source import Source, open_source
from data_pipeline.errors import UserError

SIZE = 48
"""Height and width of a face, in pixels."""


@dataclass(frozen=True)
class FaceSplit:
    """One split: faces uint8 (n, 48, 48), class numbers int64 (n,), names of the classes."""

    faces: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def read_fer2013(path: Path) -> tuple[FaceSplit, FaceSplit]:
    """Decode the train and the test split of a folder, an archive or `fer2013.csv`, in place.

    Raises:
        UserError: the path is neither, a split is missing, the splits differ in their classes, or
            a file is not a 48x48 image.
    """
    source = open_source(path)
    train, test = _read_split(source, "train"), _read_split(source, "test")
    if train.classes != test.classes:
        raise UserError(
            f"FER2013: train has the classes {', '.join(train.classes)}, "
            f"test has {', '.join(test.classes)}; they must be the same"
        )
    return train, test


def _read_split(source: Source, split: str) -> FaceSplit:
    faces = [face for face in official_faces(source) if face.parts[-3] == split]
    if not faces:
        raise UserError(
            f"FER2013: --source has no {split}/<class>/<image>; give the whole corpus, or "
            "fer2013.csv itself"
        )
    classes = tuple(sorted({face.parts[-2] for face in faces}))
    images = np.stack([_decode(source, str(face)) for face in faces])  # (n, 48, 48)
    labels = [classes.index(face.parts[-2]) for face in faces]
    return FaceSplit(torch.from_numpy(images), torch.tensor(labels), classes)


def _decode(source: Source, name: str) -> NDArray[np.uint8]:
    try:
        content = np.frombuffer(source.read(name), dtype=np.uint8)
    except OSError as error:
        raise UserError(f"FER2013: {name} cannot be read ({error})") from None
    image = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) if len(content) else None
    if image is None or image.shape != (SIZE, SIZE):
        raise UserError(f"FER2013: {name} is not an image of {SIZE}x{SIZE} pixels")
    return np.asarray(image, dtype=np.uint8)
