"""Texts of any length as the systems read them: whole words with vectors, or a backbone's tokens.

Both come as packed batches, all texts end to end. A text that is longer than a backbone's positions
is read in windows, `[CLS] pieces [SEP]` each, and its states are those of all windows.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_pipeline.clip import BadSampleError, Clip
from data_pipeline.packing import Example, PackedBatch, Targets, TargetSpec
from memo.heads.base import LABEL
from memo.heads.gates import States
from memo.model.encoder import even_rows
from memo.model.memobert import MemoBert
from memo.multitask.excerpt import Excerpt
from memo.tokenizer import Tokenizer
from memo.words.encoders import WordEmbedding
from memo.words.vocabulary import Vocabulary

Cut = Callable[[str], NDArray[np.int64]]
"""Text -> numbers of its words or pieces, int64 (L,), L > 0."""


def cut_words(vocabulary: Vocabulary, excerpt: Excerpt) -> Cut:
    """The words of a text that are read."""

    def cut(text: str) -> NDArray[np.int64]:
        words = np.array(vocabulary.encode(text), dtype=np.int64)
        return words[excerpt.places(np.arange(len(words)))]

    return cut


def cut_pieces(tokenizer: Tokenizer, excerpt: Excerpt, window: int) -> Cut:
    """The pieces of a text that are read, in windows of `[CLS] pieces [SEP]`.

    Args:
        tokenizer: the backbone's.
        excerpt: pieces, without [CLS] and [SEP].
        window: pieces of a window.
    """

    def cut(text: str) -> NDArray[np.int64]:
        whole = tokenizer.encode(text)
        pieces = whole.ids[excerpt.places(whole.word)]
        starts = range(0, max(len(pieces), 1), window)
        parts = [
            [tokenizer.cls_id, *pieces[at : at + window].tolist(), tokenizer.sep_id]
            for at in starts
        ]
        return np.concatenate(parts).astype(np.int64)

    return cut


def label_specs(targets: int) -> dict[str, TargetSpec]:
    """Form of the targets of a task: T numbers a text."""
    return {LABEL: TargetSpec(torch.int64, (targets,))}


class TextTransform:
    """The stream's transform of texts.

    Args:
        cut: text -> numbers.
        targets: int64 (n, T), of each sample by its number in the stream.
        face_dim, speech_dim: columns of the rows that there are none of.
    """

    def __init__(
        self, cut: Cut, targets: NDArray[np.int64], face_dim: int, speech_dim: int
    ) -> None:
        self._cut = cut
        self._targets = targets
        self._dims = face_dim, speech_dim

    def __call__(self, clip: Clip, sample: int, epoch: int) -> Example:
        """The example of a text.

        Raises:
            BadSampleError: there is no text.
        """
        del epoch
        if not clip.text or not clip.text.strip():
            raise BadSampleError("json", "has no text")
        face, speech = (np.zeros((0, dim), np.float32) for dim in self._dims)
        nothing = np.zeros(0, dtype=bool)
        return Example(
            sample=sample,
            key=clip.key,
            text_ids=self._cut(clip.text),
            face=face,
            face_masked=nothing,
            speech=speech,
            speech_masked=nothing,
            targets={LABEL: Targets(np.array([0]), self._targets[sample][None])},
        )


def filled(rows: Tensor, batch: PackedBatch) -> States:
    """Rows of packed texts as (S, T, D), filled up; for no text one empty text stands there.

    Args:
        rows: (L, D), end to end.
        batch: S texts.
    """
    if not batch.seqlens:
        nothing = rows.new_zeros(1, 1, rows.shape[1]) + rows.sum()
        return States(nothing, torch.ones(1, dtype=torch.int64, device=rows.device))
    lengths = batch.cu_seqlens.diff().long()
    return States(fill_up(rows, lengths, max(batch.seqlens)), lengths)


def fill_up(rows: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """Rows (L, D) of S texts, end to end, with zeros behind each: (S, T, D).

    The gradient of `pad_sequence` is copied as a whole once for every text; this one's is not.

    Args:
        rows: of all texts.
        lengths: int64 (S,), of each text.
        longest: T.
    """
    count, width = len(lengths), rows.shape[1]
    device = rows.device
    starts = torch.arange(count, device=device) * longest  # (S,)
    shift = (starts - lengths.cumsum(0) + lengths).repeat_interleave(lengths)  # (L,)
    places = torch.arange(len(rows), device=device) + shift
    texts = rows.new_zeros(count * longest, width).index_copy(0, places, rows)
    return texts.view(count, longest, width)


class TextStates(nn.Module):
    """Packed texts -> states of their words or tokens.

    Attributes:
        width: D.
    """

    width: int

    def rows(self, batch: PackedBatch) -> Tensor:
        """(L, D), end to end."""
        raise NotImplementedError

    def forward(self, batch: PackedBatch) -> States:
        """See `filled`."""
        return filled(self.rows(batch), batch)


class WordStates(TextStates):
    """Vectors of words.

    Args:
        embedding: the vectors.
    """

    def __init__(self, embedding: WordEmbedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.width = embedding.width

    def rows(self, batch: PackedBatch) -> Tensor:
        """See the base class."""
        vectors: Tensor = self.embedding(batch.text_ids)
        return vectors


class TokenStates(TextStates):
    """The last hidden states of a backbone.

    Args:
        backbone: of the model.
        cls_id: number of the piece that begins a window.
    """

    def __init__(self, backbone: MemoBert, cls_id: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.width = backbone.spec.hidden
        self.cls_id = cls_id

    def rows(self, batch: PackedBatch) -> Tensor:
        """See the base class."""
        hidden: Tensor = self.backbone(in_windows(batch, self.cls_id))
        return hidden


class StateStore:
    """States of texts, on the device where they were made, by the texts' tokens.

    Args:
        most: bytes that are kept; what comes later is not.
    """

    def __init__(self, most: int) -> None:
        self._room = most
        self._kept: dict[bytes, Tensor] = {}

    def find(self, texts: Sequence[Tensor]) -> Tensor | None:
        """The states (L, D) of some texts' tokens, end to end, if all of them are kept."""
        found = [self._kept.get(_digest(ids)) for ids in texts]
        kept = [one for one in found if one is not None]
        return torch.cat(kept) if kept and len(kept) == len(found) else None

    def keep(self, texts: Sequence[Tensor], states: Tensor) -> None:
        """Keep the states (L, D) of some texts' tokens, as far as there is room."""
        at = 0
        for ids in texts:
            key, own = _digest(ids), states[at : at + len(ids)]
            size = own.numel() * own.element_size()
            if key not in self._kept and size <= self._room:
                self._room -= size
                self._kept[key] = own.clone()
            at += len(ids)


class SharedStates:
    """The store of one run after the other, as long as they read with the same layers."""

    def __init__(self) -> None:
        self._key: tuple[object, int] | None = None
        self._store = StateStore(0)

    def of(self, reader: object, most: int) -> StateStore:
        """The store of a reader's states; another reader's is given up.

        Args:
            reader: all that decides what a text's states are, compared by ==.
            most: bytes that are kept.
        """
        if self._key != (reader, most):
            self._key, self._store = (reader, most), StateStore(most)
        return self._store


def _digest(ids: Tensor) -> bytes:
    return hashlib.blake2b(ids.cpu().numpy().tobytes(), digest_size=16).digest()


class FrozenTokenStates(TokenStates):
    """Hidden states of a backbone that stays as it is: without dropout, in 16 bits.

    Args:
        tokens: of the backbone, of which nothing is trained; what lies above the layer is cut off.
        layer: whose states, 0 its embeddings; None: the last.
        store: keeps what was read; None keeps nothing.
    """

    def __init__(self, tokens: TokenStates, layer: int | None, store: StateStore | None) -> None:
        super().__init__(tokens.backbone, tokens.cls_id)
        self._store = store
        self.backbone.encoder.layers = self.backbone.encoder.layers[:layer]
        self.backbone.eval()

    def train(self, mode: bool = True) -> Self:
        """See the base class; the backbone never is."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def rows(self, batch: PackedBatch) -> Tensor:
        """See the base class."""
        texts = batch.text_ids.split(batch.seqlens) if batch.seqlens else ()
        states = self._store.find(texts) if self._store else None
        if states is None:
            states = super().rows(batch).half()
            if self._store:
                self._store.keep(texts, states)
        return states.to(next(self.backbone.parameters()).dtype)


class UpperTokenStates(TextStates):
    """Hidden states of a backbone whose embeddings and lowest layers stay as they are.

    Args:
        tokens: of the backbone, whose lowest layers it keeps.
        frozen_layers: how many.
        store: keeps what they have read; None keeps nothing.
    """

    def __init__(self, tokens: TokenStates, frozen_layers: int, store: StateStore | None) -> None:
        super().__init__()
        self.layers = tokens.backbone.encoder.layers[frozen_layers:]
        self.below = FrozenTokenStates(tokens, frozen_layers, store)
        self.width = self.below.width

    def rows(self, batch: PackedBatch) -> Tensor:
        """See the base class."""
        return through_layers(self.layers, self.below.rows(batch), batch, self.below.cls_id)


def through_layers(layers: nn.ModuleList, rows: Tensor, batch: PackedBatch, cls_id: int) -> Tensor:
    """Rows (L, D) of packed texts through some layers of a backbone, each window by itself."""
    windows, hidden = in_windows(batch, cls_id), even_rows(rows)
    for layer in layers:
        hidden = layer(hidden, windows.cu_seqlens, windows.seqlens)
    return hidden[: len(rows)]


def in_windows(batch: PackedBatch, cls_id: int) -> PackedBatch:
    """The same tokens; a sequence begins at every [CLS].

    Args:
        batch: of texts alone.
        cls_id: number of [CLS].
    """
    starts = torch.nonzero(batch.text_ids == cls_id)[:, 0].tolist()  # (windows,)
    ends = [*starts, len(batch.text_ids)] if starts else [0]
    seqlens = tuple(end - start for start, end in pairwise(ends))
    positions = [torch.arange(length) for length in seqlens]
    device = batch.text_ids.device
    empty = torch.zeros(0, dtype=torch.int64)
    return replace(
        batch,
        text_positions=torch.cat([empty, *positions]).to(device),
        cu_seqlens=torch.tensor(ends, dtype=torch.int32, device=device),
        seqlens=seqlens,
    )
