"""SpanMAFR: span-masked acoustic feature regression (MEmoBERT, section 2.3)."""

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from memo.objectives.base import Modality, register
from memo.objectives.masking import MaskedClip
from memo.objectives.span_regression import SpanRegression

if TYPE_CHECKING:
    from memo.model.embedders import FrameEmbedder
    from memo.model.memobert import MemoBert


@register
class SpanMAFR(SpanRegression):
    """Predict the speech features of hidden rows."""

    name: ClassVar[str] = "span_mafr"
    modality: ClassVar[Modality] = "speech"

    @property
    def feature_dim(self) -> int:
        """Size of a speech row."""
        return self.spec.speech_dim

    def embedder(self, backbone: "MemoBert") -> "FrameEmbedder":
        """The speech embedder."""
        return backbone.speech

    def track(self, masked: MaskedClip) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """Speech rows and which are hidden."""
        return masked.speech, masked.speech_masked
