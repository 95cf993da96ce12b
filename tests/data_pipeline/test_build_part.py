import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.build_part import BuildPart, parse_part
from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError


@given(st.lists(st.sampled_from(["a", "b", None])), st.integers(1, 9))
def test_parts_are_the_whole_and_divide_no_file(media: list[str | None], of: int) -> None:
    recordings = [Recording(f"k{at}", "train", name) for at, name in enumerate(media)]
    parts = [BuildPart(number, of).share(recordings) for number in range(1, of + 1)]
    numbers = {one.key: at for at, one in enumerate(recordings, start=1)}
    stand = [[numbers[one.key] for one in part] for part in parts]
    assert sorted(at for part in stand for at in part) == [*range(1, len(recordings) + 1)]
    assert all(part == sorted(part) for part in stand)
    follow = [at for part in stand for at in part] == [*range(1, len(recordings) + 1)]
    told = [[one.at for one in part] for part in parts]
    assert told == ([[0] * len(part) for part in stand] if follow else stand)
    files = [{one.media for one in part} - {None} for part in parts]
    assert sum(map(len, files)) == len(set().union(*files))


@given(st.lists(st.tuples(st.sampled_from([True, False]), st.integers(1, 5))), st.integers(1, 9))
def test_files_that_stand_one_after_the_other_are_where_they_begin(
    runs: list[tuple[bool, int]], of: int
) -> None:
    total = sum(count if file else 1 for file, count in runs)
    expected: list[list[str]] = [[] for _ in range(of)]
    recordings: list[Recording] = []
    for number, (file, count) in enumerate(runs):
        name = f"{number}.wav" if file else None
        added = [Recording(f"k{number}-{at}", "train", name) for at in range(count if file else 1)]
        expected[len(recordings) * of // total] += [one.key for one in added]
        recordings += added
    for number in range(1, of + 1):
        share = BuildPart(number, of).share(recordings)
        assert [one.key for one in share] == expected[number - 1]


def test_parts_are_of_like_size() -> None:
    recordings = [Recording(f"k{at}", "train", f"{at}.wav") for at in range(100)]
    sizes = [len(BuildPart(number, 7).share(recordings)) for number in range(1, 8)]
    assert set(sizes) == {14, 15}


def test_files_that_stand_mixed_are_divided_as_those_that_do_not() -> None:
    names = [f"{at % 12}.mp4" for at in range(120)]
    random.Random(0).shuffle(names)
    recordings = [Recording(f"k{at}", "train", name) for at, name in enumerate(names)]
    parts = [BuildPart(number, 4).share(recordings) for number in range(1, 5)]
    assert [len(part) for part in parts] == [30] * 4
    assert [len({one.media for one in part}) for part in parts] == [3] * 4


def test_parts_lie_beside_the_dataset(tmp_path: Path) -> None:
    assert BuildPart(2, 3).folder(tmp_path / "mine") == tmp_path / "mine.parts" / "2-of-3"
    for out in (".", "/"):
        with pytest.raises(UserError, match=rf"^--out: {re.escape(out)} exists already"):
            BuildPart(2, 3).folder(Path(out))


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b"])
def test_what_is_no_part_is_refused(text: str) -> None:
    assert parse_part("3/8") == BuildPart(3, 8)
    with pytest.raises(UserError, match=r"give i/n with i from 1 to n, e\.g\. 3/8"):
        parse_part(text)
