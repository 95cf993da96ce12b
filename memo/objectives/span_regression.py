"""What SpanMVFR and SpanMAFR share: regression of the feature rows in hidden spans."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.packing import Targets, TargetSpec
from memo.config import ModelSpec
from memo.objectives.base import Objective, PositionScores
from memo.objectives.baselines import interpolate, mean_of_known
from memo.objectives.heads import HeadTransform
from memo.objectives.masking import MaskedClip, seen

if TYPE_CHECKING:
    from memo.model.embedders import FrameEmbedder
    from memo.model.memobert import MemoBert


class SpanRegression(Objective):
    """Squared error of each hidden row in normalised units, mean over the feature dimensions.

    Linear, GELU, LayerNorm, then the transpose of the modality's input projection with a bias of
    its own (MEmoBERT's regression head). In normalised units, predicting the training split's mean
    row has an error of 1 on that split; the metric, 1 - error, is then the share of variance that
    is explained: 0 for the mean row, 1 for perfection, comparable between features.

    Args:
        spec: the model's sizes.
    """

    loss_name: ClassVar[str] = "mse"
    metric: ClassVar[str] = "r2"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.transform = HeadTransform(spec)
        self.bias = nn.Parameter(torch.zeros(self.feature_dim))

    @property
    @abstractmethod
    def feature_dim(self) -> int:
        """Size of one row."""

    @abstractmethod
    def embedder(self, backbone: "MemoBert") -> "FrameEmbedder":
        """The modality's embedder."""

    @abstractmethod
    def track(self, masked: MaskedClip) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """The modality's rows (T, D_feature) and which of them are hidden (T,)."""

    def target_spec(self) -> TargetSpec:
        """A feature row in the dataset's units."""
        return TargetSpec(torch.float32, (self.feature_dim,))

    def targets(self, masked: MaskedClip) -> Targets | None:
        """The hidden rows; None unless the modality is hidden."""
        if masked.hidden != self.modality:
            return None
        rows, hidden = self.track(masked)
        return Targets(positions=masked.positions(self.modality), values=rows[hidden])

    def scores(self, hidden: Tensor, values: Tensor, backbone: "MemoBert") -> PositionScores:
        """Mean squared error and 1 - error of each row; see the base class."""
        embedder = self.embedder(backbone)
        # F.linear's weight is (outputs, inputs); the projection's is (D, D_feature).
        rows = F.linear(self.transform(hidden), embedder.projection.weight.t(), self.bias)
        wanted = embedder.normalise(values).float()  # (M, D_feature)
        loss = (rows.float() - wanted).square().mean(dim=-1)
        return PositionScores(loss, 1 - loss.detach())

    def baselines(self, masked: MaskedClip, backbone: "MemoBert") -> Mapping[str, float]:
        """Error sums of the clip's mean visible row and of interpolation across the span.

        Where no row is visible, both are the training split's mean.
        """
        track, hidden = self.track(masked)
        embedder = self.embedder(backbone)
        on_device = torch.from_numpy(track.astype(np.float32)).to(embedder.projection.weight.device)
        rows = embedder.normalise(on_device).float().cpu().numpy()  # (T, D_feature)
        known = seen(track) & ~hidden
        wanted = np.flatnonzero(hidden)
        predictions = {
            "clip mean": mean_of_known(rows, known, otherwise=0),
            "interpolation": interpolate(rows, known, wanted, otherwise=0),
        }
        return {
            name: float(((prediction - rows[wanted]) ** 2).mean(axis=-1).sum())
            for name, prediction in predictions.items()
        }
