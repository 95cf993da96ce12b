"""No micro-batch that the settings allow has more tokens, longer sequences or more to predict."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest

from data_pipeline.clip import Clip
from data_pipeline.packing import PackedBatch, pack
from memo.config import ModelSpec, PretrainConfig
from memo.objectives.pretraining_model import PretrainingModel
from memo.objectives.transform import PretrainTransform
from memo.tokenizer import Tokenizer
from memo.training.worst_batch import KINDS, worst_batch

CONFIG = PretrainConfig.model_validate({"limits": {"text": 12, "face": 10, "speech": 20}})
BUDGET = 5000


@pytest.fixture(scope="module")
def transform(model: PretrainingModel, tokenizer: Tokenizer) -> PretrainTransform:
    ratios = {name: one.ratio for name, one in CONFIG.objectives.items()}
    return PretrainTransform(tokenizer, CONFIG.limits, CONFIG.masking, model.by_name, ratios, 0)


def targets(batch: PackedBatch) -> dict[str, int]:
    return {name: batch.count(name) for name in batch.targets}


class Form(NamedTuple):
    """What clips are like: words, letters of a word, rows of face and speech."""

    words: int
    letters: int
    face: int
    speech: int


LONG = Form(20, 1, 15, 25)
"""Longer than the limits."""


def clips(number: int, spec: ModelSpec, kind: Sequence[str], form: Form = LONG) -> list[Clip]:
    """Real ones."""
    rng = np.random.default_rng(number)
    face = rng.normal(size=(form.face, spec.face_dim)).astype(np.float16)
    expression = np.full((form.face, spec.face_classes), 0.5, dtype=np.float16)
    speech = rng.normal(size=(form.speech, spec.speech_dim)).astype(np.float16)
    letters = list("abcdef")
    return [
        Clip(
            key=str(one),
            text=" ".join("".join(row) for row in rng.choice(letters, form[:2]))
            if "text" in kind
            else None,
            face=face if "face" in kind else None,
            expression=expression if "face" in kind else None,
            speech=speech if "speech" in kind else None,
        )
        for one in range(number)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [1, 2, 3, 44, 5000])
def test_the_budget_is_filled_to_the_token(
    kind: str, tokens: int, transform: PretrainTransform, spec: ModelSpec
) -> None:
    batch = worst_batch(CONFIG, transform, spec, kind, tokens)
    assert batch.tokens == tokens
    assert sorted(batch.order.tolist()) == list(range(tokens))


SHORT = [Form(1, 1, 1, 1), Form(1, 40, 2, 4), Form(2, 1, 4, 5)]
"""Answers of a word, a sentence without spaces; a row or few."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [LONG, *SHORT])
def test_no_drawn_micro_batch_has_more(
    kind: str, form: Form, transform: PretrainTransform, spec: ModelSpec
) -> None:
    has = KINDS[kind]
    (one,) = clips(1, spec, has, form)
    number = BUDGET // transform(one, 0, 0).tokens
    made = enumerate(clips(number, spec, has, form))
    drawn = [transform(one, sample, 0) for sample, one in made]
    real = pack(drawn, transform.specs, spec.face_dim, spec.speech_dim)
    worst = worst_batch(CONFIG, transform, spec, kind, BUDGET)
    assert real.tokens <= worst.tokens
    assert sum(n * n for n in real.seqlens) <= sum(n * n for n in worst.seqlens)
    widths = {"wwmlm": spec.vocab_size, "span_mvfr": 3, "span_mvfc_kl": 2, "span_mafr": 4}

    def outputs(batch: PackedBatch) -> int:
        return sum(count * (8 + widths[name]) for name, count in targets(batch).items())

    assert 0 < outputs(real) <= outputs(worst)
