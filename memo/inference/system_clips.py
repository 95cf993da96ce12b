"""A trained system of clips in the place of a tuned model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import Clip
from data_pipeline.shards.dataset import FeatureSchema
from memo.config import Limits
from memo.multitask.trained import TrainedTrimodal
from memo.objectives.base import MODALITIES, Modality


@dataclass(frozen=True)
class ClipSystem:
    """A system of text, face and speech; see `ClipModel`.

    Attributes:
        system: opened.
        features: of its backbone.
    """

    system: TrainedTrimodal
    features: FeatureSchema

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of the probabilities."""
        return self.system.classes

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """All three."""
        return MODALITIES

    @property
    def limits(self) -> Limits:
        """What it reads of a clip."""
        return self.system.limits

    def predict(self, clips: Sequence[Clip], visible: Sequence[Modality]) -> NDArray[np.float32]:
        """Class probabilities (clips, C) by the visible modalities that a clip has.

        Raises:
            BadSampleError: a clip has none of them, or rows of another size.
        """
        shown = [
            replace(
                clip,
                text=clip.text if "text" in visible else None,
                face=clip.face if "face" in visible else None,
                speech=clip.speech if "speech" in visible else None,
            )
            for clip in clips
        ]
        told = self.system.predict(shown)
        return np.array([list(one.values()) for one in told], np.float32)
