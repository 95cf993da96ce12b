"""Conditional masking: which modality of a clip is hidden, and which words or rows of it.

Pure functions of an explicit generator. They follow MEmoBERT (Zhao et al., ICASSP 2022, section
2.3) and its public code, but for these departures:

- **At least one word is hidden.** The original's guard against a sample without a target never
  fires (it compares a list with -1). Where no word is drawn, one is taken at random.
- **Spans do not overlap**, and every placement of them is equally likely, so the hidden share is
  the configured one. The original draws starts freely: spans overlap and hide less, and a track's
  last two rows are seldom or never hidden.
- **At least one whole span.** Where `int(T * ratio // span)` is 0 the original hides a single row,
  which its two neighbours give away; only tracks of at most one span's length do so here.
- **Something of a track stays visible** where it has more than one row.
- **A row of zeros is neither hidden nor a target.** It says that no face was seen; the original
  trains on the feature of the missing face. Spans are laid over the other rows, so a span may
  reach across a gap.
- **The hidden modality is drawn for each sample**, not for each batch, so that one step trains all
  objectives.
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memo.objectives.base import MODALITIES, Modality


class WordActions(NamedTuple):
    """What becomes of a chosen word: probabilities; the rest stays as it is.

    Attributes:
        mask: every piece becomes [MASK].
        random: every piece becomes a random one.
    """

    mask: float
    random: float


TRAINING_ACTIONS = WordActions(mask=0.8, random=0.1)
"""BERT's, decided for each word as in MEmoBERT's code."""

ALWAYS_MASK = WordActions(mask=1.0, random=0.0)
"""For evaluation: a word left in sight would be counted as predicted."""


@dataclass(frozen=True)
class Vocabulary:
    """What masking needs to know of a tokenizer.

    Attributes:
        mask_id: number of [MASK].
        normal_ids: int64, the pieces that may replace another.
    """

    mask_id: int
    normal_ids: NDArray[np.int64]


@dataclass(frozen=True)
class MaskedClip:
    """A clip cut to the limits, in which words or rows of one modality are hidden.

    Attributes:
        sample: number of the sample in its split.
        key: its name in the tar.
        hidden: the modality that must be predicted; None if the clip has nothing to predict.
        text_ids: int64 (L,), [CLS] pieces [SEP] as the model sees them; L = 0 without text.
        text_targets: int64 (L,), the same before masking.
        words: int64 (L,), the whole word that each piece belongs to; -1 at [CLS] and [SEP].
        text_masked: bool (L,), pieces to predict.
        face: float16 (F, D_face), as stored; F = 0 without a face track.
        expression: float16 (F, K), class posteriors as stored; zeros where unknown.
        face_masked: bool (F,), rows hidden and to predict.
        speech: float16 (A, D_speech), as stored; A = 0 without speech.
        speech_masked: bool (A,).
    """

    sample: int
    key: str
    hidden: Modality | None
    text_ids: NDArray[np.int64]
    text_targets: NDArray[np.int64]
    words: NDArray[np.int64]
    text_masked: NDArray[np.bool_]
    face: NDArray[np.float16]
    expression: NDArray[np.float16]
    face_masked: NDArray[np.bool_]
    speech: NDArray[np.float16]
    speech_masked: NDArray[np.bool_]

    @property
    def present(self) -> tuple[Modality, ...]:
        """The modalities that are in the sequence."""
        lengths = (len(self.text_ids), len(self.face), len(self.speech))
        return tuple(name for name, length in zip(MODALITIES, lengths, strict=True) if length)

    @property
    def hideable(self) -> tuple[Modality, ...]:
        """The modalities that have something to predict: a word, a row that is not zero."""
        found = (len(self.words) > 0, _any_seen(self.face), _any_seen(self.speech))
        return tuple(name for name, there in zip(MODALITIES, found, strict=True) if there)

    @property
    def shows_part(self) -> bool:
        """Whether a word or a row of the hidden modality is still visible."""
        match self.hidden:
            case "text":
                return bool((~self.text_masked[1:-1]).any())
            case "face":
                return bool((seen(self.face) & ~self.face_masked).any())
            case "speech":
                return bool((seen(self.speech) & ~self.speech_masked).any())
            case None:
                return False

    def positions(self, modality: Modality) -> NDArray[np.int64]:
        """Where a modality's hidden pieces or rows stand in the sequence, ascending.

        Returns:
            int64 (M,), indices into `[CLS] text [SEP] face speech`.
        """
        match modality:
            case "text":
                return _numbers(self.text_masked)
            case "face":
                return len(self.text_ids) + _numbers(self.face_masked)
            case "speech":
                start = len(self.text_ids) + len(self.face)
                return start + _numbers(self.speech_masked)

    def keep(self, modalities: Collection[Modality]) -> "MaskedClip":
        """The same clip without the modalities that are not named."""
        left_out = [name for name in self.present if name not in modalities]
        if not left_out:
            return self
        emptied: dict[str, Any] = {
            field: getattr(self, field)[:0] for name in left_out for field in _FIELDS[name]
        }
        return self.but(**emptied)

    def but(self, **changes: Any) -> "MaskedClip":  # noqa: ANN401
        """The same clip with other values of some fields; `dataclasses.replace` takes longer."""
        return MaskedClip(**{**vars(self), **changes})


_FIELDS: Mapping[Modality, tuple[str, ...]] = {
    "text": ("text_ids", "text_targets", "words", "text_masked"),
    "face": ("face", "expression", "face_masked"),
    "speech": ("speech", "speech_masked"),
}


def generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The generator of one sample in one epoch: the same on every rank, thread and restart."""
    key = [seed, epoch, sample]
    # Of words of 32 bits, which they nearly always are, NumPy makes the same seeds in less time.
    words = key if max(key) >> 32 else np.array(key, dtype=np.uint32)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def seen(rows: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Which rows (T, D) are not all zero, i.e. were observed: bool (T,)."""
    observed: NDArray[np.bool_] = rows[:, 0] != 0
    if not observed.all():  # nearly every row is told by its first number
        doubtful = _numbers(~observed)
        observed[doubtful] = rows[doubtful].any(axis=-1)
    return observed


def _any_seen(rows: NDArray[np.floating[Any]]) -> bool:
    """Whether a row (T, D) is not all zero; most often the first is not."""
    return len(rows) > 0 and (bool(rows[0, 0]) or bool(seen(rows).any()))


def _numbers(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where (T,) is true; `np.flatnonzero` takes four times as long."""
    return chosen.nonzero()[0]


def choose_hidden(
    rng: np.random.Generator, ratios: Mapping[Modality, float], hideable: Collection[Modality]
) -> Modality | None:
    """Draw the one modality that a sample hides.

    Args:
        rng: source of randomness; always drawn from once.
        ratios: relative frequency of each modality, the sum of its objectives' ratios.
        hideable: modalities of the sample that have something to predict.

    Returns:
        A hideable modality, or None if none of them has a positive ratio.
    """
    draw = rng.random()
    names = [name for name in MODALITIES if name in hideable and ratios.get(name, 0) > 0]
    if not names:
        return None
    bounds = list(accumulate(ratios[name] for name in names))
    return names[bisect_right(bounds, draw * bounds[-1])]


def mask_words(
    rng: np.random.Generator,
    ids: NDArray[np.int64],
    words: NDArray[np.int64],
    probability: float,
    vocabulary: Vocabulary,
    actions: WordActions,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Whole-word masking: each word is chosen independently, at least one is.

    Args:
        rng: source of randomness.
        ids: int64 (L,), pieces.
        words: int64 (L,), word of each piece, 0 ... W-1, at least one; -1 for pieces that belong to
            none.
        probability: of each word.
        vocabulary: the mask piece and what may replace a piece.
        actions: what becomes of a chosen word.

    Returns:
        The pieces as the model sees them (L,), and which are to be predicted, bool (L,).
    """
    count = int(words.max()) + 1
    chosen = rng.random(count) < probability  # (W,)
    if not chosen.any():
        chosen[rng.integers(count)] = True
    action = rng.random(count)  # (W,)
    becomes_mask = chosen & (action < actions.mask)
    becomes_random = chosen & ~becomes_mask & (action < actions.mask + actions.random)
    of_word = words >= 0
    visible = np.where(of_word & becomes_mask[words], vocabulary.mask_id, ids)
    random = vocabulary.normal_ids[rng.integers(0, len(vocabulary.normal_ids), len(ids))]
    visible = np.where(of_word & becomes_random[words], random, visible)
    return visible, of_word & chosen[words]


def mask_spans(
    rng: np.random.Generator, candidates: NDArray[np.bool_], ratio: float, span: int
) -> NDArray[np.bool_]:
    """Choose spans of consecutive rows, `int(T * ratio // span)` of them, at least one.

    The T candidate rows are treated as one track, whatever lies between them. Spans do not overlap
    and every placement is equally likely. One candidate at least is left over where T > 1; a track
    no longer than one span hides a single row.

    Args:
        rng: source of randomness.
        candidates: bool (F,), rows that may be hidden; T of them, at least one.
        ratio: share of the candidates to hide.
        span: rows of one span.

    Returns:
        bool (F,), the rows to hide.
    """
    rows = _numbers(candidates)
    total = len(rows)
    if total <= span:
        hidden = rng.integers(total, size=1)  # (1,)
    else:
        count = min(max(int(total * ratio // span), 1), (total - 1) // span)
        # A placement of spans is a choice of `count` among the slots left when each span is shrunk
        # to one row: choosing slots uniformly chooses placements uniformly.
        slots = rng.choice(total - count * (span - 1), count, replace=False)
        slots.sort()
        starts = slots + np.arange(count) * (span - 1)  # (spans,)
        hidden = (starts[:, None] + np.arange(span)).ravel()
    masked = np.zeros(len(candidates), dtype=bool)
    masked[rows[hidden]] = True
    return masked


def leave_out(rng: np.random.Generator, masked: MaskedClip, probability: float) -> MaskedClip:
    """Leave each modality that is not hidden out with a probability.

    If that would leave nothing to predict from (no other modality, and no visible word or row of
    the hidden one), one of the others, drawn at random, stays. Text with a word in sight and
    nothing else is plain masked language modelling. A clip that hides nothing is left as it is.

    Args:
        rng: source of randomness.
        masked: a clip with a hidden modality.
        probability: for each of the other modalities.
    """
    if masked.hidden is None:
        return masked
    others = [name for name in masked.present if name != masked.hidden]
    kept = [
        name
        for name, draw in zip(others, rng.random(len(others)), strict=True)
        if draw >= probability
    ]
    if not kept and others and not masked.shows_part:
        kept = [others[rng.integers(len(others))]]
    return masked.keep({masked.hidden, *kept})
