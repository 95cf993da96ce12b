"""SpanMVFR: span-masked visual feature regression (MEmoBERT, section 2.3)."""

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
class SpanMVFR(SpanRegression):
    """Predict the face features of hidden frames."""

    name: ClassVar[str] = "span_mvfr"
    modality: ClassVar[Modality] = "face"

    @property
    def feature_dim(self) -> int:
        """Size of a face row."""
        return self.spec.face_dim

    def embedder(self, backbone: "MemoBert") -> "FrameEmbedder":
        """The face embedder."""
        return backbone.face

    def track(self, masked: MaskedClip) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """Face rows and which are hidden."""
        return masked.face, masked.face_masked
