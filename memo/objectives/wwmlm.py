"""WWMLM: predict the pieces of hidden whole words (MEmoBERT, section 2.3; BERT's MLM head)."""

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.packing import Targets, TargetSpec
from memo.config import ModelSpec
from memo.objectives.base import Modality, Objective, PositionScores, register
from memo.objectives.heads import HeadTransform
from memo.objectives.masking import MaskedClip

if TYPE_CHECKING:
    from memo.model.memobert import MemoBert


@register
class WholeWordMLM(Objective):
    """Cross entropy of each hidden piece over the vocabulary.

    Linear, GELU, LayerNorm, then a decoder tied to the word embeddings, with a bias of its own.
    Metric: share of pieces whose most probable prediction is right.

    Args:
        spec: the model's sizes.
    """

    name: ClassVar[str] = "wwmlm"
    modality: ClassVar[Modality] = "text"
    loss_name: ClassVar[str] = "cross entropy"
    metric: ClassVar[str] = "accuracy"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.transform = HeadTransform(spec)
        self.bias = nn.Parameter(torch.zeros(spec.vocab_size))

    def target_spec(self) -> TargetSpec:
        """A piece's number."""
        return TargetSpec(torch.int64, ())

    def targets(self, masked: MaskedClip) -> Targets | None:
        """The pieces before masking; None unless text is hidden."""
        if masked.hidden != self.modality:
            return None
        return Targets(
            positions=masked.positions("text"),
            values=masked.text_targets[masked.text_masked].astype(np.int64),
        )

    def scores(self, hidden: Tensor, values: Tensor, backbone: "MemoBert") -> PositionScores:
        """Cross entropy and correctness of each piece; see the base class."""
        weight = backbone.text.word.weight  # (V, D)
        logits = F.linear(self.transform(hidden), weight, self.bias).float()  # (M, V)
        correct = logits.detach().argmax(dim=-1) == values
        return PositionScores(F.cross_entropy(logits, values, reduction="none"), correct.float())
