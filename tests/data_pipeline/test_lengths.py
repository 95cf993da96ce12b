"""Token lengths against the clips themselves, and the cache against damage."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline import lengths as module
from data_pipeline.lengths import LengthLimits, TokenLengths
from data_pipeline.shards.reader import Split
from tests.data_pipeline.small_dataset import write_split

LIMITS = LengthLimits(text=4, face=3, speech=5)


class Counter:
    """Counts words, and how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, text: str) -> int:
        self.calls += 1
        return len(text.split())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return write_split(tmp_path / "data", 10)


def _expected(split: Split) -> list[int]:
    lengths = []
    for sample in range(len(split)):
        clip = split.read(sample)
        words = len((clip.text or "").split())
        assert clip.face is not None
        assert clip.speech is not None
        text = min(words, 4) + 2 if words else 0
        lengths.append(text + min(len(clip.face), 3) + min(len(clip.speech), 5))
    return lengths


def test_lengths_are_those_of_the_clips(split: Split, cache: Path) -> None:
    lengths = TokenLengths(split, Counter(), "t", LIMITS)
    samples = np.array([9, 0, 4, 4, 3, 1, 2, 5, 8, 7, 6])
    expected = _expected(split)
    assert lengths.of(samples).tolist() == [expected[sample] for sample in samples]
    assert max(expected) <= lengths.longest == 14
    assert len(set(expected)) > 3


def test_a_text_is_counted_when_it_is_asked_for_and_once(split: Split, cache: Path) -> None:
    counter = Counter()
    lengths = TokenLengths(split, counter, "t", LIMITS)
    asked = [2, 0, 2, 3, 1, 1]
    calls = []
    for sample in asked:
        lengths.of(np.array([sample, asked[0]]))
        calls.append(counter.calls)
    assert calls == [1, 2, 2, 3, 4, 4]
    TokenLengths(split, counter, "t", LIMITS).of(np.array([1, 2]))
    assert counter.calls == 4, "the first shard is known as a whole"
    TokenLengths(split, counter, "other", LIMITS).of(np.array([1]))
    assert counter.calls == 5


def test_on_a_server_a_shard_is_counted_as_a_whole(split: Split, cache: Path) -> None:
    split.readers = 16
    counter = Counter()
    TokenLengths(split, counter, "t", LIMITS).of(np.array([0]))
    assert counter.calls == 4


def test_no_more_is_kept_in_memory_than_is_said(
    split: Split, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 3)
    counter = Counter()
    lengths = TokenLengths(split, counter, "t", LIMITS)
    expected, order = _expected(split), [0, 4, 8, 0, 4, 8]  # of another shard each
    assert [lengths.of(np.array([at])).item() for at in order] == [expected[at] for at in order]
    assert counter.calls == len(order), "a shard that is not wholly counted is forgotten"


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_cache_is_counted_anew(split: Split, cache: Path, damage: str) -> None:
    samples = np.arange(10)
    TokenLengths(split, Counter(), "t", LIMITS).of(samples)
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert len(files) == 3
    for path in files:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        damaged = {"cut": content[:-4], "flip": content, "empty": bytearray()}
        path.write_bytes(damaged[damage])
    assert TokenLengths(split, Counter(), "t", LIMITS).of(samples).tolist() == _expected(split)
    counter = Counter()
    TokenLengths(split, counter, "t", LIMITS).of(samples)
    assert counter.calls == 0, "the damaged files were replaced"


def test_a_cache_that_cannot_be_written_is_done_without(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "file"))
    lengths = TokenLengths(split, Counter(), "t", LIMITS)
    assert lengths.of(np.arange(10)).tolist() == _expected(split)


def test_an_unreadable_text_counts_as_none(split: Split, cache: Path, tmp_path: Path) -> None:
    tar = tmp_path / "data" / split.shards[0].name
    content = tar.read_bytes()
    tar.write_bytes(content.replace(b'"words"', b'"words\xff'))
    limits, samples = LengthLimits(100, 3, 5), np.arange(4)
    lengths = TokenLengths(split, Counter(), "t", limits).of(samples)
    rows = split.lengths(0)
    without = np.minimum(rows.face, 3) + np.minimum(rows.speech, 5)
    np.testing.assert_array_equal(lengths, without)
    tar.write_bytes(content)
    mended = TokenLengths(split, Counter(), "t", limits).of(samples)
    assert (mended > without).any(), "what could not be read was remembered"
