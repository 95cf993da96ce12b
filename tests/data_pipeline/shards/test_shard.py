"""Which bytes of a tar are asked for."""

import tarfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.clip import BadSampleError, Fault
from data_pipeline.shards import shard as shard_module
from data_pipeline.shards.index import build_index, with_checksums
from data_pipeline.shards.place import Url
from data_pipeline.shards.remote import Remote
from data_pipeline.shards.shard import GAP, MappedShard, RangedShard, Span, merge_spans
from data_pipeline.shards.tar import map_tar
from tests.data_pipeline.shards.samples import FEATURES, make_clips, same, write_clips

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
    index = with_checksums(build_index(tar), map_tar(tar))
    return RangedShard(Url("http://host/x.tar"), index, FEATURES, remote), remote


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
    mapped = MappedShard(tar, shard.index, FEATURES)
    for row in (5, 0, 3):
        assert same(shard.read(row), CLIPS[row])
        assert same(shard.read(row), mapped.read(row))
    assert len(remote.asked) == 6


def test_a_long_comment_between_two_members_is_not_fetched(tar: Path) -> None:
    """As another program may write it into the tar; a stranger there makes the sample unusable."""
    with tarfile.open(tar) as old:
        members = [(one, old.extractfile(one)) for one in old]
        with tarfile.open(tar.with_name("new.tar"), "w", format=tarfile.PAX_FORMAT) as new:
            for at, (member, content) in enumerate(members):
                if at == 1:
                    member.pax_headers = {"comment": "x" * 2 * GAP}
                new.addfile(member, content)
    shard, remote = ranged(tar.with_name("new.tar"))
    assert same(shard.read(0), CLIPS[0])
    assert len(remote.asked) == 2
    assert sum(end - begin for begin, end in remote.asked) < 2 * GAP


def test_records_are_asked_for_together(tar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "AHEAD", 4)
    shard, remote = ranged(tar)
    mapped = MappedShard(tar, shard.index, FEATURES)
    counts = []
    for row in range(6):
        assert same(shard.read_record(row), mapped.read_record(row))
        counts.append(len(remote.asked))
    assert counts == [4, 4, 4, 4, 6, 6]
    assert sum(end - begin for begin, end in remote.asked) < 6 * 200


@pytest.mark.parametrize("bits", [0x01, 0x80])
def test_a_member_that_was_changed_is_noticed_wherever_it_lies(tar: Path, bits: int) -> None:
    shard, remote = ranged(tar)
    content = bytearray(remote.content)
    content[content.index(b"c2.speech.npy") + 512 + 128] ^= bits
    content[content.index(b"c4.json") + 512 + 2] ^= bits
    remote.content = bytes(content)
    tar.write_bytes(content)
    for one in (shard, MappedShard(tar, shard.index, FEATURES)):
        assert same(one.read(3), CLIPS[3])
        assert one.read_record(2).text == CLIPS[2].text, "its record is whole"
        for read, row, member in ((one.read, 2, "speech.npy"), (one.read_record, 4, "json")):
            with pytest.raises(BadSampleError, match="its checksum differs") as caught:
                read(row)
            assert (caught.value.member, caught.value.fault) == (member, Fault.CHANGED)
