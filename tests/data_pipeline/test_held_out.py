from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.build import BuildSettings, build_dataset
from data_pipeline.build_part import BuildPart
from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError
from data_pipeline.features.extract import ExtractSettings
from data_pipeline.held_out import hold_out
from data_pipeline.merge_parts import find_parts, merge_parts
from data_pipeline.shards.reader import open_dataset
from tests.data_pipeline.test_build import content


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=2).filter(lambda names: len(set(names)) > 1),
    st.floats(0.01, 0.99),
)
def test_who_validates_does_not_train_and_somebody_does_each(
    speakers: list[str], share: float
) -> None:
    recordings = [
        Recording(f"k{at}", "train", f"{at}.wav", speaker=one, session=f"day {at}")
        for at, one in enumerate(speakers)
    ]
    held = hold_out(recordings, share)
    parts = [{one.speaker for one in held if one.split == name} for name in ("train", "valid")]
    assert parts[0]
    assert parts[1] == set(speakers) - parts[0]
    assert abs(len(parts[1]) - share * len(set(speakers))) <= 1
    assert [replace(one, split="train") for one in held] == recordings


@pytest.mark.parametrize(("share", "count"), [(0.05, 5), (0.5, 50)])
def test_what_is_not_known_by_speaker_is_divided_by_session_file_or_line(
    share: float, count: int
) -> None:
    lines = [Recording(f"k{at}", "train", None) for at in range(100)]
    files = [replace(one, media=one.key) for one in lines]
    for whole in (lines, files, [replace(one, session=one.key) for one in lines]):
        twice = [*whole, *(replace(one, text="more") for one in whole)]
        valid = [one.key for one in hold_out(twice, share) if one.split == "valid"]
        assert len(set(valid)) == count
        assert valid[:count] == valid[count:]
        assert valid[:count] != [f"k{at}" for at in range(count)]


def test_other_splits_stay_as_they_are() -> None:
    train = [Recording(f"k{at}", "train", None, speaker=f"s{at}") for at in range(9)]
    test = [replace(one, key=f"t{one.key}", split="test") for one in train]
    held = hold_out([*train, *test], 0.3)
    assert held[9:] == test
    assert sum(one.split == "valid" for one in held[:9]) == 3


@pytest.mark.parametrize(
    ("splits", "share", "message"),
    [
        (["train", "train"], 1.0, r"--valid-share: 1; give more than 0 and less than 1"),
        (["train", "train"], float("nan"), r"--valid-share: nan; give more than 0"),
        (["train", "train", "valid"], 0.1, "--valid-share: the corpus has a split valid; leave"),
        (["train", "test"], 0.1, "--valid-share: all that trains is of one speaker or recording"),
    ],
)
def test_what_cannot_be_divided_is_refused(splits: list[str], share: float, message: str) -> None:
    recordings = [Recording(f"k{at}", split, None) for at, split in enumerate(splits)]
    with pytest.raises(UserError, match=rf"^{message}"):
        hold_out(recordings, share)


@pytest.mark.usefixtures("in_process")
def test_a_build_and_its_parts_hold_out_the_same(tmp_path: Path) -> None:
    lines = [f"{at},hello {at},s{at % 5}" for at in range(20)]
    (tmp_path / "clips.csv").write_text("\n".join(["key,text,speaker", *lines]) + "\n")
    source, out = tmp_path / "clips.csv", tmp_path / "out"
    settings = BuildSettings("table", source, out, ExtractSettings(None, None), valid_share=0.2)
    assert build_dataset(settings).samples == {"train": 16, "valid": 4}
    valid = open_dataset(out).split("valid")
    assert len({valid.read(at).speaker for at in range(4)}) == 1
    parts = [BuildPart(number, 3) for number in (1, 2, 3)]
    for part in parts:
        build_dataset(replace(settings, out=part.folder(out), part=part))
    merge_parts(find_parts([part.folder(out) for part in parts]), tmp_path / "merged")
    assert content(tmp_path / "merged") == content(out)
