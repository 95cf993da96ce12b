import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import UserError
from memo.evaluation.folds import Fold, FoldSettings, Groups, NamedFold, check_fold, make_folds


def corpus(speakers: int, clips_each: int = 3, sessions: int = 4) -> Groups:
    """Two clips or more a speaker; each speaker has one session."""
    names = [f"s{number:02}" for number in range(speakers) for _ in range(clips_each)]
    return Groups(
        speaker=names,
        session=[f"t{int(name[1:]) % sessions}" for name in names],
        split=["train"] * len(names),
        text=[f"said by {at}" for at in range(len(names))],
    )


def of(part: np.ndarray, names: list[str]) -> set[str]:
    return {names[sample] for sample in part.tolist()}


@given(
    speakers=st.integers(4, 30),
    count=st.integers(2, 6) | st.none(),
    valid_groups=st.integers(1, 3),
    clips=st.integers(1, 4),
)
def test_every_clip_is_tested_once_and_no_speaker_is_on_two_sides(
    speakers: int, count: int | None, valid_groups: int, clips: int
) -> None:
    groups = corpus(speakers, clips)
    settings = FoldSettings(by="speaker", count=count, valid_groups=valid_groups)
    groups_left = speakers - -(-speakers // (count or speakers))
    if speakers < max(count or 0, valid_groups + 2) or groups_left <= valid_groups:
        with pytest.raises(UserError):
            make_folds(settings, groups)
        return
    folds = make_folds(settings, groups)
    assert len(folds) == (count or speakers)
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested.tolist()) == list(range(speakers * clips))
    names = list(groups.speaker)
    for fold in folds:
        parts = [of(part, names) for part in (fold.train, fold.valid, fold.test)]
        assert len(parts[1]) == valid_groups
        assert sum(map(len, parts)) == speakers == len(set.union(*parts))


def test_folds_are_the_same_every_time_and_validation_differs_between_folds() -> None:
    settings = FoldSettings(by="speaker", count=5, valid_groups=2)
    once, again = (make_folds(settings, corpus(20)) for _ in range(2))
    for one, other in zip(once, again, strict=True):
        assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))
    assert len({tuple(fold.valid.tolist()) for fold in once}) > 1


def test_folds_by_session_keep_sessions_together() -> None:
    groups = corpus(8)
    for fold in make_folds(FoldSettings(by="session", count=2), groups):
        parts = [of(part, list(groups.session)) for part in (fold.train, fold.valid, fold.test)]
        assert sum(map(len, parts)) == 4


def test_sessions_that_share_a_speaker_are_refused_unless_the_reason_is_given() -> None:
    groups = Groups(["a", "b", "c", "a"], ["1", "2", "3", "4"], ["train"] * 4, [""] * 4)
    with pytest.raises(UserError, match=r"leaks: speaker 'a' is in .*shared_speakers"):
        make_folds(FoldSettings(by="session"), groups)
    assert make_folds(FoldSettings(by="session", shared_speakers="as published"), groups)


def test_a_validation_part_that_is_the_test_part_is_refused() -> None:
    same = NamedFold(valid=("s01",), test=("s01",))
    with pytest.raises(UserError, match="leaks: its valid and test parts are the same"):
        make_folds(FoldSettings(by="speaker", named=(same,)), corpus(4))
    more = NamedFold(valid=("s01", "s02"), test=("s01",))
    with pytest.raises(UserError, match="3 clips are in valid and in test"):
        make_folds(FoldSettings(by="speaker", named=(more,)), corpus(4))


def test_parts_that_are_empty_or_overlap_are_refused() -> None:
    clips = np.arange(3)
    with pytest.raises(UserError, match="its train part is empty"):
        check_fold(Fold(clips[:0], clips[:1], clips[1:]), corpus(3, 1), "", 0)
    with pytest.raises(UserError, match="fold 7 leaks: 1 clips are in train and in test"):
        check_fold(Fold(clips[:2], clips[2:], clips[1:2]), corpus(3, 1), "", 7)


def test_named_folds_take_the_named_groups() -> None:
    settings = FoldSettings(by="speaker", named=(NamedFold(valid=("s00",), test=("s02",)),))
    (fold,) = make_folds(settings, corpus(4))
    assert fold.valid.tolist() == [0, 1, 2]
    assert fold.test.tolist() == [6, 7, 8]
    assert fold.train.tolist() == [3, 4, 5, 9, 10, 11]
    wrong = FoldSettings(by="speaker", named=(NamedFold(valid=("s00",), test=("x",)),))
    with pytest.raises(UserError, match="no speaker 'x'; known are: s00"):
        make_folds(wrong, corpus(4))


def test_clips_without_a_group_are_refused() -> None:
    groups = Groups(["a", ""], ["1", "2"], ["train"] * 2, [""] * 2)
    with pytest.raises(UserError, match="have no speaker"):
        make_folds(FoldSettings(by="speaker"), groups)


def test_official_splits_are_taken_as_they_are() -> None:
    split = ["train", "valid", "test", "train"]
    (fold,) = make_folds(FoldSettings(by="official"), Groups([""] * 4, [""] * 4, split, [""] * 4))
    assert [part.tolist() for part in (fold.train, fold.valid, fold.test)] == [[0, 3], [1], [2]]
    with pytest.raises(UserError, match="has the splits train"):
        make_folds(FoldSettings(by="official"), corpus(4))


@pytest.mark.parametrize("speakers", [True, False])
def test_without_a_validation_split_a_share_of_train_validates(speakers: bool) -> None:
    names = [f"s{number // 5}" if speakers else "" for number in range(100)] + [""] * 10
    split = ["train"] * 100 + ["test"] * 10
    settings = FoldSettings(by="official", valid_share=0.2)
    (fold,) = make_folds(settings, Groups(names, [""] * 110, split, [""] * 110))
    assert (len(fold.train), len(fold.valid), len(fold.test)) == (80, 20, 10)
    if speakers:
        assert len(of(fold.valid, names)) == 4


def test_equal_texts_stay_together_and_a_share_of_them_validates() -> None:
    texts = [f"tweet {at // 2}" if at < 20 else f"tweet {at}" for at in range(100)]
    groups = Groups([""] * 100, [""] * 100, ["train"] * 100, texts)
    folds = make_folds(FoldSettings(by="text", count=5, valid_share=0.25), groups)
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested.tolist()) == list(range(100))
    for fold in folds:
        parts = [of(part, texts) for part in (fold.train, fold.valid, fold.test)]
        assert sum(map(len, parts)) == 90 == len(set.union(*parts))
        assert len(parts[1]) == round(0.25 * 90 * 4 / 5)


NAMED = (NamedFold(valid=("s00",), test=("s02",)),)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (FoldSettings(by="speaker", named=NAMED, count=3), "count: folds named"),
        (FoldSettings(by="session", named=NAMED, valid_groups=2), "valid_groups: folds named"),
        (FoldSettings(by="session", valid_share=0.2), "valid_share: folds by session"),
        (FoldSettings(by="text", valid_groups=2), "valid_groups: folds by text"),
        (FoldSettings(by="official", count=3), "count: folds by official"),
        (FoldSettings(by="official", named=NAMED), "named: folds by official"),
    ],
)
def test_what_folds_do_not_heed_is_refused(settings: FoldSettings, message: str) -> None:
    with pytest.raises(UserError, match=f"^folds.{message} do not heed it; leave it out$"):
        make_folds(settings, corpus(8))
