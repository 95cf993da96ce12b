"""Packing against sequences built token by token."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_pipeline.packing import PIECE, Example, PackedBatch, Targets, TargetSpec, join_texts, pack

FACE_DIM, SPEECH_DIM = 2, 3
SPECS = {
    "class": TargetSpec(torch.int64, ()),
    "row": TargetSpec(torch.float32, (SPEECH_DIM,)),
}
sizes = st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=6)


def _example(rng: np.random.Generator, number: int, size: tuple[int, int, int]) -> Example:
    """Random values; each objective has targets half the time, in random order."""
    text, face, speech = size
    targets = {}
    for name, spec in SPECS.items():
        positions = rng.permutation(sum(size))[: rng.integers(0, sum(size) + 1)]
        if rng.random() < 0.5:
            values = rng.integers(0, 99, (len(positions), *spec.shape))
            dtype = np.int64 if spec.dtype == torch.int64 else np.float32
            targets[name] = Targets(positions, values.astype(dtype))
    return Example(
        sample=100 + number,
        key=f"k{number}",
        text_ids=rng.integers(0, 1000, text),
        face=rng.normal(size=(face, FACE_DIM)).astype(np.float16),
        face_masked=rng.random(face) < 0.5,
        speech=rng.normal(size=(speech, SPEECH_DIM)).astype(np.float16),
        speech_masked=rng.random(speech) < 0.5,
        targets=targets,
    )


def _expected_tokens(examples: list[Example]) -> list[tuple[object, ...]]:
    """(modality, place in its track, content) of every packed token."""
    tokens: list[tuple[object, ...]] = []
    for one in examples:
        tokens += [("text", n, int(piece)) for n, piece in enumerate(one.text_ids)]
        for name, rows, masks in (
            ("face", one.face, one.face_masked),
            ("speech", one.speech, one.speech_masked),
        ):
            for n, (row, masked) in enumerate(zip(rows, masks, strict=True)):
                tokens.append((name, n, tuple(row.tolist()), bool(masked)))
    return tokens


def _packed_tokens(batch: PackedBatch) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        ("text", *pair)
        for pair in zip(batch.text_positions.tolist(), batch.text_ids.tolist(), strict=True)
    ]
    for name, positions, values, masks in (
        ("face", batch.face_positions, batch.face, batch.face_masked),
        ("speech", batch.speech_positions, batch.speech, batch.speech_masked),
    ):
        content = map(tuple, values.tolist())
        fields = zip(positions.tolist(), content, masks.tolist(), strict=True)
        rows += [(name, *field) for field in fields]
    return [rows[place] for place in batch.order.tolist()]


@given(sizes, st.integers(0, 2**32))
def test_packed_tokens_are_the_sequences_end_to_end(
    size: list[tuple[int, int, int]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    examples = [_example(rng, number, one) for number, one in enumerate(size)]
    batch = pack(examples, SPECS, FACE_DIM, SPEECH_DIM)
    assert _packed_tokens(batch) == _expected_tokens(examples)
    assert batch.seqlens == tuple(sum(one) for one in size)
    assert batch.cu_seqlens.tolist() == [sum(batch.seqlens[:n]) for n in range(len(size) + 1)]
    assert batch.samples.tolist() == [one.sample for one in examples]
    assert batch.keys == tuple(one.key for one in examples)
    for name in SPECS:
        _check_targets(batch, examples, name)


def _check_targets(batch: PackedBatch, examples: list[Example], name: str) -> None:
    expected: list[tuple[int, object]] = []
    begin = 0
    for one in examples:
        if name in one.targets:
            places = (begin + one.targets[name].positions).tolist()
            expected += zip(places, one.targets[name].values.tolist(), strict=True)
        begin += one.tokens
    packed = batch.targets[name]
    found = list(zip(packed.positions.tolist(), packed.values.tolist(), strict=True))
    assert found == sorted(expected, key=lambda pair: pair[0])
    assert packed.values.dtype == SPECS[name].dtype
    assert packed.values.shape[1:] == SPECS[name].shape


@pytest.mark.parametrize("size", [[], [(3, 0, 0)], [(0, 0, 2), (2, 1, 0)]])
def test_dtypes_and_shapes_do_not_depend_on_what_is_there(size: list[tuple[int, int, int]]) -> None:
    rng = np.random.default_rng(0)
    batch = pack([_example(rng, 0, one) for one in size], SPECS, FACE_DIM, SPEECH_DIM)
    integers = (batch.text_ids, batch.text_positions, batch.face_positions, batch.order)
    assert {tensor.dtype for tensor in (*integers, batch.samples)} == {torch.int64}
    assert batch.face.shape == (sum(one[1] for one in size), FACE_DIM)
    assert batch.speech.shape == (sum(one[2] for one in size), SPEECH_DIM)
    assert batch.face.dtype == batch.speech.dtype == torch.float32
    assert batch.face_masked.dtype == batch.speech_masked.dtype == torch.bool
    assert batch.cu_seqlens.dtype == torch.int32


def test_a_batch_moves_with_all_its_tensors() -> None:
    rng = np.random.default_rng(3)
    moved = pack([_example(rng, 0, (3, 2, 2))], SPECS, FACE_DIM, SPEECH_DIM).to(
        torch.device("meta")
    )
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    tensors += [part for one in moved.targets.values() for part in (one.positions, one.values)]
    assert len(tensors) == 11 + 2 * len(SPECS)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@given(lengths=st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=3))
def test_joined_texts_are_those_packed_at_once(lengths: list[list[int]]) -> None:
    rng = np.random.default_rng(len(lengths))
    parts = [[_example(rng, at, (one, 0, 0)) for at, one in enumerate(part)] for part in lengths]
    whole = pack([one for part in parts for one in part], {}, FACE_DIM, SPEECH_DIM)
    joined = join_texts([pack(part, SPECS, FACE_DIM, SPEECH_DIM) for part in parts])
    assert (joined.seqlens, joined.keys) == (whole.seqlens, whole.keys)
    for name in ("text_ids", "text_positions", "order", "cu_seqlens", "samples", "face"):
        torch.testing.assert_close(getattr(joined, name), getattr(whole, name))


def _rows_alone(face: NDArray[np.float16]) -> Example:
    nothing = np.zeros(0, dtype=np.int64)
    unseen = np.zeros((0, SPEECH_DIM), dtype=np.float16)
    masked, none = np.zeros(len(face), dtype=bool), np.zeros(0, dtype=bool)
    return Example(0, "k", nothing, face, masked, unseen, none, {})


@pytest.mark.filterwarnings("error")
def test_rows_become_what_numpy_makes_of_them() -> None:
    """Every number of two bytes, in more than one piece, out of memory not to be written to."""
    content = np.arange(2**16, dtype=np.uint16).tobytes()
    every = np.frombuffer(content, np.float16).reshape(256, 256)
    assert every.size > 2 * PIECE
    batch = pack([_rows_alone(every[:100]), _rows_alone(every[100:])], {}, 256, SPEECH_DIM)
    assert batch.face.dtype == torch.float32
    np.testing.assert_array_equal(batch.face.numpy(), every.astype(np.float32))
    batch.face.add_(1)
    assert every.tobytes() == content
