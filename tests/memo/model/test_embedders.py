"""Embedders against the formulas of the paper, written out for one row."""

import pytest
import torch
import torch.nn.functional as F

from memo.model.embedders import FrameEmbedder
from memo.model.memobert import MemoBert
from tests.memo.model.packed import small_spec

SPEC = small_spec()


def face_embedder() -> FrameEmbedder:
    torch.manual_seed(0)
    return MemoBert(SPEC).face


def test_a_frame_is_projected_placed_and_typed() -> None:
    face = face_embedder()
    mean, std = torch.arange(6.0), torch.arange(6.0) + 1
    face.set_statistics(mean, std)
    row = torch.randn(6)
    wanted = F.layer_norm(F.linear((row - mean) / std, face.projection.weight), (32,), eps=1e-12)
    wanted = F.layer_norm(wanted + face.position.weight[4] + face.token_type[0], (32,), eps=1e-12)
    output = face(row[None], torch.tensor([4]), torch.tensor([False]))
    torch.testing.assert_close(output[0], wanted, atol=1e-5, rtol=0)


def test_a_masked_frame_tells_nothing_of_its_content() -> None:
    face = face_embedder()
    positions, masked = torch.tensor([2]), torch.tensor([True])
    outputs = [face(torch.randn(1, 6), positions, masked) for _ in range(2)]
    assert torch.equal(*outputs)
    (gradient,) = torch.autograd.grad(outputs[0].square()[0, :5].sum(), face.mask)
    assert gradient.abs().sum() > 0


def test_an_unseen_frame_stays_zero_and_a_constant_feature_keeps_its_scale() -> None:
    face = face_embedder()
    face.set_statistics(torch.full((6,), 3.0), torch.tensor([2.0, 2, 2, 2, 2, 0]))
    rows = torch.stack((torch.zeros(6), torch.full((6,), 5.0)))
    wanted = torch.tensor([[0.0] * 6, [1.0] * 5 + [2.0]])
    assert torch.equal(face.normalise(rows), wanted)


def test_statistics_are_part_of_the_checkpoint() -> None:
    face = face_embedder()
    face.set_statistics(torch.ones(6), torch.full((6,), 2.0))
    other = face_embedder()
    other.load_state_dict(face.state_dict())
    assert torch.equal(other.std, torch.full((6,), 2.0))


def test_a_position_beyond_the_table_is_refused() -> None:
    with pytest.raises(AssertionError, match="face position 20 is beyond the table of 20"):
        face_embedder()(torch.randn(1, 6), torch.tensor([20]), torch.tensor([False]))


def test_text_positions_begin_at_the_offset() -> None:
    spec = small_spec(position_offset=2)
    text = MemoBert(spec).text
    assert text.position.num_embeddings == 42
    wanted = F.layer_norm(
        text.word.weight[7] + text.position.weight[2] + text.token_type[0], (32,), eps=1e-12
    )
    output = text(torch.tensor([7]), torch.tensor([0]))
    torch.testing.assert_close(output[0], wanted, atol=1e-5, rtol=0)
