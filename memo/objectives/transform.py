"""Clip -> Example: tokenise, cut to the limits, hide one modality, collect the targets.

Everything random comes from (seed, epoch, sample), so that an example is the same on whatever rank
or thread it is made, and after a restart.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import EXPRESSION, FACE, SPEECH, Clip
from data_pipeline.packing import Example, TargetSpec
from memo.config import Limits, Masking
from memo.model.inputs import cut_rows, cut_text
from memo.objectives.base import MODALITIES, Modality, Objective
from memo.objectives.masking import (
    ALWAYS_MASK,
    TRAINING_ACTIONS,
    MaskedClip,
    Vocabulary,
    WordActions,
    choose_hidden,
    generator,
    leave_out,
    mask_spans,
    mask_words,
    seen,
)
from memo.tokenizer import Tokenizer


class PretrainTransform:
    """The stream's transform in pretraining; `hiding` and `mask` serve evaluation.

    Args:
        tokenizer: cuts the text.
        limits: longest inputs; what is longer is cut at the end, text at the end of a word.
        masking: how much is hidden.
        objectives: name -> objective, at least one; their sizes say how wide a row is.
        ratios: objective name -> its share when the hidden modality is drawn.
        seed: of the masks.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        limits: Limits,
        masking: Masking,
        objectives: Mapping[str, Objective],
        ratios: Mapping[str, float],
        seed: int,
    ) -> None:
        self.specs: dict[str, TargetSpec] = {
            name: objective.target_spec() for name, objective in objectives.items()
        }
        self._tokenizer = tokenizer
        self._vocabulary = Vocabulary(tokenizer.mask_id, tokenizer.normal_ids)
        self._limits = limits
        self._masking = masking
        self._objectives = objectives
        self._sizes = next(iter(objectives.values())).spec
        self._ratios = _by_modality(objectives, ratios)
        self._seed = seed

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that an objective hides."""
        return tuple(name for name in MODALITIES if name in self._ratios)

    def __call__(self, clip: Clip, sample: int, epoch: int) -> Example:
        """The example that training sees.

        The hidden modality is drawn by the ratios among those that have something to predict;
        then others are left out with `masking.drop_probability` (see `masking.leave_out`).

        Raises:
            BadSampleError: rows of another size than the model's.
        """
        rng = generator(self._seed, epoch, sample)
        whole = self._whole(clip, sample)
        hidden = choose_hidden(rng, self._ratios, whole.hideable)
        masked = self._hide(rng, whole, hidden, TRAINING_ACTIONS)
        return self.example(leave_out(rng, masked, self._masking.drop_probability))

    def mask(self, clip: Clip, sample: int, epoch: int, hidden: Modality) -> MaskedClip:
        """Hide a given modality; every chosen word becomes [MASK], and nothing is left out.

        If the clip has nothing to predict in that modality, `MaskedClip.hidden` is None.

        Raises:
            BadSampleError: rows of another size than the model's.
        """
        whole = self._whole(clip, sample)
        possible = hidden if hidden in whole.hideable else None
        return self._hide(generator(self._seed, epoch, sample), whole, possible, ALWAYS_MASK)

    def hiding(self, modality: Modality) -> Callable[[Clip, int, int], Example]:
        """A transform that hides one given modality of every clip, for validation."""
        return lambda clip, sample, epoch: self.example(self.mask(clip, sample, epoch, modality))

    def example(self, masked: MaskedClip) -> Example:
        """The masked clip with what each objective must predict in it."""
        found = {name: one.targets(masked) for name, one in self._objectives.items()}
        return Example(
            sample=masked.sample,
            key=masked.key,
            text_ids=masked.text_ids,
            face=masked.face,
            face_masked=masked.face_masked,
            speech=masked.speech,
            speech_masked=masked.speech_masked,
            targets={name: targets for name, targets in found.items() if targets is not None},
        )

    def _whole(self, clip: Clip, sample: int) -> MaskedClip:
        """The clip as arrays, cut to the limits, with nothing hidden."""
        ids, words = self._text(clip.text)
        face = cut_rows(FACE, clip.face, self._limits.face, self._sizes.face_dim)
        classes = self._sizes.face_classes
        expression = cut_rows(EXPRESSION, clip.expression, len(face), classes)
        if len(expression) < len(face):  # there are none
            expression = np.zeros((len(face), classes), dtype=np.float16)
        speech = cut_rows(SPEECH, clip.speech, self._limits.speech, self._sizes.speech_dim)
        return MaskedClip(
            sample=sample,
            key=clip.key,
            hidden=None,
            text_ids=ids,
            text_targets=ids,
            words=words,
            text_masked=np.zeros(len(ids), dtype=bool),
            face=face,
            expression=expression,
            face_masked=np.zeros(len(face), dtype=bool),
            speech=speech,
            speech_masked=np.zeros(len(speech), dtype=bool),
        )

    def _text(self, text: str | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """[CLS] pieces [SEP] and their words (L,); L = 0 where there is no word."""
        pieces = cut_text(self._tokenizer, text, self._limits.text)
        if len(pieces.ids) == 0:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        ends = [self._tokenizer.cls_id], [self._tokenizer.sep_id]
        ids = np.concatenate([ends[0], pieces.ids, ends[1]])
        return ids, np.concatenate([[-1], pieces.word, [-1]])

    def _hide(
        self,
        rng: np.random.Generator,
        whole: MaskedClip,
        hidden: Modality | None,
        actions: WordActions,
    ) -> MaskedClip:
        """Hide words or spans of one modality, which must have something to predict."""
        masking = self._masking
        match hidden:
            case "text":
                ids, chosen = mask_words(
                    rng,
                    whole.text_ids,
                    whole.words,
                    masking.word_probability,
                    self._vocabulary,
                    actions,
                )
                return whole.but(hidden=hidden, text_ids=ids, text_masked=chosen)
            case "face":
                rows = mask_spans(rng, seen(whole.face), masking.face_ratio, masking.face_span)
                return whole.but(hidden=hidden, face_masked=rows)
            case "speech":
                rows = mask_spans(
                    rng, seen(whole.speech), masking.speech_ratio, masking.speech_span
                )
                return whole.but(hidden=hidden, speech_masked=rows)
            case None:
                return whole


def _by_modality(
    objectives: Mapping[str, Objective], ratios: Mapping[str, float]
) -> dict[Modality, float]:
    """Sum the objectives' ratios over each modality that one of them hides."""
    sums: dict[Modality, float] = {}
    for name, objective in objectives.items():
        sums[objective.modality] = sums.get(objective.modality, 0) + ratios[name]
    return sums
