"""Every fault of a shard: what a run reads and names, what the check lists, what a repair saves."""

import json
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.bad_data import EVIL_INDEXES, damage, list_anew, put_index, try_out
from benchmarks.faults import HACKED, SHARD, Fault, faults
from benchmarks.small_data import KEYS, PER_SHARD, run_stream, write_small
from benchmarks.tars import member, split_tar
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.check import check_dataset
from data_pipeline.shards.index import build_index, index_path
from data_pipeline.shards.reader import open_dataset
from data_pipeline.shards.tar import found_samples

FAULTS = faults(tiny=300, huge=1 << 20)
NAMES = [f"{fault.name}, {fault.what}" for fault in FAULTS]
SEVERAL = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("small") / "whole")


@pytest.fixture(scope="module")
def contents(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run reads of each sample of the whole dataset."""
    return run_stream(whole, Quarantine(tmp_path_factory.mktemp("run") / "q.jsonl", 0))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "data")


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def _run(folder: Path, scratch: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """What is read of each sample, and the members that are named of those that are not."""
    quarantine = scratch / "q.jsonl"
    quarantine.unlink(missing_ok=True)
    read = run_stream(folder, Quarantine(quarantine, 100))
    lines = quarantine.read_text("utf8").splitlines() if quarantine.exists() else []
    records = [json.loads(line) for line in lines]
    return read, {record["key"]: record["member"] for record in records}


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_a_bad_sample_is_named_and_the_others_are_read(
    fault: Fault, folder: Path, tmp_path: Path, contents: dict[str, bytes]
) -> None:
    damage(folder, fault)
    before = _hashes(folder)
    outcome = try_out(folder, tmp_path)
    assert set(outcome.read) == set(KEYS) - set(fault.lost)
    assert sum(outcome.kept) == len(KEYS), "strays are none of the dataset's samples"
    assert {one["key"]: one["member"] for one in outcome.quarantined} == fault.lost
    assert all(one["reason"] and one["shard"] == SHARD for one in outcome.quarantined)
    assert outcome.problems
    assert not fault.lost or any(f", {next(iter(fault.lost))}" in one for one in outcome.problems)
    assert _hashes(folder) == before
    assert not Path(HACKED).exists()
    assert not list(check_dataset(tmp_path / "repaired"))
    repaired, _ = _run(tmp_path / "repaired", tmp_path)
    assert all(repaired[key] == contents[key] for key in outcome.read)


@pytest.mark.parametrize("index", ["of before", "absent", "of now"])
@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_with_any_index_each_sample_is_read_as_it_was_or_named(
    fault: Fault, index: str, folder: Path, tmp_path: Path, contents: dict[str, bytes]
) -> None:
    damage(folder, replace(fault, listed=False))
    if index == "absent":
        index_path(folder / SHARD).unlink()
    elif index == "of now":
        list_anew(folder)
    read, named = _run(folder, tmp_path)
    unknown = sum(key.startswith("#") for key in named)
    missing = set(KEYS) - set(read) - set(named)
    assert len(missing) <= unknown
    changed = {key for key in read if read[key] != contents[key]}
    # Only an index of before can tell a word from another, or that something is not there.
    assert changed <= (set() if index == "of before" else {"k1"} & _silent(fault))


def _silent(fault: Fault) -> set[str]:
    """Samples that look whole without an index of before."""
    silent = ("flipped bit in rows", "flipped bit in a text", "member taken out")
    return {"k1"} if fault.name in silent else set()


@SEVERAL
@given(data=st.data())
@pytest.mark.parametrize("indexed", [True, False])
def test_a_tar_that_ends_anywhere(
    indexed: bool, whole: Path, tmp_path: Path, contents: dict[str, bytes], data: st.DataObject
) -> None:
    folder = shutil.copytree(whole, tmp_path / "data", dirs_exist_ok=True)
    tar = (whole / SHARD).read_bytes()
    cut = data.draw(st.integers(0, len(tar)))
    (folder / SHARD).write_bytes(tar[:cut])
    if not indexed:
        index_path(folder / SHARD).unlink()
    read, named = _run(folder, tmp_path)
    assert all(read[key] == contents[key] for key in read)
    assert len(read) + len(named) == len(KEYS)
    ends = _ends(tar)
    if indexed:
        assert set(named) == {key for key in ends if ends[key] > cut}
    else:
        assert {key for key in ends if ends[key] <= cut} - set(read) <= {"k0", "k1", "k2", "k3"}
        assert not set(read) & {key for key in ends if ends[key] > cut}


def _ends(tar: bytes) -> dict[str, int]:
    """Where the last byte of each sample's content stands."""
    ends, at = {}, 0
    for part in split_tar(tar):
        ends[part.name.split(".")[0]] = at + len(part.header) + len(part.content)
        at += len(part.raw)
    return ends


@SEVERAL
@given(data=st.data())
def test_a_bit_that_is_flipped_anywhere(
    whole: Path, tmp_path: Path, contents: dict[str, bytes], data: st.DataObject
) -> None:
    folder = shutil.copytree(whole, tmp_path / "data", dirs_exist_ok=True)
    tar = bytearray((whole / SHARD).read_bytes())
    at = data.draw(st.integers(0, len(tar) - 1))
    tar[at] ^= 1 << data.draw(st.integers(0, 7))
    (folder / SHARD).write_bytes(tar)
    hit = _holds((whole / SHARD).read_bytes(), at)
    read, named = _run(folder, tmp_path)
    assert named == hit
    assert read == {key: contents[key] for key in KEYS if key not in hit}
    assert any(SHARD in str(problem) for problem in check_dataset(folder))


def _holds(tar: bytes, at: int) -> dict[str, str]:
    """Key and member whose content has this byte."""
    begin = 0
    for part in split_tar(tar):
        first = begin + len(part.header)
        if first <= at < first + len(part.content):
            key, _, suffix = part.name.partition(".")
            return {key: suffix}
        begin += len(part.raw)
    return {}


@pytest.mark.parametrize("name", EVIL_INDEXES)
def test_an_evil_index_harms_nobody(
    name: str, folder: Path, tmp_path: Path, contents: dict[str, bytes]
) -> None:
    put_index(folder, EVIL_INDEXES[name])
    outcome = try_out(folder, tmp_path)
    lost = {"k0", "k1", "k2", "k3"} if name == "other lengths" else set()
    assert {one["key"] for one in outcome.quarantined} == lost
    assert set(outcome.read) == set(KEYS) - lost
    assert any("index" in line for line in outcome.problems)
    assert not list(check_dataset(tmp_path / "repaired"))


@SEVERAL
@given(data=st.data())
def test_an_index_with_any_numbers_gives_no_wrong_sample(
    whole: Path, tmp_path: Path, contents: dict[str, bytes], data: st.DataObject
) -> None:
    folder = shutil.copytree(whole, tmp_path / "data", dirs_exist_ok=True)
    name = data.draw(st.sampled_from(["offsets", "sizes", "lengths", "crcs"]))

    def change(index: object) -> object:
        table = getattr(index, name).copy()
        limits = np.iinfo(table.dtype)
        near = st.sampled_from([-1, 0, 1, 512, 1024, 1 << 15, limits.min, limits.max])
        value = data.draw(near | st.integers(int(limits.min), int(limits.max)))
        at = data.draw(st.integers(0, table.size - 1))
        table.flat[at] = min(max(value, limits.min), limits.max)
        return replace(index, **{name: table})  # type: ignore[type-var]

    put_index(folder, change)  # type: ignore[arg-type]
    read, named = _run(folder, tmp_path)
    assert set(read) | set(named) == set(KEYS)
    assert all(read[key] == contents[key] for key in read)


def test_memory_grows_with_the_samples_that_are_asked_for(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    with tar.open("wb") as file:
        for number in range(5_000):
            file.write(member(f"t{number}.{'json' if number % 2 else 'txt'}").header)
    index_of_most = build_index(tar, PER_SHARD)
    tracemalloc.start()
    build_index(tar, PER_SHARD)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(index_of_most) == 2 * PER_SHARD, "as many samples, and strays"
    assert peak < 200_000


def test_a_huge_header_is_not_read(folder: Path) -> None:
    damage(folder, faults(tiny=1, huge=32 << 20)[-1])
    tracemalloc.start()
    build_index(folder / SHARD)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("kind", ["x", "L", "g"])
def test_headers_that_announce_headers_take_no_longer_than_their_bytes(kind: str) -> None:
    """Each is tried as the beginning of a member, but only a few are followed from each."""
    one = member("k.json", b"", kind=kind.encode(), form=0).header
    assert found_samples(one * 2_000) == []


def test_the_cap_counts_what_a_cut_tar_has_lost(folder: Path, tmp_path: Path) -> None:
    (folder / SHARD).write_bytes(b"")
    quarantine = Quarantine(tmp_path / "q.jsonl", PER_SHARD - 1)
    with pytest.raises(Exception, match="more than 3 bad samples"):
        run_stream(folder, quarantine)
    assert len(open_dataset(folder).split("train")) == len(KEYS)
