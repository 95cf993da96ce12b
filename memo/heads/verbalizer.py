"""The prompt's head: the pretrained MLM head at [MASK], and a choice among the label words only.

MEmoBERT's public evaluation takes the most probable piece of the whole vocabulary and replaces
what is no label word by a random wrong class; restricting the choice to the label words is the
right definition (Schick and Schuetze, EACL 2021, equation 1).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data_pipeline.errors import UserError
from data_pipeline.packing import PackedBatch
from memo.heads.base import LABEL, Head
from memo.model.memobert import MemoBert
from memo.objectives.wwmlm import WholeWordMLM
from memo.tokenizer import Tokenizer

Words = Sequence[Sequence[Sequence[str]]]
"""Label words: language -> class -> words."""


class Verbalizer(Head):
    """Score of a class: mean logit of the pieces of its label words in the clip's language.

    A word of several pieces counts as the mean of its pieces, several words of a class as the mean
    of the words.

    Args:
        mlm: the pretrained head.
        words: label words.
        tokenizer: cuts them.

    Raises:
        UserError: a label word is not in the vocabulary, or two classes have the same pieces.
    """

    pieces: Tensor
    shares: Tensor

    def __init__(self, mlm: WholeWordMLM, words: Words, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.mlm = mlm
        table = [[_weighted_pieces(one, tokenizer) for one in classes] for classes in words]
        _refuse_same(words, table)
        most = max(len(one) for classes in table for one in classes)
        filled = [[[*one, *[(0, 0.0)] * (most - len(one))] for one in classes] for classes in table]
        both = torch.tensor(filled, dtype=torch.float64)  # (languages, C, P, 2)
        self.register_buffer("pieces", both[..., 0].long(), persistent=False)
        self.register_buffer("shares", both[..., 1].float(), persistent=False)

    @property
    def borrowed(self) -> Sequence[nn.Parameter]:
        """Parameters of other modules that it reads; see `memo.training.engine.Borrower`."""
        return (self.mlm.bias,)

    def forward(self, states: Sequence[Tensor], batch: PackedBatch, backbone: MemoBert) -> Tensor:
        """See the base class; the last layer's output is what the MLM head knows."""
        targets = batch.targets[LABEL]
        hidden = states[-1].index_select(0, targets.positions)
        at_mask: Tensor = self.mlm.transform(hidden)  # (S, D)
        weights = backbone.text.word(self.pieces)  # (languages, C, P, D)
        words = torch.einsum("lcpd,lcp->lcd", weights, self.shares.to(weights.dtype))
        biases = (self.mlm.bias[self.pieces] * self.shares).sum(-1)  # (languages, C)
        language = targets.values[:, 1]  # (S,)
        logits = torch.einsum("sd,scd->sc", at_mask, words.index_select(0, language))
        return (logits + biases.index_select(0, language)).float()


def _weighted_pieces(words: Sequence[str], tokenizer: Tokenizer) -> list[tuple[int, float]]:
    """Pieces of a class's label words, and the share of each in the mean."""
    weighted = []
    for word in words:
        ids = tokenizer.encode(word).ids.tolist()
        if not ids or tokenizer.unk_id in ids:
            raise UserError(
                f"the label word {word!r} is not in the tokenizer's vocabulary; choose another in "
                "the task's wording, or train a tokenizer on more text"
            )
        weighted += [(piece, 1 / len(ids) / len(words)) for piece in ids]
    return weighted


def _refuse_same(words: Words, table: Sequence[Sequence[list[tuple[int, float]]]]) -> None:
    """No two classes may look the same to the model."""
    for spoken, listed in zip(words, table, strict=True):
        classes = [sorted(pieces) for pieces in listed]
        for at, pieces in enumerate(classes):
            if pieces in classes[:at]:
                first = spoken[classes.index(pieces)]
                raise UserError(
                    f"the label words {', '.join(first)} and {', '.join(spoken[at])} are the same "
                    "pieces to the tokenizer; choose others in the task's wording"
                )
