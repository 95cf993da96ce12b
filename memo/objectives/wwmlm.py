"""WWMLM: predict the pieces of hidden whole words (MEmoBERT, section 2.3; BERT's MLM head)."""

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from data_pipeline.packing import Targets, TargetSpec
from memo.config import ModelSpec
from memo.objectives.base import Modality, Objective, PositionScores, register
from memo.objectives.heads import HeadTransform
from memo.objectives.masking import MaskedClip

if TYPE_CHECKING:
    from memo.model.memobert import MemoBert

LOGITS = 2**26
"""The most that are held at once: 256 MiB in float32, of which a backward pass has three copies.
A micro-batch may hide nearly all of its tokens, and XLM-R's vocabulary has 250,002 pieces."""


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
        """Cross entropy and correctness of each piece; see the base class.

        What would be more than `LOGITS` is computed a chunk of pieces at a time, and again in the
        backward pass: of this module, for which ZeRO-3 has gathered the weights again by then.
        """
        weight = backbone.text.word.weight  # (V, D)
        rows = self.transform(hidden)
        most = max(LOGITS // self.spec.vocab_size, 1)
        if len(rows) <= most:
            return _scores(rows, values, weight, self.bias)
        bias = self.bias.float()  # in bf16 a sum of many chunks' gradients would be rounded off
        parts = [
            checkpoint(_scores, *part, weight, bias, use_reentrant=False, preserve_rng_state=False)
            for part in zip(rows.split(most), values.split(most), strict=True)
        ]
        return PositionScores(*(torch.cat(one) for one in zip(*parts, strict=True)))


def _scores(rows: Tensor, values: Tensor, weight: Tensor, bias: Tensor) -> PositionScores:
    """Of transformed rows (M, D)."""
    logits = F.linear(rows, weight, bias.to(rows.dtype)).float()  # (M, V)
    loss = F.cross_entropy(logits, values, reduction="none")
    correct = logits.detach().argmax(dim=-1) == values  # last, where a recomputation has ended
    return PositionScores(loss, correct.float())
