"""Examples -> PackedBatch: all samples of a micro-batch stand end to end, without padding.

A sequence is `[CLS] text [SEP] face speech`. Text, face and speech rows are embedded by different
networks, so the batch holds them apart, each packed over the samples, together with the permutation
that puts them in sequence order.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """What one objective must predict in one example.

    Attributes:
        positions: int64 (M,), indices into the example's sequence `[CLS] text [SEP] face speech`.
        values: (M, ...), a row for each position, of the objective's own dtype and trailing shape.
    """

    positions: NDArray[np.int64]
    values: NDArray[np.generic]


@dataclass(frozen=True)
class Example:
    """One sample as the model sees it, masked, with what the objectives must predict.

    Attributes:
        sample: number of the sample in its split.
        key: its name in the tar, for messages.
        text_ids: int64 (L,), [CLS] pieces [SEP], already masked; length 0 if the text is absent.
        face: float32 (F, D_face), unmasked rows; F = 0 if absent.
        face_masked: bool (F,), rows that the model must not see.
        speech: float32 (A, D_speech), unmasked rows; A = 0 if absent.
        speech_masked: bool (A,).
        targets: objective name -> its targets; an objective that has nothing to predict here is
            absent.
    """

    sample: int
    key: str
    text_ids: NDArray[np.int64]
    face: NDArray[np.float32]
    face_masked: NDArray[np.bool_]
    speech: NDArray[np.float32]
    speech_masked: NDArray[np.bool_]
    targets: Mapping[str, Targets]

    @property
    def tokens(self) -> int:
        """Length of the sequence: L + F + A."""
        return len(self.text_ids) + len(self.face) + len(self.speech)


@dataclass(frozen=True)
class TargetSpec:
    """What an objective's values are like, so that a batch without any has an empty array.

    Attributes:
        dtype: torch dtype of the values.
        shape: shape of one position's value; () for a class number.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PackedTargets:
    """The targets of one objective in a micro-batch.

    Attributes:
        positions: int64 (M,), indices into the N packed tokens, ascending.
        values: (M, ...).
    """

    positions: Tensor
    values: Tensor


@dataclass(frozen=True)
class PackedBatch:
    """One micro-batch of S sequences and N = L + F + A tokens in all, without padding.

    Attributes:
        text_ids: int64 (L,), the text pieces of all sequences, end to end.
        text_positions: int64 (L,), place of each piece in its own text, from 0.
        face: float32 (F, D_face), frame rows, unmasked.
        face_positions: int64 (F,), number of each frame in its own track, from 0.
        face_masked: bool (F,), rows that the embedder hides.
        speech: float32 (A, D_speech).
        speech_positions: int64 (A,).
        speech_masked: bool (A,).
        order: int64 (N,), for each packed token its row in the concatenation `[text; face;
            speech]`.
        cu_seqlens: int32 (S + 1,), where each sequence begins in the N tokens; cu_seqlens[-1] == N.
        seqlens: lengths of the S sequences as Python numbers (no device round trip).
        samples: int64 (S,), sample numbers.
        keys: the S keys, for messages.
        targets: objective name -> targets; every objective that was asked for is present, with M =
            0 if need be.
    """

    text_ids: Tensor
    text_positions: Tensor
    face: Tensor
    face_positions: Tensor
    face_masked: Tensor
    speech: Tensor
    speech_positions: Tensor
    speech_masked: Tensor
    order: Tensor
    cu_seqlens: Tensor
    seqlens: tuple[int, ...]
    samples: Tensor
    keys: tuple[str, ...]
    targets: Mapping[str, PackedTargets]

    @property
    def tokens(self) -> int:
        """N, the number of packed tokens."""
        return len(self.order)
