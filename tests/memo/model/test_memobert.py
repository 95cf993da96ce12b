"""The whole model: packing changes nothing, any modality may be absent, all gradients exist."""

from dataclasses import replace
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memo.model.encoder import Layer
from memo.model.memobert import MemoBert
from tests.memo.model.packed import Lengths, random_batch, small_spec

SPEC = small_spec()
CLIPS: list[Lengths] = [(5, 4, 7), (0, 3, 0), (9, 0, 2), (2, 6, 0)]
lengths = st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(1, 8))


def seeded_model(attention: str = "auto", **options: bool) -> MemoBert:
    torch.manual_seed(0)
    return MemoBert(SPEC, attention, **options)  # type: ignore[arg-type]


def gradients(model: MemoBert, hidden: Tensor) -> list[Tensor]:
    """Of a loss that depends on every element."""
    weights = torch.linspace(-1, 1, hidden.numel()).view(hidden.shape)
    return list(torch.autograd.grad((hidden * weights).sum(), list(model.parameters())))


@given(clips=st.lists(lengths, min_size=1, max_size=4))
@settings(max_examples=20)
def test_a_sequence_does_not_see_its_neighbours(clips: list[Lengths]) -> None:
    model = seeded_model()
    batch = random_batch(SPEC, clips)
    hidden = model(batch).split(batch.seqlens)
    for number in range(len(clips)):
        kept = torch.tensor([n for n, clip in enumerate(clips) for _ in range(clip[2])]) == number
        alone = random_batch(SPEC, [clips[number]])
        pieces = [clip[0] for clip in clips]
        frames = [clip[1] for clip in clips]
        alone = replace(
            alone,
            text_ids=torch.split(batch.text_ids, pieces)[number],
            face=torch.split(batch.face, frames)[number],
            face_masked=torch.split(batch.face_masked, frames)[number],
            speech=batch.speech[kept],
            speech_masked=batch.speech_masked[kept],
        )
        torch.testing.assert_close(model(alone), hidden[number], atol=1e-5, rtol=0)


def test_tokens_stand_in_the_order_text_face_speech() -> None:
    model = seeded_model()
    batch = random_batch(SPEC, CLIPS)
    embedded = model.embed(batch)
    face = model.face(batch.face, batch.face_positions, batch.face_masked)
    # Sample 0 is text 0-4, face 5-8, speech 9-15; sample 1 is three face rows.
    torch.testing.assert_close(embedded[5:9], face[:4])
    torch.testing.assert_close(embedded[16:19], face[4:7])


def test_packed_equals_padded() -> None:
    """Outputs and gradients of both CPU backends, through the whole model."""
    batch = random_batch(SPEC, CLIPS)
    packed, padded = seeded_model("loop"), seeded_model("padded")
    outputs = packed(batch), padded(batch)
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=0)
    ours, theirs = (gradients(m, h) for m, h in zip((packed, padded), outputs, strict=True))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5 * max(1, float(mine.abs().max())), rtol=0)


@pytest.mark.parametrize(
    "clips", [[], [(5, 0, 0)], [(0, 4, 0)], [(0, 0, 3)], [(3, 0, 2), (0, 0, 1)]]
)
def test_every_parameter_has_a_gradient_whatever_is_absent(clips: list[Lengths]) -> None:
    model = seeded_model()
    hidden = model(random_batch(SPEC, clips))
    assert hidden.shape == (sum(map(sum, clips)), SPEC.hidden)
    hidden.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_recomputing_changes_nothing_with_dropout() -> None:
    batch = random_batch(SPEC, CLIPS)
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = MemoBert(small_spec(dropout=0.3, attention_dropout=0.2), recompute=recompute)
        torch.manual_seed(5)
        results.append(gradients(model, model(batch)))
    for kept, recomputed in zip(*results, strict=True):
        assert torch.equal(kept, recomputed)


def test_half_precision_is_near_full_precision() -> None:
    """Outputs are LayerNorm's, of order one; gradients exist with dropout too."""
    batch = random_batch(SPEC, CLIPS)
    model = seeded_model().eval()
    wanted = model(batch)
    half = seeded_model().bfloat16()
    torch.testing.assert_close(half.eval()(batch).float(), wanted, atol=0.15, rtol=0)
    torch.manual_seed(0)
    dropping = MemoBert(small_spec(dropout=0.1, attention_dropout=0.1)).bfloat16()
    for gradient in gradients(dropping, dropping(batch)):
        assert gradient.isfinite().all()


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = MemoBert(small_spec(init_std=0.05, hidden=64, ffn=256))
    layer = cast(Layer, model.encoder.layers[0])
    assert layer.feed_forward.expand.weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert model.text.word.weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert model.face.projection.bias.abs().max() == 0
    assert torch.equal(layer.norm.weight, torch.ones(64))
    assert torch.equal(layer.norm.bias, torch.zeros(64))
