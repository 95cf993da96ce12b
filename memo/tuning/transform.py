"""Labelled clip -> Example: utterance, prompt, the visible modalities, and the class."""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.clip import FACE, SPEECH, Clip
from data_pipeline.packing import Example, Targets, TargetSpec
from memo.config import Limits, ModelSpec
from memo.heads.base import LABEL
from memo.model.inputs import cut_rows, cut_text
from memo.objectives.base import MODALITIES, Modality
from memo.objectives.masking import generator
from memo.tokenizer import Tokenizer
from memo.tuning.wording import Prompts, close_sentence

Pattern = tuple[Modality, ...]
"""Modalities in sight."""

SPECS: Mapping[str, TargetSpec] = {LABEL: TargetSpec(torch.int64, (2,))}


def patterns(modalities: Collection[Modality]) -> list[Pattern]:
    """All non-empty subsets, the complete one first: the seven cases of three modalities."""
    order = [name for name in MODALITIES if name in modalities]
    return [subset for size in range(len(order), 0, -1) for subset in combinations(order, size)]


class TuneTransform:
    """The stream's transform in tuning.

    The text part is always there, `[CLS] utterance prompt [SEP]`; without text in sight, or without
    a transcript, the utterance is empty, as in MEmoBERT's `CrossModalPromptMask`.

    Args:
        tokenizer: cuts the text.
        limits: longest inputs; the prompt comes on top.
        spec: the model's sizes.
        labels: int64 (n,), class of each sample, by its number in the stream.
        choices: the patterns of which one is drawn for each sample and epoch.
        prompts: what is asked; None asks nothing.
        language: of clips that do not say theirs.
        seed: of the draw.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        limits: Limits,
        spec: ModelSpec,
        labels: NDArray[np.int64],
        choices: Sequence[Pattern],
        prompts: Prompts | None,
        language: str,
        seed: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._limits = limits
        self._spec = spec
        self._labels = labels
        self._choices = choices
        self._prompts = prompts
        self._language = language
        self._seed = seed

    def __call__(self, clip: Clip, sample: int, epoch: int) -> Example:
        """The example of a clip.

        Raises:
            BadSampleError: rows of another size than the model's.
        """
        visible = self._visible(sample, epoch)
        language = self._language_of(clip)
        ids, position = self._text(clip.text if "text" in visible else None, language)
        face = clip.face if "face" in visible else None
        speech = clip.speech if "speech" in visible else None
        rows = cut_rows(FACE, face, self._limits.face, self._spec.face_dim)
        sound = cut_rows(SPEECH, speech, self._limits.speech, self._spec.speech_dim)
        number = self._prompts.languages.index(language) if self._prompts else 0
        return Example(
            sample=sample,
            key=clip.key,
            text_ids=ids,
            face=rows,
            face_masked=np.zeros(len(rows), dtype=bool),
            speech=sound,
            speech_masked=np.zeros(len(sound), dtype=bool),
            targets={
                LABEL: Targets(
                    positions=np.array([position]),
                    values=np.array([[self._labels[sample], number]], dtype=np.int64),
                )
            },
        )

    def _visible(self, sample: int, epoch: int) -> Pattern:
        if len(self._choices) == 1:
            return self._choices[0]
        rng = generator(self._seed, epoch, sample)
        return self._choices[int(rng.integers(len(self._choices)))]

    def _language_of(self, clip: Clip) -> str:
        """The clip's language if the task has wording in it, else the task's own."""
        known = self._prompts.languages if self._prompts else ()
        return clip.language if clip.language in known else self._language

    def _text(self, text: str | None, language: str) -> tuple[NDArray[np.int64], int]:
        """[CLS] utterance prompt [SEP], and the place of [MASK], or of [CLS] without a prompt."""
        tokenizer = self._tokenizer
        if self._prompts is None:
            pieces = cut_text(tokenizer, text, self._limits.text).ids
            return np.concatenate([[tokenizer.cls_id], pieces, [tokenizer.sep_id]]), 0
        prompt, mask = self._prompts.pieces(language, tokenizer.mask_id)
        pieces = cut_text(tokenizer, close_sentence(text or ""), self._limits.text).ids
        ids = np.concatenate([[tokenizer.cls_id], pieces, prompt, [tokenizer.sep_id]])
        return ids, 1 + len(pieces) + mask
