"""Datasets read over HTTP, by fetching and by ranges: the same as from the folder."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.http_server import FileServer
from data_pipeline.clip import BadSampleError, Fault
from data_pipeline.errors import UserError
from data_pipeline.lengths import LengthLimits, TokenLengths
from data_pipeline.order import StreamState, Visits
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards import dataset as dataset_module
from data_pipeline.shards import remote as remote_module
from data_pipeline.shards import store as store_module
from data_pipeline.shards.check import check_dataset, describe
from data_pipeline.shards.index import file_sha256, index_path, write_index
from data_pipeline.shards.merge import merge_datasets
from data_pipeline.shards.reader import Dataset, Split, open_dataset
from data_pipeline.shards.remote import FETCH, RANGES, RemoteSettings
from data_pipeline.shards.repair import repair_dataset
from data_pipeline.shards.store import GIB, RemoteStore
from data_pipeline.stream import BatchMaker, Placement, StepSize, TrainStream
from tests.data_pipeline.shards.read_url import digest
from tests.data_pipeline.shards.samples import make_clips, same, write_clips
from tests.data_pipeline.small_dataset import FACE_DIM, SPEECH_DIM, plain, write_split

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install 'memo[remote]'")

CLIPS = make_clips(10)
FIRST = "train-000000.tar"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shards"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_clips(tmp_path / "d", train=CLIPS, valid=make_clips(3, "v"))


@pytest.fixture
def server(folder: Path, cache: Path) -> Iterator[FileServer]:
    with FileServer(folder) as one:
        yield one


def open_url(server: FileServer, settings: RemoteSettings, **changes: object) -> Dataset:
    """The dataset; pauses take no time."""
    changed = settings.model_copy(update=changes)
    return Dataset(RemoteStore(server.url, changed, wait=lambda _: None))


def kept(cache: Path) -> list[str]:
    return sorted(path.suffix for path in cache.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("settings", [FETCH, RANGES], ids=lambda one: one.read)
def test_every_way_reads_the_same(
    server: FileServer, folder: Path, settings: RemoteSettings
) -> None:
    there = open_url(server, settings)
    here = open_dataset(folder)
    assert there.info == here.info
    for name in ("train", "valid"):
        ours, theirs = there.split(name), here.split(name)
        assert ours.fingerprint == theirs.fingerprint
        order = np.random.default_rng(0).integers(len(theirs), size=30).tolist()
        for sample in order:
            assert same(ours.read(sample), theirs.read(sample))
            assert same(ours.read_record(sample), theirs.read_record(sample))
            assert ours.location(sample) == theirs.location(sample)
        for shard in range(len(theirs.shards)):
            lengths, expected = ours.lengths(shard), theirs.lengths(shard)
            assert all(map(np.array_equal, vars(lengths).values(), vars(expected).values()))
        assert list(ours.texts()) == list(theirs.texts())
        speech = ours.read(0).speech
        assert speech is not None
        assert not speech.flags.writeable
    assert describe(there) == describe(here)


def test_a_shard_is_fetched_once(server: FileServer, cache: Path) -> None:
    train = open_url(server, FETCH).split("train")
    digest(train)
    assert [server.count(shard.name) for shard in train.shards] == [1, 1, 1]
    read = sum(shard.bytes for shard in train.shards)
    json = (server.folder / "dataset.json").stat().st_size
    assert (train.traffic.hits, train.traffic.misses) == (0, 3)
    assert train.traffic.bytes_read == read + json
    assert kept(cache) == [".idx"] * 3 + [".tar"] * 3
    again = open_url(server, FETCH).split("train")
    digest(again)
    assert (again.traffic.hits, again.traffic.misses) == (3, 0)
    assert again.traffic.bytes_read == json


def test_by_ranges_nothing_but_indexes_is_kept(server: FileServer, cache: Path) -> None:
    for misses in (3, 0):
        server.asked.clear()
        train = open_url(server, RANGES).split("train")
        digest(train)
        assert (train.traffic.hits, train.traffic.misses) == (3 - misses, misses)
        # dataset.json, the indexes, whether each tar is as long as it was, and the samples
        assert len(server.asked) == 1 + misses + 3 + len(CLIPS)
        assert kept(cache) == [".idx"] * 3


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("missing", "is missing"),
        ("flipped", "is damaged"),
        ("of another tar", "is of another tar"),
        ("forbidden", "is missing"),
        ("older", "is of the older format memoidx1"),
        ("endless", r"has more than [\d,]+ bytes, the most for 4 samples"),
    ],
)
def test_without_a_good_index_the_shard_is_fetched(
    server: FileServer, folder: Path, damage: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    index = index_path(folder / FIRST)
    content = bytearray(index.read_bytes())
    content[-3] ^= 1
    if damage == "missing":
        index.unlink()
    elif damage == "flipped":
        index.write_bytes(content)
    elif damage == "of another tar":
        index.write_bytes(index_path(folder / "train-000001.tar").read_bytes())
    elif damage == "older":
        index.write_bytes(b"memoidx1" + content[8:])
    else:
        server.faults[index.name] = ["403" if damage == "forbidden" else damage]
    train = open_url(server, RANGES).split("train")
    assert all(same(train.read(sample), clip) for sample, clip in enumerate(CLIPS))
    assert re.search(rf"{FIRST}: its index {reason}.*; the shard is fetched whole", caplog.text)
    assert server.asked.count((FIRST, f"bytes=0-{train.shards[0].bytes}")) == 1


def test_a_damaged_shard_in_the_cache_is_fetched_again(server: FileServer, cache: Path) -> None:
    train = open_url(server, FETCH).split("train")
    assert same(train.read(0), CLIPS[0])
    tar = cache / f"{train.shards[0].sha256}.tar"
    content = tar.read_bytes()
    tar.unlink()  # the map stays
    tar.write_bytes(content[:-1])
    index_path(tar).write_bytes(b"")
    assert same(train.read(1), CLIPS[1])
    assert same(open_url(server, FETCH).split("train").read(0), CLIPS[0])
    assert server.count(FIRST) == 2
    tar.write_bytes(bytes(len(content)))
    with pytest.raises(UserError, match=rf"{tar} was changed: its sha256 is"):
        open_url(server, FETCH).split("train").verify()


def test_a_small_cache_is_enough_and_stays_small(
    server: FileServer, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Room for two shards of three; more is mapped at no time."""
    size = max(shard.bytes for shard in open_dataset(server.folder).info.shards)
    train = open_url(server, FETCH, cache_gib=2.2 * size / GIB).split("train")
    assert "are fetched again and again; raise remote.cache_gib" in caplog.text
    first = train.read(0)
    for sample in (9, 4, 0, 8, 5, 1):
        assert same(train.read(sample), CLIPS[sample])
        assert sum(path.stat().st_size for path in cache.iterdir()) <= 2.2 * size
        assert len(train._open) <= 2
    assert same(first, CLIPS[0]), "it outlives its shard"
    assert server.count(FIRST) == 3


def test_what_the_server_refuses_is_said(server: FileServer, folder: Path) -> None:
    train = open_url(server, FETCH).split("train")
    server.faults[FIRST] = ["404"]
    with pytest.raises(UserError, match=r"train-000000\.tar: there is no such file"):
        train.read(0)
    (folder / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match=r"http://.*/dataset\.json is no memo-dataset/1: name"):
        open_url(server, FETCH)
    (folder / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"http://.*/dataset\.json: there is no such file"):
        open_url(server, FETCH)


def test_a_dataset_json_without_end_is_refused(
    server: FileServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (dataset_module, store_module):
        monkeypatch.setattr(module, "MOST_INFO", (folder / "dataset.json").stat().st_size)
    open_url(server, FETCH)
    open_dataset(folder)
    server.faults["dataset.json"] = ["endless"]
    with pytest.raises(UserError, match=r"http://.*/dataset\.json has more than \d") as caught:
        open_url(server, FETCH)
    assert "\n" not in str(caught.value)
    with (folder / "dataset.json").open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match=r"dataset\.json has more than .*; write fewer shards"):
        open_dataset(folder)


def test_a_tokenizer_is_fetched_into_a_folder_named_after_it(
    server: FileServer, folder: Path, tmp_path: Path
) -> None:
    there = open_url(server, FETCH)
    assert there.tokenizer() is None
    assert open_dataset(folder).tokenizer() is None
    (folder / "tokenizer").mkdir()
    kept = []
    for vocab in (b"a", b"b", b"a"):
        (folder / "tokenizer" / "vocab.txt").write_bytes(vocab)
        (folder / "tokenizer" / "tokenizer_config.json").write_bytes(b"{}")
        (folder / "tokenizer" / "other").write_bytes(b"not looked for")
        found = there.tokenizer()
        assert found is not None
        kept.append(found)
        files = {path.name: path.read_bytes() for path in found.iterdir()}
        assert files == {"vocab.txt": vocab, "tokenizer_config.json": b"{}"}
    assert kept[0] == kept[2] != kept[1]
    assert kept[0].parent == tmp_path / "cache" / "tokenizers"
    assert open_dataset(folder).tokenizer() == folder / "tokenizer"
    (kept[0] / "vocab.txt").write_bytes(b"")  # a disk that was full, a process that was killed
    there.tokenizer()
    assert (kept[0] / "vocab.txt").read_bytes() == b"a"
    repair_dataset(server.url, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out" / "tokenizer").iterdir())
    assert names == ["tokenizer_config.json", "vocab.txt"]


def test_what_is_no_tokenizer_or_cannot_be_kept_is_said(
    server: FileServer, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_bytes(b"a")
    server.faults["tokenizer/vocab.txt"] = ["endless"]
    monkeypatch.setattr(store_module, "MOST_TOKENIZER", 1000)
    with pytest.raises(
        UserError, match=r"http://.*/tokenizer/vocab\.txt has more than 1,000 bytes"
    ):
        open_url(server, FETCH).tokenizer()
    server.faults["tokenizer/vocab.txt"] = ["500"] * 2
    with pytest.raises(UserError, match=r"tokenizer/vocab\.txt: given up after 2 attempts"):
        open_url(server, FETCH, attempts=2).tokenizer()
    cache.parent.mkdir(exist_ok=True)
    (cache.parent / "tokenizers").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot take a tokenizer: .*; make room, or set MEMO_"):
        open_url(server, FETCH).tokenizer()


def test_check_and_merge_read_urls(server: FileServer, folder: Path, tmp_path: Path) -> None:
    assert list(check_dataset(server.url)) == []
    assert merge_datasets([server.url], tmp_path / "merged") == {"train": 10, "valid": 3}
    index_path(folder / FIRST).write_bytes(b"")
    (folder / "valid-000000.tar").unlink()
    for path in (tmp_path / "cache" / "shards").glob("*.tar"):
        path.unlink()
    index, missing = (str(problem) for problem in check_dataset(server.url))
    assert index == f"{FIRST}: its index train-000000.idx is damaged"
    assert missing.startswith("valid-000000.tar: http://")
    assert missing.endswith("there is no such file")


def test_by_ranges_a_changed_member_is_noticed(server: FileServer, folder: Path) -> None:
    """Fetched, it would be refused with its shard, whose sha256 is another."""
    content = bytearray((folder / FIRST).read_bytes())
    content[content.index(b"c1.speech.npy") + 512 + 128] ^= 1
    (folder / FIRST).write_bytes(content)
    train = open_url(server, RANGES).split("train")
    assert same(train.read(0), CLIPS[0])
    with pytest.raises(BadSampleError, match=r"speech\.npy: was changed since it was written"):
        train.read(1)
    with pytest.raises(UserError, match="given up after 2 attempts; the last one: wrong bytes"):
        open_url(server, FETCH, attempts=2).split("train").read(0)


def test_what_is_bad_at_a_url_is_checked_and_repaired(
    server: FileServer, folder: Path, tmp_path: Path
) -> None:
    """A sample that was bad from the start, and a shard that is gone."""
    tar = folder / FIRST
    content = bytearray(tar.read_bytes())
    at = content.index(b"c1.speech.npy") + 512 + 128
    content[at : at + 2] = np.float16(np.nan).tobytes()
    tar.write_bytes(content)
    sha256 = file_sha256(tar)
    write_index(tar, sha256)
    listed = json.loads((folder / "dataset.json").read_text("utf8"))
    listed["shards"][0]["sha256"] = sha256
    (folder / "dataset.json").write_text(json.dumps(listed), "utf8")
    (folder / "valid-000000.tar").unlink()
    for settings in (FETCH, RANGES):
        train = open_url(server, settings).split("train")
        assert train.read_text(1) == CLIPS[1].text
        with pytest.raises(BadSampleError, match="holds NaN"):
            train.read(1)
    faults = [(one.shard, one.key, one.fault) for one in check_dataset(server.url)]
    assert faults == [(FIRST, "c1", Fault.VALUES), ("valid-000000.tar", "", Fault.LOST)]
    report = repair_dataset(server.url, tmp_path / "out")
    assert (report.whole["train"], report.cut["train"], report.dropped["valid"]) == (9, 1, 3)
    assert not list(check_dataset(tmp_path / "out"))


def maker(split: Split, folder: Path) -> BatchMaker:
    lengths = TokenLengths(split, lambda text: len(text.split()), "t", LengthLimits(9, 9, 9))
    quarantine = Quarantine(folder / "quarantine.jsonl", 0)
    return BatchMaker(split, plain, {}, FACE_DIM, SPEECH_DIM, lengths, 64, Placement(), quarantine)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("settings", [FETCH, RANGES], ids=lambda one: one.read)
def test_training_sees_the_same_batches(
    tmp_path: Path, cache: Path, settings: RemoteSettings, workers: int
) -> None:
    here = write_split(tmp_path / "small", 11)
    with FileServer(tmp_path / "small") as server:
        there = open_url(server, settings).split("valid")
        far = replace(maker(there, tmp_path), workers=workers)
        state = StreamState.start(7, here.fingerprint)
        with (
            TrainStream(maker(here, tmp_path), state, StepSize(8)) as ours,
            TrainStream(far, state, StepSize(8)) as theirs,
        ):
            for _ in range(4):
                one, other = next(ours), next(theirs)
                assert one.state_after == other.state_after
                for first, second in zip(one.micro_batches, other.micro_batches, strict=True):
                    assert first.keys == second.keys
                    assert first.speech.numpy().tobytes() == second.speech.numpy().tobytes()


def test_the_shards_that_come_next_are_fetched_ahead_and_counted_once(
    tmp_path: Path, cache: Path
) -> None:
    write_split(tmp_path / "small", 11)
    for hits, misses in ((0, 3), (3, 0)):
        with FileServer(tmp_path / "small") as server:
            split = open_url(server, FETCH).split("valid")
            state = StreamState.start(7, split.fingerprint)
            with TrainStream(maker(split, tmp_path), state, StepSize(1), prefetch=1) as stream:
                next(stream)
                tars = sum(path.suffix == ".tar" for path in cache.iterdir())
                assert tars == 3, "one sample is read, and all that come next are here"
                for _ in range(20):
                    next(stream)
            assert (split.traffic.hits, split.traffic.misses) == (hits, misses)
            assert all(server.count(shard.name) == misses // 3 for shard in split.shards)


def test_by_ranges_the_clips_of_a_batch_are_asked_for_together(tmp_path: Path, cache: Path) -> None:
    write_split(tmp_path / "small", 4)
    with FileServer(tmp_path / "small") as server:
        split = open_url(server, RANGES).split("valid")
        batches = maker(split, tmp_path)
        batches.lengths.of(np.arange(4))
        server.faults["valid-000000.tar"] = ["meet"] * 4
        (batch,) = batches.divided(Visits(np.arange(4), np.zeros(4, dtype=np.int64)))
    assert batch.keys == ("k0", "k1", "k2", "k3")
    assert split.traffic.retries == 0


def test_what_the_reading_thread_meets_is_raised_to_the_trainer(
    tmp_path: Path, cache: Path
) -> None:
    """And is no bad sample: nothing is quarantined."""
    write_split(tmp_path / "small", 11)
    with FileServer(tmp_path / "small") as server:
        split = open_url(server, FETCH, attempts=2).split("valid")
        server.faults["valid-000001.tar"] = ["500"] * 9
        state = StreamState.start(7, split.fingerprint)
        with (
            TrainStream(maker(split, tmp_path), state, StepSize(11)) as stream,
            pytest.raises(UserError, match=r"valid-000001\.tar: given up after 2 attempts"),
        ):
            next(stream)
    assert not (tmp_path / "quarantine.jsonl").exists()


def start(server: FileServer, piece: int) -> subprocess.Popen[str]:
    """A process that reads the split."""
    command = [sys.executable, "-m", "tests.data_pipeline.shards.read_url"]
    return subprocess.Popen(
        [*command, str(server.url), str(piece)], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_fetch_a_shard_once(server: FileServer, folder: Path) -> None:
    expected = digest(open_dataset(folder).split("train"))
    server.faults[FIRST] = ["late"]
    readers = [start(server, 2**20) for _ in range(2)]
    assert [reader.communicate(timeout=300)[0].strip() for reader in readers] == [expected] * 2
    assert [server.count(f"train-{number:06d}.tar") for number in range(3)] == [1, 1, 1]


def test_a_killed_process_leaves_nothing_in_the_way(
    server: FileServer, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults[FIRST] = ["", "", "stall"]
    reader = start(server, 4096)
    partial = cache / f"{open_dataset(folder).info.shards[0].sha256}.tar.tmp"
    deadline = time.monotonic() + 300
    while server.count(FIRST) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    reader.kill()
    reader.wait()
    assert partial.stat().st_size == 2 * 4096
    monkeypatch.setattr(remote_module, "PIECE", 4096)
    train = open_url(server, FETCH).split("train")
    assert digest(train) == digest(open_dataset(folder).split("train"))
    assert not partial.exists()
    assert kept(cache) == [".idx"] * 3 + [".tar"] * 3


def test_a_small_file_beside_the_dataset_is_read_as_far_as_is_asked(
    server: FileServer, folder: Path
) -> None:
    for dataset in (open_url(server, FETCH), open_dataset(folder)):
        (folder / "notes.jsonl").write_bytes(b"12345678")
        assert dataset.beside("notes.jsonl", 100) == b"12345678"
        assert dataset.beside("notes.jsonl", 3) == b"123"
        (folder / "notes.jsonl").unlink()
        assert dataset.beside("notes.jsonl", 100) is None
