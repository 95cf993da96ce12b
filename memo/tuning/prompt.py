"""Prompt tuning: the pretrained MLM head answers "I am [MASK]." with a label word.

With a hard prompt all weights are trained, as in MEmoBERT (section 2.4); with soft vectors only
these are (Lester et al., EMNLP 2021), unless adapters are asked for as well.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.errors import UserError
from memo.heads.base import Head
from memo.heads.verbalizer import Verbalizer
from memo.tuning.base import Parts, TuningMode, register


class PromptedEmbedding(nn.Embedding):
    """A word table in which negative numbers are learned vectors: -1 the first, -2 the second.

    Args:
        table: the pretrained word embedding, whose weight is shared.
        vectors: how many are learned; they begin as random rows of the table.
    """

    def __init__(self, table: nn.Embedding, vectors: int) -> None:
        super().__init__(table.num_embeddings, table.embedding_dim, _weight=table.weight)
        rows = torch.randint(table.num_embeddings, (vectors,))
        self.prompt = nn.Parameter(table.weight.detach()[rows].clone())  # (vectors, D)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 (L,) -> (L, D)."""
        words = super().forward(ids.clamp(min=0))
        learned = F.embedding((-1 - ids).clamp(min=0), self.prompt)
        return torch.where(ids[:, None] < 0, learned, words)


@register
class Prompt(TuningMode):
    """A verbalizer on the pretrained MLM head."""

    name: ClassVar[str] = "prompt"
    partner: ClassVar[str | None] = "adapter"

    def __init__(self, alone: bool) -> None:
        super().__init__(alone)
        self._soft = False

    def head(self, parts: Parts) -> Head:
        """The label words' logits.

        Raises:
            UserError: the checkpoint has no MLM head, or the task no wording.
        """
        if parts.mlm is None:
            raise UserError(
                f"--mode prompt: {parts.config.pretrained} was pretrained without wwmlm and has no "
                "head to answer with; take another mode"
            )
        if parts.prompts is None:
            raise UserError(f"--mode prompt: task {parts.config.task} has no wording")
        return Verbalizer(parts.mlm, parts.prompts.words, parts.tokenizer)

    def extend(self, parts: Parts) -> None:
        """Put the soft vectors into the word table."""
        vectors = parts.config.prompt.soft
        self._soft = vectors > 0
        if self._soft:
            text = parts.backbone.text
            text.word = PromptedEmbedding(text.word, vectors)

    def trains(self, name: str) -> bool:
        """The soft vectors, or everything if there are none and no adapters either."""
        return name.endswith(".word.prompt") if self._soft else self.alone
