"""A small vocabulary, small sizes, and a backbone of these sizes."""

import pytest
import torch

from memo.config import ModelSpec
from memo.model.memobert import MemoBert
from memo.tokenizer.base import SpecialIds, Tokenizer

# Tensors this small gain nothing from threads, and lose much where other tests run beside.
torch.set_num_threads(1)


class LetterTokenizer(Tokenizer):
    """Every letter is a piece: a is 5, b is 6, ..."""

    def __init__(self) -> None:
        special = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
        super().__init__(vocab_size=31, special=special, normal_ids=range(5, 31), files={})

    def _cut(self, word: str) -> list[int]:
        return [5 + ord(letter) - ord("a") for letter in word]

    def _join(self, ids: list[int]) -> str:
        return "".join(chr(ord("a") + number - 5) for number in ids)


@pytest.fixture(scope="session")
def letters() -> Tokenizer:
    return LetterTokenizer()


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    return ModelSpec(
        hidden=16,
        layers=1,
        heads=2,
        ffn=32,
        vocab_size=31,
        face_dim=6,
        face_classes=4,
        speech_dim=5,
        init_std=0.5,
    )


@pytest.fixture
def backbone(spec: ModelSpec) -> MemoBert:
    """Random weights and random feature statistics."""
    torch.manual_seed(0)
    model = MemoBert(spec)
    for embedder, dim in ((model.face, spec.face_dim), (model.speech, spec.speech_dim)):
        embedder.set_statistics(torch.randn(dim), 0.5 + torch.rand(dim))
    return model.eval()
