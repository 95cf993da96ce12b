"""Encoders that make rows of the demo's sizes of whatever they see and hear."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import Clip
from data_pipeline.features.detector import load_detector
from data_pipeline.features.extract import Extractor
from data_pipeline.features.face import Aligned
from data_pipeline.features.face_encoder import FaceEncoder
from data_pipeline.features.frames import Frames


class Encoders(Extractor):
    """Rows depend on how many there are alone."""

    def __init__(self) -> None:
        face = cast("FaceEncoder", SimpleNamespace(input_size=48))
        super().__init__(face, None, 10.0, load_detector(None))

    def encode(
        self,
        clip: Clip,
        sound: NDArray[np.float32] | None,
        frames: Frames,
        aligned: bool = False,
        faces: Aligned | None = None,
    ) -> Clip:
        """Ten rows a second of pictures, one in 60 ms of sound."""
        del aligned, faces
        heard = 0 if sound is None else len(sound) // 960
        return replace(
            clip,
            face=rows_of(len(frames), 48) if len(frames) else None,
            speech=rows_of(heard, 64) if heard else None,
            duration_s=max(len(frames) / 10, heard * 0.06),
        )


def rows_of(count: int, dim: int) -> NDArray[np.float16]:
    """Rows (count, dim), the same at any time."""
    return np.random.default_rng(count).normal(size=(count, dim)).astype(np.float16)
