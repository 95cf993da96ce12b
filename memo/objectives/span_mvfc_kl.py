"""SpanMVFC-KL: span-masked visual emotion classification (MEmoBERT, section 2.3)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.errors import UserError
from data_pipeline.packing import Targets, TargetSpec
from memo.config import ModelSpec
from memo.objectives.base import Modality, Objective, PositionScores, register
from memo.objectives.baselines import mean_of_known
from memo.objectives.heads import HeadTransform
from memo.objectives.masking import MaskedClip, seen

if TYPE_CHECKING:
    from memo.model.memobert import MemoBert

_SMALLEST_STORED = 2.0**-24
"""The smallest positive float16: a stored 0 is less than this, not nothing."""


@register
class SpanMVFCKL(Objective):
    """KL(target || prediction) of each hidden frame's expression, summed over the classes.

    The target is the face network's class posterior. The public code averages over the classes
    too, which makes the loss K times smaller than a KL divergence; here it is one, in nats. Head:
    Linear, GELU, LayerNorm, Linear. Metric: share of frames whose most probable class is the face
    network's.

    Args:
        spec: the model's sizes.

    Raises:
        UserError: the face encoder knows no expressions.
    """

    name: ClassVar[str] = "span_mvfc_kl"
    modality: ClassVar[Modality] = "face"
    loss_name: ClassVar[str] = "kl"
    metric: ClassVar[str] = "agreement"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        if not spec.face_classes:
            raise UserError(
                f"objectives: {self.name} predicts expressions, but the face encoder of these data "
                f"knows none; leave it out with objectives.{self.name}=null"
            )
        self.transform = HeadTransform(spec)
        self.classifier = nn.Linear(spec.hidden, spec.face_classes)

    def target_spec(self) -> TargetSpec:
        """A probability for each expression class."""
        return TargetSpec(torch.float32, (self.spec.face_classes,))

    def targets(self, masked: MaskedClip) -> Targets | None:
        """Posteriors of the hidden frames that have one; None unless the face is hidden."""
        if masked.hidden != self.modality:
            return None
        rows = _rows(masked)
        if len(rows) == 0:
            return None
        start = len(masked.text_ids)
        return Targets(positions=start + rows, values=_posteriors(masked.expression[rows]))

    def scores(self, hidden: Tensor, values: Tensor, backbone: "MemoBert") -> PositionScores:
        """KL divergence and agreement of each frame; see the base class."""
        del backbone
        logits = self.classifier(self.transform(hidden)).float()  # (M, K)
        divergence = F.kl_div(logits.log_softmax(dim=-1), values, reduction="none").sum(dim=-1)
        agreement = logits.detach().argmax(dim=-1) == values.argmax(dim=-1)
        return PositionScores(divergence, agreement.float())

    def baselines(self, masked: MaskedClip, backbone: "MemoBert") -> Mapping[str, float]:
        """KL sum of the clip's mean visible posterior; the uniform one where none is visible."""
        del backbone
        known = seen(masked.expression) & ~masked.face_masked
        posteriors = _posteriors(masked.expression)
        mean = mean_of_known(posteriors, known, otherwise=1 / self.spec.face_classes)
        wanted = torch.from_numpy(posteriors[_rows(masked)])  # (M, K)
        log_mean = torch.from_numpy(mean).clamp_min(_SMALLEST_STORED).log().expand_as(wanted)
        return {"clip mean": float(F.kl_div(log_mean, wanted, reduction="sum"))}


def _rows(masked: MaskedClip) -> NDArray[np.int64]:
    """Numbers of the hidden frames whose expression is known: int64 (M,)."""
    return np.flatnonzero(masked.face_masked & seen(masked.expression))


def _posteriors(expression: NDArray[np.float16]) -> NDArray[np.float32]:
    """Rows (T, K) scaled to a sum of 1, which float16 storage misses; rows of zeros stay."""
    rows = expression.astype(np.float32)
    total = rows.sum(axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = np.divide(rows, total, out=np.zeros_like(rows), where=total > 0)
    return scaled
