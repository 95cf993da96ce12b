"""Which bytes of a tar are asked for."""

import tarfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.shards import shard as shard_module
from data_pipeline.shards.index import build_index
from data_pipeline.shards.place import Url
from data_pipeline.shards.remote import Remote
from data_pipeline.shards.shard import GAP, MappedShard, RangedShard, Span, merge_spans
from tests.data_pipeline.shards.samples import make_clips, same, write_clips

CLIPS = make_clips(6)


class FakeRemote(Remote):
    """A file whose ranges are noted."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        self.asked: list[Span] = []

    def read_range(self, url: Url, begin: int, end: int) -> bytes:
        assert 0 <= begin < end <= len(self.content)
        self.asked.append((begin, end))
        return self.content[begin:end]


def ranged(tar: Path) -> tuple[RangedShard, FakeRemote]:
    remote = FakeRemote(tar)
    return RangedShard(Url("http://host/x.tar"), build_index(tar), remote), remote


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    return write_clips(tmp_path / "d", samples_per_shard=6, train=CLIPS) / "train-000000.tar"


spans = st.lists(
    st.tuples(st.integers(0, 20 * GAP), st.integers(0, 2 * GAP)).map(lambda one: (one[0], sum(one)))
)


@given(spans)
def test_merged_spans_hold_all_and_no_wide_gap(given_spans: list[Span]) -> None:
    merged = merge_spans(given_spans)
    for begin, end in given_spans:
        assert any(first <= begin and end <= last for first, last in merged)
    edges = {edge for span in given_spans for edge in span}
    assert all({begin, end} <= edges for begin, end in merged)
    for (_, before), (after, _) in pairwise(merged):
        assert after - before > GAP
    for begin, end in merged:  # inside, no byte is further from the spans than the gap allows
        here = sorted(span for span in given_spans if begin <= span[0] and span[1] <= end)
        reached = begin
        for first, last in here:
            assert first - reached <= GAP
            reached = max(reached, last)


def test_a_sample_is_one_request(tar: Path) -> None:
    shard, remote = ranged(tar)
    mapped = MappedShard(tar, shard.index)
    for row in (5, 0, 3):
        assert same(shard.read(row), CLIPS[row])
        assert same(shard.read(row), mapped.read(row))
    assert len(remote.asked) == 6


def test_a_stranger_between_two_members_is_not_fetched(tar: Path) -> None:
    """Its suffix is none of a clip, so it is not in the index."""
    with tarfile.open(tar) as old:
        members = [(one, old.extractfile(one)) for one in old]
        with tarfile.open(tar.with_name("new.tar"), "w") as new:
            for at, (member, content) in enumerate(members):
                new.addfile(member, content)
                if at == 0:
                    film = tarfile.TarInfo("c0.mp4")
                    film.size = 2 * GAP
                    with open("/dev/zero", "rb") as zeros:
                        new.addfile(film, zeros)
    shard, remote = ranged(tar.with_name("new.tar"))
    assert same(shard.read(0), CLIPS[0])
    assert len(remote.asked) == 2
    assert sum(end - begin for begin, end in remote.asked) < 2 * GAP


def test_records_are_asked_for_together(tar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "AHEAD", 4)
    shard, remote = ranged(tar)
    mapped = MappedShard(tar, shard.index)
    counts = []
    for row in range(6):
        assert same(shard.read_record(row), mapped.read_record(row))
        counts.append(len(remote.asked))
    assert counts == [4, 4, 4, 4, 6, 6]
    assert sum(end - begin for begin, end in remote.asked) < 6 * 200
