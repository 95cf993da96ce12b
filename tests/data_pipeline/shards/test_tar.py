"""Indexes of good, foreign and damaged tars; tarfile is the reference."""

import io
import subprocess
import sys
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.clip import JSON, MEMBERS, BadSampleError, clip_members
from data_pipeline.shards.dataset import ShardInfo
from data_pipeline.shards.index import (
    BadIndexError,
    Flaw,
    ShardIndex,
    build_index,
    file_sha256,
    index_path,
    load_index,
    most_index_bytes,
    parse_index,
    read_index,
    with_checksums,
    write_index,
)
from data_pipeline.shards.shard import MappedShard
from data_pipeline.shards.tar import BLOCK, TarProblem, map_tar, tar_samples
from tests.data_pipeline.shards.samples import FEATURES, make_clips, same

CLIPS = make_clips(6)
Entry = tuple[str, bytes] | tarfile.TarInfo


def _entries() -> list[Entry]:
    return [
        (f"{clip.key}.{suffix}", content)
        for clip in CLIPS
        for suffix, content in clip_members(clip)
    ]


def _write(path: Path, entries: list[Entry], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                member = tarfile.TarInfo(entry[0])
                member.size = len(entry[1])
                tar.addfile(member, io.BytesIO(entry[1]))
    return path


def _place(entries: list[Entry], key: str) -> int:
    """Where the first member of a key stands."""
    return next(
        i for i, one in enumerate(entries) if isinstance(one, tuple) and one[0].startswith(key)
    )


def _build(path: Path) -> tuple[ShardIndex, list[TarProblem]]:
    return build_index(path), list(tar_samples(map_tar(path)))


def _usable(path: Path) -> dict[str, int]:
    """Keys of the samples that can be read, and the numbers of their clips; all are as written."""
    index, _ = _build(path)
    shard = MappedShard(path, index, FEATURES)
    found = {}
    for row, key in enumerate(index.keys):
        try:
            clip = shard.read(row)
        except BadSampleError:
            continue
        found[key] = int(key[1:])
        assert same(clip, CLIPS[found[key]])
    return found


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_index_says_where_tarfile_finds_the_members(tmp_path: Path, form: int) -> None:
    path = _write(tmp_path / "a.tar", _entries(), form)
    index, problems = _build(path)
    assert problems == []
    assert index.keys == tuple(clip.key for clip in CLIPS)
    with tarfile.open(path) as tar:
        places = {member.name: (member.offset_data, member.size) for member in tar}
    for row, key in enumerate(index.keys):
        for column, suffix in enumerate(MEMBERS):
            place = index.offsets[row, column], index.sizes[row, column]
            assert place == places.get(f"{key}.{suffix}", (-1, 0))
    for row, clip in enumerate(CLIPS):
        lengths = [
            len(clip.text or ""),
            *(0 if x is None else len(x) for x in (clip.face, clip.speech)),
        ]
        assert index.lengths[row].tolist() == lengths


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_that_need_an_extra_header(tmp_path: Path, form: int) -> None:
    keys = ["k" * 200, "한국어" * 30]
    content = dict(clip_members(CLIPS[0]))[JSON]
    path = _write(tmp_path / "a.tar", [(f"{key}.json", content) for key in keys], form)
    index, problems = _build(path)
    assert (list(index.keys), problems) == (keys, [])
    assert MappedShard(path, index, FEATURES).read_record(1).text == CLIPS[0].text


def test_a_leading_dot_slash_is_no_part_of_the_key(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", [("./c0.json", b"{}")])
    assert _build(path)[0].keys == ("c0",)


def _link(name: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = kind, "/etc/passwd"
    return link


FOREIGN: dict[str, tuple[Entry, str]] = {
    "parent": (("../c9.json", b"{}"), "is not a member's name"),
    "absolute": (("/c9.json", b"{}"), "is not a member's name"),
    "folder": (("a/c9.json", b"{}"), "is not a member's name"),
    "no key": ((".json", b"{}"), "is not a member's name"),
    "control": (("c\n9.json", b"{}"), "is not a member's name"),
    "pickle": (("c9.pkl", b"..."), "unknown member"),
    "no suffix": (("c9", b""), "unknown member"),
    "link": (_link("c9.json"), "not a regular file"),
    "hard link": (_link("c9.json", tarfile.LNKTYPE), "not a regular file"),
    "device": (_link("c9.json", tarfile.CHRTYPE), "not a regular file"),
}


@pytest.mark.parametrize(("entry", "reason"), FOREIGN.values(), ids=list(FOREIGN))
def test_foreign_members_are_named_and_harm_no_sample(
    tmp_path: Path, entry: Entry, reason: str
) -> None:
    entries = _entries()
    first_of_third = _place(entries, "c2")
    entries.insert(first_of_third, entry)
    path = _write(tmp_path / "a.tar", entries)
    _, problems = _build(path)
    assert len(problems) == 1
    assert reason in problems[0].reason
    with tarfile.open(path) as tar:
        assert problems[0].offset == tar.getmembers()[first_of_third].offset
    assert len(_usable(path)) == len(CLIPS)


def test_a_sample_with_a_link_or_a_second_member_is_unusable(tmp_path: Path) -> None:
    entries = _entries()
    entries.insert(1, _link("c0.jpg"))
    entries.append(("c5.json", b"{}"))
    _, problems = _build(_write(tmp_path / "a.tar", entries))
    assert [(one.key, one.member) for one in problems] == [("c0", "jpg"), ("c5", "json")]
    assert set(_usable(tmp_path / "a.tar")) == {"c1", "c2", "c3", "c4"}


def test_a_sample_whose_members_stand_apart_is_unusable(tmp_path: Path) -> None:
    entries = _entries()
    entries.append(entries.pop(1))
    _, problems = _build(_write(tmp_path / "a.tar", entries))
    assert [(one.key, one.reason) for one in problems] == [
        ("c0", "members of this key stand elsewhere, too")
    ]
    assert set(_usable(tmp_path / "a.tar")) == {"c1", "c2", "c3", "c4", "c5"}


def test_a_cut_tar_gives_the_samples_before_the_cut(tmp_path: Path) -> None:
    whole = _write(tmp_path / "a.tar", _entries())
    content = whole.read_bytes()
    with tarfile.open(whole) as tar:
        members = tar.getmembers()
    ends = {m.name.split(".")[0]: m.offset_data + -(-m.size // BLOCK) * BLOCK for m in members}
    path = tmp_path / "b.tar"
    for cut in range(256, ends["c5"] + 1, 256):
        path.write_bytes(content[:cut])
        index, problems = _build(path)
        begun = [key for key, end in ends.items() if end < cut]
        assert set(begun[:-1]) <= set(_usable(path)) <= set(begun), cut
        assert "the tar is damaged or cut off here" in [one.reason for one in problems]
        assert len(index) <= len(CLIPS)


def test_a_zeroed_block_loses_only_its_neighbours(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", _entries())
    with tarfile.open(path) as tar:
        offset = tar.getmember("c2.face.npy").offset
    content = bytearray(path.read_bytes())
    content[offset : offset + BLOCK] = bytes(BLOCK)
    path.write_bytes(content)
    _, problems = _build(path)
    assert problems[0].offset == offset
    assert [one.key for one in problems] == ["", "c2"], "the rest of it is noticed, too"
    assert set(_usable(path)) == {"c0", "c1", "c3", "c4", "c5"}


def test_a_tar_after_a_tar_is_read_on(tmp_path: Path) -> None:
    entries = _entries()
    seam = _place(entries, "c3")
    first = _write(tmp_path / "a.tar", entries[:seam]).read_bytes()
    path = _write(tmp_path / "b.tar", entries[seam:])
    path.write_bytes(first + path.read_bytes())
    assert [one.key for one in _build(path)[1]] == ["", "c2", "c3"]
    assert set(_usable(path)) == {"c0", "c1", "c4", "c5"}, "something may be lost at the seam"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_any_damage_is_found_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    """Flipped bytes: nothing but BadSampleError, and most samples survive."""
    clips = make_clips(12)
    entries = [(f"{one.key}.{name}", part) for one in clips for name, part in clip_members(one)]
    path = _write(tmp_path / "a.tar", [*entries])
    content = bytearray(path.read_bytes())
    places = data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3))
    for place in places:
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    index, _ = _build(path)
    shard = MappedShard(path, index, FEATURES)
    intact = 0
    for row, key in enumerate(index.keys):
        try:
            clip = shard.read(row)
        except BadSampleError:
            continue
        intact += any(same(clip, one) for one in clips if one.key == key)
    assert intact >= len(clips) - 3 * len(places)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=3000))
def test_garbage_is_an_empty_tar(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    assert len(_build(path)[0]) == 0


def test_a_member_of_negative_size_ends_the_reading(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", _entries())
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        offset = tar.getmember("c3.json").offset
    content[offset + 124 : offset + 136] = b"\xff" * 10 + b"\xfc\x00"  # -1024, in base 256
    header = content[offset : offset + BLOCK]
    header[148:156] = b" " * 8
    content[offset + 148 : offset + 156] = b"%06o\0 " % sum(header)
    path.write_bytes(content)
    assert set(_usable(path)) == {"c0", "c1", "c4", "c5"}


def _info(path: Path) -> ShardInfo:
    size = path.stat().st_size
    return ShardInfo(
        name=path.name, split="train", samples=len(CLIPS), bytes=size, sha256=file_sha256(path)
    )


def _assert_same(first: ShardIndex, second: ShardIndex) -> None:
    assert (first.keys, first.flaws) == (second.keys, second.flaws)
    for name in ("offsets", "sizes", "lengths", "crcs"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_an_index_file_holds_the_index(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", _entries())
    sha256 = file_sha256(path)
    written = write_index(path, sha256)
    read = read_index(path, _info(path))
    _assert_same(read, written)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.idx", "a.tar"]


def test_a_bad_index_is_made_anew(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", _entries())
    sha256 = file_sha256(path)
    expected = write_index(path, sha256)
    good = index_path(path).read_bytes()
    info = _info(path)
    for place in range(0, len(good), 37):
        damaged = bytearray(good)
        damaged[place] ^= 0x10
        for content in (bytes(damaged), good[:place]):
            index_path(path).write_bytes(content)
            with pytest.raises(BadIndexError, match="is damaged"):
                read_index(path, info)
    _assert_same(with_checksums(load_index(path, info), map_tar(path)), expected)
    index_path(path).unlink()
    _assert_same(with_checksums(load_index(path, info), map_tar(path)), expected)


def test_what_is_wrong_with_an_index_is_said(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", _entries())
    write_index(path, file_sha256(path))
    good, info = index_path(path).read_bytes(), _info(path)
    most = most_index_bytes(info)
    for content, reason in (
        (b"", "^is damaged$"),
        (b"memoidx3" + good[8:], "^is damaged$"),
        (b"memoidx1" + good[8:], "^is of the older format memoidx1, .*; 'memo data repair' writes"),
        (bytes(most), "^is damaged$"),
        (bytes(most + 1), f"^has more than {most:,} bytes, the most for 6 samples$"),
    ):
        index_path(path).write_bytes(content)
        with pytest.raises(BadIndexError, match=reason):
            read_index(path, info)
    with pytest.raises(BadIndexError, match="of another tar"):
        parse_index(good, replace(info, sha256="0" * 64))
    with pytest.raises(BadIndexError, match="names members that its tar cannot hold"):
        parse_index(good, replace(info, bytes=6 * 1024))
    index_path(path).unlink()
    with pytest.raises(BadIndexError, match="is missing"):
        read_index(path, info)


def test_the_largest_index_that_a_tar_can_have_is_read(tmp_path: Path) -> None:
    """As many strays as samples, the longest keys, and the longest that is said of members."""
    keys = [chr(0x1F600 + number) * 255 for number in range(12)]
    entries: list[Entry] = [(f"{key}.json", b"{}") for key in keys[:6]]
    entries += [(f"{key}.{chr(0x1F600) * 200}", b"") for key in keys]
    path = _write(tmp_path / "a.tar", entries)
    index, info = write_index(path, file_sha256(path)), _info(path)
    assert len(index) == len(index.flaws) == 12
    read = read_index(path, info)
    assert read.flaws == index.flaws
    longest = Flaw(chr(0x1F600) * 255, "x" * 1000)
    said = dict.fromkeys(range(12), longest)
    content = replace(index, flaws=said).to_bytes(info.sha256)
    assert parse_index(content, info).flaws == said


def test_no_more_of_an_index_is_read_than_it_can_have(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", _entries())
    with index_path(path).open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    with pytest.raises(BadIndexError, match="has more than"):
        read_index(path, _info(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    huge = replace(_info(path), samples=10**12, bytes=10**16)
    assert most_index_bytes(huge) == 1 << 30


BEFORE_NOTHING = """
import sys
from pathlib import Path
from data_pipeline.shards.tar import map_tar, tar_samples

maps = [map_tar(Path(sys.argv[1])) for _ in range(40)]
for one in maps[::2]:  # what lay behind the others
    one.close()
for one in maps[1::2]:
    assert [*tar_samples(one)]
"""


def test_nothing_behind_a_map_is_looked_at(tmp_path: Path) -> None:
    """Python 3.11.2 (Debian 12) dies of it in `mmap.find`; others would not show it."""
    path = tmp_path / "t.tar"
    path.write_bytes(b"u" * 16384)  # whole pages, and no header in them
    subprocess.run([sys.executable, "-c", BEFORE_NOTHING, str(path)], check=True)
