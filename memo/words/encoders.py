"""The encoders of the original multi-task models: words -> states, by convolution or an LSTM.

No result depends on how far a batch is filled up.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from memo.words.vocabulary import PAD

Pooling: TypeAlias = Literal["max", "mean", "min"]

TOGETHER = 32
"""Texts that an LSTM reads at once."""


class WordEmbedding(nn.Module):
    """Word numbers -> vectors.

    Args:
        table: float32 (V, D).
        frozen: whether the vectors stay as they are.
    """

    def __init__(self, table: Tensor, frozen: bool) -> None:
        super().__init__()
        self.width = table.shape[1]
        self.table = nn.Embedding.from_pretrained(table, freeze=frozen, padding_idx=PAD)

    def forward(self, numbers: Tensor) -> Tensor:
        """int64 (B, T) -> (B, T, D)."""
        vectors: Tensor = self.table(numbers)
        return vectors


class WordCnn(nn.Module):
    """Convolutions of several widths side by side, ReLU (Kim, EMNLP 2014).

    One of width 1 is a linear layer, which needs no copy in a convolution's order: 2.5 times as
    fast on a CPU.

    Args:
        width: D of the word vectors.
        widths: words that a filter sees.
        filters: of each width.
    """

    def __init__(self, width: int, widths: Sequence[int], filters: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.convolutions = nn.ModuleList(
            nn.Linear(width, filters) if size == 1 else nn.Conv1d(width, filters, size)
            for size in widths
        )

    def forward(self, vectors: Tensor, lengths: Tensor) -> list[Tensor]:
        """A map of each width; windows that begin behind the text are zero.

        Args:
            vectors: (B, T, D).
            lengths: int64 (B,).

        Returns:
            For each width (B, T, filters).
        """
        length = vectors.shape[1]
        inside = torch.arange(length, device=vectors.device) < lengths[:, None]  # (B, T)
        clean = vectors * inside[:, :, None]
        maps = []
        for size, convolution in zip(self.widths, self.convolutions, strict=True):
            if size == 1:
                found = convolution(clean)  # (B, T, filters)
            else:
                filled = nn.functional.pad(clean.transpose(1, 2), (0, size - 1))
                found = convolution(filled).transpose(1, 2)
            maps.append(found.relu() * inside[:, :, None])
        return maps


def pool_words(states: Tensor, lengths: Tensor, how: Pooling) -> Tensor:
    """The states of each text as one.

    Args:
        states: (B, T, C).
        lengths: int64 (B,); what stands behind them does not count.
        how: which.

    Returns:
        (B, C).
    """
    inside = torch.arange(states.shape[1], device=states.device) < lengths[:, None]  # (B, T)
    if how == "mean":
        return (states * inside[:, :, None]).sum(dim=1) / lengths[:, None]
    if how == "max":
        return states.masked_fill(~inside[:, :, None], -torch.inf).amax(dim=1)
    return states.masked_fill(~inside[:, :, None], torch.inf).amin(dim=1)


class WordLstm(nn.Module):
    """An LSTM without peepholes; its last state is the text's.

    Its forget gates begin open, with a bias of 1 (Jozefowicz et al., ICML 2015), for the words that
    decide may stand two hundred words before the last state.

    Texts are read filled up, for oneDNN's LSTM takes no packed sequences and is six times as fast
    on a CPU; what stands behind a text is read after its last state and changes nothing. Of many
    texts those of like length are read together, `TOGETHER` at a time.

    Args:
        width: D of the word vectors.
        hidden: of a direction.
        layers: stacked.
        both: reads backwards as well; the two last states stand end to end.
    """

    def __init__(self, width: int, hidden: int, layers: int = 1, both: bool = False) -> None:
        super().__init__()
        self.width = hidden * (2 if both else 1)
        self.directions = nn.ModuleList(
            nn.LSTM(width, hidden, layers, batch_first=True) for _ in range(2 if both else 1)
        )
        self._open_forget_gates(hidden)

    @torch.no_grad()
    def _open_forget_gates(self, hidden: int) -> None:
        """Set the two biases, which are added; the gates stand in the order i, f, g, o."""
        for name, bias in self.named_parameters():
            if "bias" in name:
                bias.zero_()
            if "bias_ih" in name:
                bias[hidden : 2 * hidden] = 1

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D) -> (B, hidden), or twice that for both directions.

        Args:
            vectors: (B, T, D).
            lengths: int64 (B,).
        """
        if len(lengths) <= TOGETHER:
            return self._last_states(vectors, lengths)
        order = lengths.argsort(stable=True)
        last = [
            self._last_states(vectors[group][:, : int(lengths[group].max())], lengths[group])
            for group in order.split(TOGETHER)
        ]
        return torch.cat(last).index_select(0, order.argsort())

    def _last_states(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """See `forward`."""
        ends = (lengths - 1)[:, None, None]  # (B, 1, 1)
        last = []
        for number, lstm in enumerate(self.directions):
            states, _ = lstm(_backwards(vectors, lengths) if number else vectors)
            last.append(states.gather(1, ends.expand(-1, -1, states.shape[2]))[:, 0])
        return torch.cat(last, dim=1)


def _backwards(vectors: Tensor, lengths: Tensor) -> Tensor:
    """Each text's words in reverse, (B, T, D); what stands behind them is anything."""
    places = torch.arange(vectors.shape[1], device=vectors.device)
    reverse = (lengths[:, None] - 1 - places).clamp(min=0)  # (B, T)
    return vectors.gather(1, reverse[:, :, None].expand_as(vectors))


class PooledCnn(nn.Module):
    """Convolutions and their maxima over the text, end to end (Kim, EMNLP 2014).

    Args:
        width: D of the word vectors.
        widths: words that a filter sees.
        filters: of each width.
    """

    def __init__(self, width: int, widths: Sequence[int], filters: int) -> None:
        super().__init__()
        self.width = len(widths) * filters
        self.cnn = WordCnn(width, widths, filters)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D), int64 (B,) -> (B, widths * filters)."""
        maps = self.cnn(vectors, lengths)
        return torch.cat([pool_words(one, lengths, "max") for one in maps], dim=1)


class MeanWords(nn.Module):
    """The mean of the vectors, and a layer with ReLU: a bag of words (Liu et al., NAACL 2015).

    Args:
        width: D of the word vectors.
        hidden: width of the state.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.width = hidden
        self.layer = nn.Linear(width, hidden)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D), int64 (B,) -> (B, hidden)."""
        return torch.relu(self.layer(pool_words(vectors, lengths, "mean")))
