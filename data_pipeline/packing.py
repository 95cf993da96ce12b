"""Examples -> PackedBatch: all samples of a micro-batch stand end to end, without padding.

A sequence is `[CLS] text [SEP] face speech`. Text, face and speech rows are embedded by different
networks, so the batch holds them apart, each packed over the samples, together with the permutation
that puts them in sequence order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

PIECE = 30_000
"""Numbers that torch converts in the thread that asks for it: fewer than its grain of 32,768."""


@dataclass(frozen=True)
class Targets:
    """What one objective must predict in one example.

    Attributes:
        positions: int64 (M,), indices into the example's sequence `[CLS] text [SEP] face speech`.
        values: (M, ...), a row for each position, of the objective's trailing shape; packing makes
            its dtype of them.
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
        face: (F, D_face), unmasked rows, float16 as they are stored; F = 0 if absent.
        face_masked: bool (F,), rows that the model must not see.
        speech: (A, D_speech), likewise; A = 0 if absent.
        speech_masked: bool (A,).
        targets: objective name -> its targets; an objective that has nothing to predict here is
            absent.
    """

    sample: int
    key: str
    text_ids: NDArray[np.int64]
    face: NDArray[np.floating[Any]]
    face_masked: NDArray[np.bool_]
    speech: NDArray[np.floating[Any]]
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

    def count(self, name: str) -> int:
        """Targets of an objective."""
        return len(self.targets[name].positions)

    def to(self, device: torch.device, non_blocking: bool = True) -> "PackedBatch":
        """The batch with every tensor on a device."""
        tensors: dict[str, Any] = {
            field.name: value.to(device, non_blocking=non_blocking)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        targets = {
            name: PackedTargets(
                one.positions.to(device, non_blocking=non_blocking),
                one.values.to(device, non_blocking=non_blocking),
            )
            for name, one in self.targets.items()
        }
        return replace(self, **tensors, targets=targets)


def pack(
    examples: Sequence[Example],
    specs: Mapping[str, TargetSpec],
    face_dim: int,
    speech_dim: int,
) -> PackedBatch:
    """Put examples end to end, in the order given.

    Args:
        examples: may be none.
        specs: objective name -> form of its targets; each gets an entry in the batch.
        face_dim: columns of the face rows, for a batch that has none.
        speech_dim: columns of the speech rows.
    """
    texts = [len(one.text_ids) for one in examples]
    faces = [len(one.face) for one in examples]
    speeches = [len(one.speech) for one in examples]
    seqlens = tuple(one.tokens for one in examples)
    starts = np.cumsum([0, *seqlens])  # (S + 1,)
    return PackedBatch(
        text_ids=_join([one.text_ids for one in examples], np.int64),
        text_positions=_count_up(texts),
        face=_join_rows([one.face for one in examples], face_dim),
        face_positions=_count_up(faces),
        face_masked=_join([one.face_masked for one in examples], np.bool_),
        speech=_join_rows([one.speech for one in examples], speech_dim),
        speech_positions=_count_up(speeches),
        speech_masked=_join([one.speech_masked for one in examples], np.bool_),
        order=_order(texts, faces, speeches),
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
        seqlens=seqlens,
        samples=torch.tensor([one.sample for one in examples], dtype=torch.int64),
        keys=tuple(one.key for one in examples),
        targets={
            name: _pack_targets([one.targets.get(name) for one in examples], starts, spec)
            for name, spec in specs.items()
        },
    )


def join_texts(batches: Sequence[PackedBatch]) -> PackedBatch:
    """Batches of texts alone as one, in the order given, without their targets."""
    first, joined = batches[0], [one.cu_seqlens.diff() for one in batches]
    lengths = torch.cat([first.cu_seqlens[:1], *joined])
    tokens = sum(one.tokens for one in batches)
    return replace(
        first,
        text_ids=torch.cat([one.text_ids for one in batches]),
        text_positions=torch.cat([one.text_positions for one in batches]),
        order=torch.arange(tokens, device=first.order.device),
        cu_seqlens=lengths.cumsum(0, dtype=torch.int32),
        seqlens=tuple(length for one in batches for length in one.seqlens),
        samples=torch.cat([one.samples for one in batches]),
        keys=tuple(key for one in batches for key in one.keys),
        targets={},
    )


def _join(parts: Sequence[NDArray[np.generic]], dtype: type[np.generic]) -> Tensor:
    """One tensor of all parts, end to end; of the right form even if there are none."""
    return torch.from_numpy(np.concatenate([np.empty(0, dtype=dtype), *parts]))


def _join_rows(parts: Sequence[NDArray[np.floating[Any]]], columns: int) -> Tensor:
    """Rows (T, D) of all parts, end to end, as float32.

    NumPy takes five to ten times as long as torch to make four bytes of two; by DLPack torch may
    look at what is not to be written to. A piece is too small to be shared out among threads.
    """
    joined = torch.empty(sum(map(len, parts)), columns)
    numbers, begin = joined.view(-1), 0
    for part in parts:
        flat = part.reshape(-1)
        for start in range(0, len(flat), PIECE):
            piece = from_dlpack(flat[start : start + PIECE])
            numbers[begin + start : begin + start + len(piece)] = piece
        begin += len(flat)
    return joined


def _count_up(lengths: ArrayLike, begins: ArrayLike = 0) -> Tensor:
    """For each part its numbers from where it begins: int64 (sum of lengths,)."""
    sizes = np.asarray(lengths, dtype=np.int64)
    shifts = np.asarray(begins, dtype=np.int64) - (np.cumsum(sizes) - sizes)
    return torch.from_numpy(np.repeat(shifts, sizes) + np.arange(sizes.sum()))


def _order(texts: Sequence[int], faces: Sequence[int], speeches: Sequence[int]) -> Tensor:
    """For each token of `text face speech` sequences its row in `[text; face; speech]`, (N,)."""
    lengths = np.array([texts, faces, speeches], dtype=np.int64)  # (3, S)
    begins = (np.cumsum(lengths) - lengths.ravel()).reshape(lengths.shape)
    return _count_up(lengths.T.ravel(), begins.T.ravel())


def _pack_targets(
    targets: Sequence[Targets | None], starts: NDArray[np.int64], spec: TargetSpec
) -> PackedTargets:
    """All targets of one objective, their positions moved to where their sequences begin."""
    present = [(one, start) for one, start in zip(targets, starts, strict=False) if one is not None]
    if not present:
        empty = torch.empty((0, *spec.shape), dtype=spec.dtype)
        return PackedTargets(torch.empty(0, dtype=torch.int64), empty)
    positions = np.concatenate([one.positions + start for one, start in present])
    values = np.concatenate([one.values for one, _ in present])
    ascending = np.argsort(positions, kind="stable")
    return PackedTargets(
        positions=torch.from_numpy(positions[ascending]),
        values=torch.from_numpy(values[ascending]).to(spec.dtype),
    )
