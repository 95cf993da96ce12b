"""Masking, against brute force, frequencies and properties."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from memo.objectives.base import MODALITIES, Modality
from memo.objectives.masking import (
    ALWAYS_MASK,
    TRAINING_ACTIONS,
    MaskedClip,
    Vocabulary,
    choose_hidden,
    generator,
    leave_out,
    mask_spans,
    mask_words,
    seen,
)

MASK = 4
VOCABULARY = Vocabulary(MASK, np.arange(100, 120))


def _text(lengths: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[CLS] pieces [SEP] of words of these lengths, numbered from 10, and the pieces' words."""
    words = np.repeat(np.arange(len(lengths)), lengths)
    ids = np.concatenate([[1], 10 + np.arange(len(words)), [2]])
    return ids, np.concatenate([[-1], words, [-1]])


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=12),
    st.floats(0.0, 1.0, exclude_min=True),
    st.integers(0, 2**32),
)
def test_words_are_masked_whole_and_at_least_one(
    lengths: list[int], probability: float, seed: int
) -> None:
    ids, words = _text(lengths)
    visible, masked = mask_words(
        generator(seed, 0, 0), ids, words, probability, VOCABULARY, TRAINING_ACTIONS
    )
    assert masked.any()
    assert not masked[[0, -1]].any()
    assert (visible[~masked] == ids[~masked]).all()
    for word in range(len(lengths)):
        of_word = words == word
        assert len(set(masked[of_word])) == 1
        if masked[of_word].all():
            shown = visible[of_word]
            unchanged = (shown == ids[of_word]).all()
            assert unchanged or (shown == MASK).all() or (shown >= 100).all()


def test_words_are_chosen_and_replaced_with_the_configured_frequencies() -> None:
    ids, words = _text([2] * 40_000)
    visible, masked = mask_words(generator(0, 0, 0), ids, words, 0.15, VOCABULARY, TRAINING_ACTIONS)
    assert masked.sum() / 80_000 == pytest.approx(0.15, abs=0.01)
    shown = visible[masked]
    assert (shown == MASK).mean() == pytest.approx(0.8, abs=0.02)
    assert (shown == ids[masked]).mean() == pytest.approx(0.1, abs=0.02)
    replaced = shown[(shown != MASK) & (shown != ids[masked])]
    assert set(replaced) == set(range(100, 120))
    assert (replaced[::2] != replaced[1::2]).mean() == pytest.approx(0.95, abs=0.02)  # each piece


def test_each_word_is_equally_likely_where_none_was_drawn() -> None:
    ids, words = _text([1, 1, 1, 1])
    counts = np.zeros(6)
    for sample in range(2000):
        rng = generator(0, 0, sample)
        _, masked = mask_words(rng, ids, words, 1e-9, VOCABULARY, ALWAYS_MASK)
        assert masked.sum() == 1
        counts += masked
    assert counts[1:-1] == pytest.approx([500] * 4, abs=80)


def test_evaluation_always_masks() -> None:
    ids, words = _text([1, 2] * 50)
    visible, masked = mask_words(generator(0, 0, 0), ids, words, 0.5, VOCABULARY, ALWAYS_MASK)
    assert ((visible == MASK) == masked).all()


@given(
    st.lists(st.booleans(), min_size=1, max_size=60).filter(any),
    st.floats(0.01, 1.0),
    st.integers(1, 7),
    st.integers(0, 2**32),
)
def test_spans_cover_whole_spans_of_candidates_only(
    seen: list[bool], ratio: float, span: int, seed: int
) -> None:
    candidates = np.array(seen)
    masked = mask_spans(generator(seed, 0, 0), candidates, ratio, span)
    total = candidates.sum()
    assert not masked[~candidates].any()
    assert masked.any()
    assert total == 1 or (candidates & ~masked).any()
    if total <= span:
        assert masked.sum() == 1
        return
    wanted = max(int(total * ratio // span), 1) * span
    assert masked.sum() == min(wanted, (total - 1) // span * span)
    runs = "".join("x" if row else " " for row in masked[candidates]).split()
    assert all(len(run) % span == 0 for run in runs)


def test_every_placement_of_spans_is_equally_likely() -> None:
    rows, span, spans, draws = 11, 3, 2, 6000
    placements = Counter[tuple[int, ...]]()
    for starts in combinations(range(rows - span + 1), spans):
        if starts[1] - starts[0] >= span:
            placements[tuple(start + step for start in starts for step in range(span))] = 0
    for sample in range(draws):
        masked = mask_spans(generator(7, 0, sample), np.ones(rows, dtype=bool), 0.6, span)
        hidden = tuple(int(row) for row in np.flatnonzero(masked))
        assert hidden in placements
        placements[hidden] += 1
    expected = draws / len(placements)
    assert max(abs(count - expected) for count in placements.values()) < 5 * expected**0.5


def test_hidden_modality_follows_the_ratios_among_what_can_be_hidden() -> None:
    ratios: dict[Modality, float] = {"text": 2, "face": 2, "speech": 1}
    draws = Counter(choose_hidden(generator(0, 0, n), ratios, MODALITIES) for n in range(5000))
    assert draws["text"] / 5000 == pytest.approx(0.4, abs=0.03)
    assert draws["speech"] / 5000 == pytest.approx(0.2, abs=0.03)
    draws = Counter(
        choose_hidden(generator(0, 0, n), ratios, ("text", "speech")) for n in range(3000)
    )
    assert set(draws) == {"text", "speech"}
    assert draws["text"] / 3000 == pytest.approx(2 / 3, abs=0.03)


def test_nothing_is_hidden_where_no_objective_wants_what_is_there() -> None:
    assert choose_hidden(generator(0, 0, 0), {"text": 1, "face": 0}, ("face", "speech")) is None


def _clip(hidden: Modality, *, shows_part: bool) -> MaskedClip:
    """Two words, two frames, two speech rows; of the hidden modality one or both are masked."""
    ids, words = _text([1, 1])
    rows = np.ones((2, 3), dtype=np.float32)
    masks = {name: np.zeros(2, dtype=bool) for name in MODALITIES}
    masks[hidden][: 1 if shows_part else 2] = True
    return MaskedClip(
        sample=0,
        key="clip",
        hidden=hidden,
        text_ids=ids,
        text_targets=ids,
        words=words,
        text_masked=np.concatenate([[False], masks["text"], [False]]),
        face=rows.astype(np.float16),
        expression=rows.astype(np.float16),
        face_masked=masks["face"],
        speech=rows.astype(np.float16),
        speech_masked=masks["speech"],
    )


@pytest.mark.parametrize("hidden", MODALITIES)
def test_others_are_left_out_independently_while_the_hidden_one_shows_a_part(
    hidden: Modality,
) -> None:
    clip = _clip(hidden, shows_part=True)
    kept = Counter(leave_out(generator(0, 0, n), clip, 0.3).present for n in range(4000))
    others = [name for name in MODALITIES if name != hidden]
    for first, second in ((True, True), (True, False), (False, True), (False, False)):
        chosen = {hidden} | {
            name for name, stays in zip(others, (first, second), strict=True) if stays
        }
        present = tuple(name for name in MODALITIES if name in chosen)
        expected = (0.7 if first else 0.3) * (0.7 if second else 0.3)
        assert kept[present] / 4000 == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("hidden", MODALITIES)
def test_something_visible_always_stays(hidden: Modality) -> None:
    clip = _clip(hidden, shows_part=False)
    kept = Counter(leave_out(generator(0, 0, n), clip, 0.999).present for n in range(200))
    assert all(len(present) == 2 and hidden in present for present in kept)
    assert len(kept) == 2  # either of the others is kept


def test_leaving_out_moves_the_positions_and_keeps_the_mask() -> None:
    clip = _clip("speech", shows_part=True)
    assert clip.positions("speech").tolist() == [4 + 2]
    alone = clip.keep({"speech"})
    assert alone.positions("speech").tolist() == [0]
    assert alone.present == ("speech",)
    assert clip.keep({"text", "speech"}).positions("speech").tolist() == [4]
    assert _clip("face", shows_part=False).positions("face").tolist() == [4, 5]
    assert _clip("text", shows_part=True).positions("text").tolist() == [1]


def test_generator_depends_on_each_of_its_numbers() -> None:
    draws = [generator(*numbers).random() for numbers in ((1, 2, 3), (2, 1, 3), (1, 3, 2))]
    assert len(set(draws)) == 3
    assert generator(1, 2, 3).random() == draws[0]


@given(rows=arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 4)),
                   elements=st.sampled_from([0.0, -0.0, 1.0, np.nan])))  # fmt: skip
def test_a_row_was_seen_if_any_of_its_numbers_is_not_zero(rows: NDArray[np.float32]) -> None:
    expected = [any(number != 0 for number in row) for row in rows.tolist()]
    assert seen(rows).tolist() == expected
