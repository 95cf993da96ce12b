"""Text pieces, face rows and speech rows -> rows of the transformer's width.

Each embedder adds feature, position and type, then applies LayerNorm and dropout (MEmoBERT,
section 2.2). All of them run with zero rows.
"""

import torch
from torch import Tensor, nn

from memo.config import ModelSpec
from memo.model.dropout import Dropout


class TextEmbedder(nn.Module):
    """BERT's embeddings: word + position + type -> LayerNorm -> dropout.

    Args:
        spec: the model's sizes.

    Attributes:
        word: (V, D), tied to the decoder of WWMLM.
        position: (position_offset + max_positions, D).
        token_type: (1, D), type 0 of BERT.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.offset = spec.position_offset
        self.word = nn.Embedding(spec.vocab_size, spec.hidden)
        self.position = nn.Embedding(spec.position_offset + spec.max_positions, spec.hidden)
        self.token_type = nn.Parameter(torch.empty(1, spec.hidden))
        self.norm = nn.LayerNorm(spec.hidden, spec.layer_norm_eps)
        self.dropout = Dropout(spec.dropout)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Embed pieces.

        Args:
            ids: int64 (L,).
            positions: int64 (L,), from 0 in each text.

        Returns:
            (L, D).
        """
        place = _lookup(self.position, positions + self.offset, "text")
        hidden: Tensor = self.dropout(self.norm(self.word(ids) + place + self.token_type))
        return hidden


class FrameEmbedder(nn.Module):
    """Face or speech rows -> Linear, LayerNorm, + position + type, LayerNorm, dropout.

    A masked row is set to zero and a learned vector of feature size is added before the linear
    layer (MEmoBERT's public code).

    Args:
        spec: the model's sizes.
        features: dimension of a row.
        positions: learned positions.
        name: "face" or "speech", for messages.

    Attributes:
        mean, std: float32 (features,), statistics of the training rows; part of the checkpoint.
        mask: (1, features), what stands in for a masked row.
        projection: Linear features -> D; its weight is tied to the regression head.
        token_type: (1, D).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ModelSpec, features: int, positions: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.mask = nn.Parameter(torch.empty(1, features))
        self.projection = nn.Linear(features, spec.hidden)
        self.projection_norm = nn.LayerNorm(spec.hidden, spec.layer_norm_eps)
        self.position = nn.Embedding(positions, spec.hidden)
        self.token_type = nn.Parameter(torch.empty(1, spec.hidden))
        self.norm = nn.LayerNorm(spec.hidden, spec.layer_norm_eps)
        self.dropout = Dropout(spec.dropout)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take over the dataset's statistics, each (features,).

        A feature that never varies keeps its scale.
        """
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, torch.ones_like(std)))

    def normalise(self, rows: Tensor) -> Tensor:
        """Rows in the dataset's units -> zero mean and unit variance per feature.

        An all-zero row means that nothing was seen. It stays zero, which is the mean: a row that
        says nothing.

        Args:
            rows: (R, features).

        Returns:
            (R, features), at least float32.
        """
        seen = rows.ne(0).any(-1, keepdim=True)  # (R, 1)
        return ((rows - self.mean) / self.std) * seen

    def forward(self, rows: Tensor, positions: Tensor, masked: Tensor) -> Tensor:
        """Embed rows.

        Args:
            rows: (R, features), in the dataset's units.
            positions: int64 (R,), from 0 in each track.
            masked: bool (R,), rows that must not be seen.

        Returns:
            (R, D).
        """
        values = self.normalise(rows).to(self.mask.dtype)
        values = torch.where(masked[:, None], self.mask, values)
        projected = self.projection_norm(self.projection(values))
        place = _lookup(self.position, positions, self.name)
        hidden: Tensor = self.dropout(self.norm(projected + place + self.token_type))
        return hidden


def _lookup(table: nn.Embedding, positions: Tensor, name: str) -> Tensor:
    """Rows of a position table: (R,) -> (R, D)."""
    if positions.device.type == "cpu" and len(positions):  # on a GPU this would wait for the device
        longest = int(positions.max())
        assert longest < table.num_embeddings, (
            f"{name} position {longest} is beyond the table of {table.num_embeddings}"
        )
    rows: Tensor = table(positions)  # by the module, which ZeRO-3 gathers its weights for
    return rows
