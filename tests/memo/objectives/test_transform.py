"""What becomes of a clip on its way to the model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data_pipeline.clip import BadSampleError, Clip
from data_pipeline.packing import Example
from memo.config import Limits, Masking, ModelSpec, ObjectiveSettings
from memo.model.memobert import MemoBert
from memo.objectives import MODALITIES, build_objectives
from memo.objectives.pretraining_model import PretrainingModel
from memo.objectives.transform import PretrainTransform
from memo.tokenizer import Tokenizer

RATIOS = {"wwmlm": 2.0, "span_mvfr": 1.0, "span_mvfc_kl": 1.0, "span_mafr": 1.0}


@pytest.fixture
def clip(spec: ModelSpec) -> Clip:
    """Three words, 20 frames and 30 speech rows."""
    rng = np.random.default_rng(0)
    return Clip(
        key="clip",
        text="set blue now",
        face=rng.normal(size=(20, spec.face_dim)).astype(np.float16),
        expression=rng.dirichlet(np.ones(spec.face_classes), 20).astype(np.float16),
        speech=rng.normal(size=(30, spec.speech_dim)).astype(np.float16),
    )


def _transform(
    letters: Tokenizer,
    spec: ModelSpec,
    ratios: dict[str, float] = RATIOS,
    **masking: float,
) -> PretrainTransform:
    settings = {name: ObjectiveSettings(ratio=ratio) for name, ratio in ratios.items()}
    model = PretrainingModel(MemoBert(spec), build_objectives(settings, spec))
    limits = Limits(text=8, face=15, speech=64)
    fields: dict[str, Any] = masking
    return PretrainTransform(letters, limits, Masking(**fields), model.by_name, ratios, seed=5)


def _equal(first: Example, second: Example) -> bool:
    return (
        np.array_equal(first.text_ids, second.text_ids)
        and np.array_equal(first.face_masked, second.face_masked)
        and np.array_equal(first.speech_masked, second.speech_masked)
    )


def test_text_is_cut_at_the_end_of_a_word(letters: Tokenizer, spec: ModelSpec, clip: Clip) -> None:
    transform = _transform(letters, spec)
    # The limit of 8 pieces falls inside "now".
    shown = transform.mask(clip, 0, 0, "face")
    assert letters.decode(shown.text_ids) == "setblue"
    assert shown.text_ids[[0, -1]].tolist() == [letters.cls_id, letters.sep_id]
    assert shown.words.tolist() == [-1, 0, 0, 0, 1, 1, 1, 1, -1]
    exact = transform.mask(replace(clip, text="set blues"), 0, 0, "face")
    assert letters.decode(exact.text_ids) == "setblues"
    long = transform.mask(replace(clip, text="extraordinary day"), 0, 0, "face")
    assert letters.decode(long.text_ids) == "extraord"


def test_exactly_one_modality_is_hidden_and_targets_are_what_was_there(
    letters: Tokenizer, spec: ModelSpec, clip: Clip
) -> None:
    assert clip.face is not None
    transform = _transform(letters, spec)
    whole = transform.mask(clip, 0, 0, "text").text_targets
    feeds = {"text": {"wwmlm"}, "face": {"span_mvfr", "span_mvfc_kl"}, "speech": {"span_mafr"}}
    found = set()
    for sample in range(40):
        example = transform(clip, sample, 0)
        (hidden,) = (name for name in MODALITIES if feeds[name] == set(example.targets))
        found.add(hidden)
        assert example.face_masked.any() == (hidden == "face")
        assert example.speech_masked.any() == (hidden == "speech")
        assert hidden == "text" or np.array_equal(example.text_ids, whole)
        if hidden == "text":
            targets = example.targets["wwmlm"]
            assert np.array_equal(targets.values, whole[targets.positions])
        if hidden == "face":
            targets = example.targets["span_mvfr"]
            rows = clip.face[:15].astype(np.float32)
            assert np.array_equal(targets.values, rows[targets.positions - len(whole)])
    assert found == set(MODALITIES)


def test_masks_depend_on_epoch_and_sample_and_on_nothing_else(
    letters: Tokenizer, spec: ModelSpec, clip: Clip
) -> None:
    transform = _transform(letters, spec, drop_probability=0.3)
    order = [(sample, epoch) for sample in range(5) for epoch in range(4)]
    first = {place: transform(clip, *place) for place in order}
    again = {place: transform(clip, *place) for place in reversed(order)}
    assert all(_equal(first[place], again[place]) for place in order)
    assert sum(_equal(first[0, 0], first[place]) for place in order) < 5


@pytest.mark.parametrize("missing", MODALITIES)
def test_a_missing_modality_is_never_hidden(
    missing: str, letters: Tokenizer, spec: ModelSpec, clip: Clip
) -> None:
    changes: dict[str, Any] = {missing: None}
    lacking = replace(clip, **changes)
    transform = _transform(letters, spec)
    for sample in range(20):
        example = transform(lacking, sample, 0)
        assert example.targets
        sizes = {
            "text": len(example.text_ids),
            "face": len(example.face),
            "speech": len(example.speech),
        }
        assert [name for name, size in sizes.items() if size == 0] == [missing]
    assert example.face.shape[1] == spec.face_dim
    assert example.speech.shape[1] == spec.speech_dim


def test_frames_without_a_face_are_neither_hidden_nor_targets(
    letters: Tokenizer, spec: ModelSpec, clip: Clip
) -> None:
    assert clip.face is not None
    face = clip.face.copy()
    face[::2] = 0
    transform = _transform(letters, spec, face_ratio=0.9)
    masked = transform.mask(replace(clip, face=face), 0, 0, "face")
    assert masked.face_masked.sum() == 6  # two spans over the seven frames that were seen
    assert not masked.face_masked[::2].any()
    blind = transform.mask(replace(clip, face=np.zeros_like(face)), 0, 0, "face")
    assert blind.hidden is None


def test_a_clip_without_posteriors_still_gives_features(
    letters: Tokenizer, spec: ModelSpec, clip: Clip
) -> None:
    transform = _transform(letters, spec)
    example = transform.example(transform.mask(replace(clip, expression=None), 0, 0, "face"))
    assert set(example.targets) == {"span_mvfr"}


def test_rows_of_another_size_are_a_bad_sample(
    letters: Tokenizer, spec: ModelSpec, clip: Clip
) -> None:
    assert clip.speech is not None
    with pytest.raises(BadSampleError, match=r"speech.npy: has rows of 4, not of 5"):
        _transform(letters, spec)(replace(clip, speech=clip.speech[:, :4]), 0, 0)


def test_hidden_modalities_follow_the_sum_of_their_objectives_ratios(
    letters: Tokenizer, spec: ModelSpec, clip: Clip
) -> None:
    transform = _transform(letters, spec)
    examples = [transform(clip, sample, 0) for sample in range(2000)]
    shares = [
        sum(name in example.targets for example in examples) / 2000
        for name in ("wwmlm", "span_mvfr", "span_mafr")
    ]
    assert shares == pytest.approx([2 / 5, 2 / 5, 1 / 5], abs=0.04)


def test_an_objective_without_a_ratio_never_decides_what_is_hidden(
    letters: Tokenizer, spec: ModelSpec, clip: Clip
) -> None:
    transform = _transform(letters, spec, {"wwmlm": 1.0, "span_mafr": 0.0})
    assert all(set(transform(clip, n, 0).targets) == {"wwmlm"} for n in range(20))
    text = transform(replace(clip, text=None), 0, 0)
    assert not text.targets


def test_modalities_are_left_out_in_training_alone(
    letters: Tokenizer, spec: ModelSpec, clip: Clip
) -> None:
    transform = _transform(letters, spec, drop_probability=0.5)
    kept = [len(transform(clip, n, 0).speech) > 0 for n in range(400)]
    # Speech is hidden in 1/5 of the samples and left out of half of the others.
    assert np.mean(kept) == pytest.approx(0.6, abs=0.08)
    assert all(len(transform.hiding("text")(clip, n, 0).speech) for n in range(20))


def test_validation_hides_the_same_words_whatever_the_training_draws(
    letters: Tokenizer, spec: ModelSpec, clip: Clip
) -> None:
    first = _transform(letters, spec, drop_probability=0.9).hiding("text")(clip, 3, 0)
    second = _transform(letters, spec, {"wwmlm": 1.0, "span_mafr": 7.0}).hiding("text")(clip, 3, 0)
    assert _equal(first, second)
    masked = first.targets["wwmlm"].positions
    assert (first.text_ids[masked] == letters.mask_id).all()
