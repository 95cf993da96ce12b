"""Micro-batches that take as much memory as any that a run may meet.

They are full to the token budget with the longest clips that the limits allow: clips with all
modalities, whose attention is the largest, and clips that have one modality alone, for a missing
modality is a missing member and one embedder or head may cost more than the others. As much is
masked as will ever be: the whole text, for it may be one word (a short answer, or a language
without spaces), and all rows of a clip that has nothing else, for it may be a single row. What lies
between has shorter sequences, or less to predict.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_pipeline.packing import Example, PackedBatch, pack
from memo.config import Limits, Masking, ModelSpec, PretrainConfig
from memo.objectives.base import MODALITIES, Modality
from memo.objectives.masking import MaskedClip, generator, mask_spans
from memo.objectives.transform import PretrainTransform
from memo.training.loop import head_widths

FULL = "all modalities"
KINDS: Mapping[str, tuple[Modality, ...]] = {
    FULL: MODALITIES,
    **{one: (one,) for one in MODALITIES},
}
"""Kind of a worst micro-batch -> what its clips have."""


def worst_batch(
    config: PretrainConfig, transform: PretrainTransform, spec: ModelSpec, kind: str, tokens: int
) -> PackedBatch:
    """The most costly micro-batch of a kind.

    Args:
        config: of the run: limits and masking.
        transform: gives the objectives' targets.
        spec: the model's sizes.
        kind: of `KINDS`.
        tokens: exactly so many.
    """
    whole = _within(config.limits, KINDS[kind])
    count, rest = divmod(tokens, sum(whole))
    examples = [_costliest(config.masking, transform, spec, whole)] * count
    if rest:
        examples.append(_costliest(config.masking, transform, spec, _cut(whole, rest)))
    return pack(examples, transform.specs, spec.face_dim, spec.speech_dim)


def _within(limits: Limits, modalities: Sequence[Modality]) -> tuple[int, int, int]:
    """Pieces, face rows and speech rows of the longest clip that has these modalities."""
    longest = {"text": limits.text + 2, "face": limits.face, "speech": limits.speech}
    text, face, speech = (longest[one] if one in modalities else 0 for one in MODALITIES)
    return text, face, speech


def _cut(whole: tuple[int, int, int], tokens: int) -> tuple[int, int, int]:
    """The first tokens of a clip."""
    text = min(whole[0], tokens)
    face = min(whole[1], tokens - text)
    return text, face, tokens - text - face


def _costliest(
    masking: Masking, transform: PretrainTransform, spec: ModelSpec, lengths: tuple[int, int, int]
) -> Example:
    """A clip of these lengths that hides the modality whose heads have the most to compute."""
    widths = head_widths(transform.specs, spec)

    def outputs(example: Example) -> int:
        targets = example.targets.items()
        return sum(len(one.positions) * (spec.hidden + widths[name]) for name, one in targets)

    hidden: Iterable[Modality | None] = (*transform.modalities, None)
    return max(
        (transform.example(_clip(masking, spec, lengths, one)) for one in hidden), key=outputs
    )


def _clip(
    masking: Masking, spec: ModelSpec, lengths: tuple[int, int, int], hidden: Modality | None
) -> MaskedClip:
    """A clip without content that hides one modality; None, or an absent one, hides nothing."""
    text, face, speech = lengths
    words = np.full(text, -1)
    words[1:-1] = 0  # all pieces are one
    clip = MaskedClip(
        sample=0,
        key="rehearsal",
        hidden=None,
        text_ids=np.zeros(text, dtype=np.int64),
        text_targets=np.zeros(text, dtype=np.int64),
        words=words,
        text_masked=np.zeros(text, dtype=bool),
        face=np.ones((face, spec.face_dim), dtype=np.float32),
        expression=np.ones((face, spec.face_classes), dtype=np.float32),
        face_masked=np.zeros(face, dtype=bool),
        speech=np.ones((speech, spec.speech_dim), dtype=np.float32),
        speech_masked=np.zeros(speech, dtype=bool),
    )
    if hidden not in clip.hideable:
        return clip
    if hidden == "text":
        return clip.but(hidden=hidden, text_masked=words >= 0)
    alone, rng = clip.present == (hidden,), generator(0, 0, 0)
    if hidden == "face":
        rows = np.ones(face, dtype=bool)
        spans = mask_spans(rng, rows, masking.face_ratio, masking.face_span)
        return clip.but(hidden=hidden, face_masked=rows if alone else spans)
    rows = np.ones(speech, dtype=bool)
    spans = mask_spans(rng, rows, masking.speech_ratio, masking.speech_span)
    return clip.but(hidden=hidden, speech_masked=rows if alone else spans)
