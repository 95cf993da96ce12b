from pathlib import Path

import numpy as np
import pytest

from data_pipeline.lengths import LengthLimits, TokenLengths
from data_pipeline.shards.remote import Traffic
from data_pipeline.subset import Joined, Subset, SubsetLengths
from tests.data_pipeline.small_dataset import write_split


def test_a_subset_is_its_clips_numbered_anew(tmp_path: Path) -> None:
    split = write_split(tmp_path / "data", 10)
    chosen = np.array([7, 2, 9])
    subset = Subset(split, chosen, "fold 1")
    assert (len(subset), subset.name) == (3, "fold 1")
    for at, sample in enumerate(chosen.tolist()):
        assert subset.read(at).key == split.read(sample).key
        assert subset.location(at) == split.location(sample)


def test_the_fingerprint_is_that_of_the_choice_and_the_content(tmp_path: Path) -> None:
    split, other = write_split(tmp_path / "data", 10), write_split(tmp_path / "other", 9)
    one, again, less, elsewhere = (
        Subset(whole, np.array(chosen), "s").fingerprint
        for whole, chosen in ((split, [1, 2]), (split, [1, 2]), (split, [1]), (other, [1, 2]))
    )
    assert one == again
    assert len({one, less, elsewhere}) == 3


def test_lengths_are_those_of_the_whole_and_what_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "cache"))
    split = write_split(tmp_path / "data", 10)
    whole = TokenLengths(split, lambda text: len(text.split()), "t", LengthLimits(5, 5, 5))
    chosen = np.array([7, 2, 9])
    found = SubsetLengths(whole, chosen, added=4)
    assert found.longest == whole.longest + 4
    assert found.of(np.array([2, 0])).tolist() == (whole.of(chosen[[2, 0]]) + 4).tolist()


def test_the_traffic_of_joined_splits_is_the_sum_of_theirs(tmp_path: Path) -> None:
    splits = [write_split(tmp_path / name, 3) for name in ("one", "other")]
    for number, split in enumerate(splits):
        split.traffic.count(bytes_read=10**number, hits=1, waited_s=0.5)
    expected = Traffic(bytes_read=11, hits=2, waited_s=1.0)
    assert Joined(splits, "both").traffic == expected
    assert Subset(splits[1], np.array([0]), "one").traffic == splits[1].traffic
