"""A brute-force packer for the model's tests: random clips of given lengths -> PackedBatch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from data_pipeline.packing import PackedBatch
from memo.config import ModelSpec

Lengths = tuple[int, int, int]
"""Text pieces, face rows and speech rows of one sample."""


def small_spec(**changes: float) -> ModelSpec:
    """A model of a few thousand weights."""
    sizes = {"hidden": 32, "layers": 2, "heads": 4, "ffn": 64, "vocab_size": 50}
    features = {"face_dim": 6, "face_classes": 3, "speech_dim": 5}
    rows = {"max_positions": 40, "max_face": 20, "max_speech": 30}
    quiet = {"dropout": 0.0, "attention_dropout": 0.0, "init_std": 0.2}
    return ModelSpec.model_validate(sizes | features | rows | quiet | changes)


def random_batch(spec: ModelSpec, clips: Sequence[Lengths], seed: int = 0) -> PackedBatch:
    """Random pieces and rows; a third of the frames are masked."""
    generator = torch.Generator().manual_seed(seed)
    text, face, speech = (sum(clip[m] for clip in clips) for m in range(3))
    starts = [0, text, text + face]
    order: list[int] = []
    for clip in clips:
        for modality, length in enumerate(clip):
            order += range(starts[modality], starts[modality] + length)
            starts[modality] += length
    seqlens = tuple(sum(clip) for clip in clips)
    return PackedBatch(
        text_ids=torch.randint(spec.vocab_size, (text,), generator=generator),
        text_positions=_positions(clip[0] for clip in clips),
        face=torch.randn(face, spec.face_dim, generator=generator),
        face_positions=_positions(clip[1] for clip in clips),
        face_masked=torch.rand(face, generator=generator) < 1 / 3,
        speech=torch.randn(speech, spec.speech_dim, generator=generator),
        speech_positions=_positions(clip[2] for clip in clips),
        speech_masked=torch.rand(speech, generator=generator) < 1 / 3,
        order=torch.tensor(order, dtype=torch.int64),
        cu_seqlens=torch.tensor([0, *seqlens]).cumsum(0).int(),
        seqlens=seqlens,
        samples=torch.arange(len(clips)),
        keys=tuple(f"clip{number}" for number in range(len(clips))),
        targets={},
    )


def _positions(lengths: object) -> Tensor:
    places = [place for length in lengths for place in range(length)]  # type: ignore[attr-defined]
    return torch.tensor(places, dtype=torch.int64)
