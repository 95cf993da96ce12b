"""What is saved of a damaged dataset, what is said of the rest; nothing else is touched."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faults import SHARD
from benchmarks.small_data import KEYS, write_small
from benchmarks.tars import Part, join_tar, member, npy, split_tar
from data_pipeline.clip import MEMBERS, MOST_BYTES, Clip
from data_pipeline.errors import UserError
from data_pipeline.shards import writer
from data_pipeline.shards.check import check_dataset
from data_pipeline.shards.dataset import FILE, read_info
from data_pipeline.shards.index import file_sha256, index_path, write_index
from data_pipeline.shards.reader import open_dataset
from data_pipeline.shards.repair import REPORT, RepairReport, repair_dataset
from data_pipeline.shards.tokenizer import MOST_TOKENIZER
from tests.data_pipeline.shards.samples import make_clips, same, write_clips


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_small(tmp_path / "data")


def _edit(folder: Path, change: Callable[[list[Part]], list[Part]], indexed: bool) -> None:
    """Change the members of the first tar; without an index nothing else knows them."""
    tar = folder / SHARD
    tar.write_bytes(join_tar(change(split_tar(tar.read_bytes()))))
    if not indexed:
        index_path(tar).unlink()


def _without(*names: str) -> Callable[[list[Part]], list[Part]]:
    return lambda parts: [part for part in parts if part.name not in names]


def _with(name: str, content: bytes) -> Callable[[list[Part]], list[Part]]:
    return lambda parts: [member(name, content) if one.name == name else one for one in parts]


def _members(folder: Path) -> dict[str, bytes]:
    """Every member of every tar by name."""
    return {
        part.name: part.content
        for tar in sorted(folder.glob("*.tar"))
        for part in split_tar(tar.read_bytes())
    }


def _lines(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / REPORT).read_text("utf8").splitlines()]


def _totals(report: RepairReport) -> tuple[int, int, int, int]:
    counts = (report.whole, report.joined, report.cut, report.dropped)
    whole, joined, cut, dropped = (count.total() for count in counts)
    return whole, joined, cut, dropped


def test_a_whole_dataset_is_the_same_again(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "d", train=make_clips(9), valid=make_clips(3, "v"))
    report = repair_dataset(folder, tmp_path / "out")
    assert _totals(report) == (12, 0, 0, 0)
    assert (tmp_path / "out" / REPORT).read_bytes() == b""
    (tmp_path / "out" / REPORT).unlink()
    files = [
        {one.name: one.read_bytes() for one in at.iterdir()} for at in (folder, tmp_path / "out")
    ]
    assert files[0] == files[1]


def test_what_the_writer_would_write_otherwise_is_kept_bit_for_bit(
    folder: Path, tmp_path: Path
) -> None:
    """Rows in float32, and a record with a field that no clip has, in another order."""
    rows = npy(np.full((30, 5), 1.5, np.float32))
    text = b'{"text": "so",   "more": 1}'
    _edit(folder, _with("k0.speech.npy", rows), indexed=False)
    _edit(folder, _with("k0.json", text), indexed=True)
    assert _totals(repair_dataset(folder, tmp_path / "out")) == (8, 0, 0, 0)
    assert _members(tmp_path / "out") == _members(folder)
    assert not list(check_dataset(tmp_path / "out"))


NAN = npy(np.full((31, 5), np.nan, np.float16))
FACES = npy(np.ones((3, 6), np.float16))


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    ("change", "gone", "action"),
    [
        (_with("k1.speech.npy", NAN), {"speech.npy"}, "cut"),
        (_with("k1.face.npy", NAN), {"face.npy", "expression.npy"}, "cut"),
        (_with("k1.expression.npy", NAN), {"expression.npy"}, "cut"),
        (_with("k1.face.npy", FACES), {"face.npy", "expression.npy"}, "cut"),
        (_without("k1.face.npy"), {"face.npy", "expression.npy"}, "cut"),
        (_with("k1.json", b"{"), {*MEMBERS}, "dropped"),
        (_without("k1.json"), {*MEMBERS}, "dropped"),
    ],
    ids=["speech", "face", "expression", "faces and classes", "no face", "json", "no json"],
)
def test_a_sample_is_kept_without_what_it_has_lost(
    change: Callable[[list[Part]], list[Part]],
    gone: set[str],
    action: str,
    indexed: bool,
    folder: Path,
    tmp_path: Path,
) -> None:
    before = _members(folder)
    _edit(folder, change, indexed)
    repair_dataset(folder, tmp_path / "out")
    lost = {f"k1.{suffix}" for suffix in gone}
    kept = {name: content for name, content in before.items() if name not in lost}
    assert _members(tmp_path / "out") == kept
    lines = _lines(tmp_path / "out")
    assert {(one["shard"], one["key"], one["action"]) for one in lines} == {(SHARD, "k1", action)}
    assert all(one["reason"] for one in lines)
    assert not list(check_dataset(tmp_path / "out"))


def test_members_that_stood_apart_are_brought_together(folder: Path, tmp_path: Path) -> None:
    """As in a tar that was packed with all records before all rows."""
    before = _members(folder)
    _edit(folder, lambda parts: sorted(parts, key=lambda part: part.name.split(".")[1:]), False)
    assert _totals(repair_dataset(folder, tmp_path / "out")) == (4, 4, 0, 0)
    assert _members(tmp_path / "out") == before
    assert {one["action"] for one in _lines(tmp_path / "out")} == {"joined"}


def test_with_the_index_of_before_nothing_is_lost_with_a_header(
    folder: Path, tmp_path: Path
) -> None:
    """Every header of the tar is gone; the index knows where everything was."""
    before = _members(folder)
    tar = folder / SHARD
    content = bytearray(tar.read_bytes())
    at = 0
    for part in split_tar(bytes(content)):
        content[at : at + len(part.header)] = bytes(len(part.header))
        at += len(part.raw)
    tar.write_bytes(content)
    assert _totals(repair_dataset(folder, tmp_path / "out")) == (8, 0, 0, 0)
    assert _members(tmp_path / "out") == before


def test_with_the_index_of_before_members_are_found_where_they_now_are(
    folder: Path, tmp_path: Path
) -> None:
    before = _members(folder)
    _edit(folder, lambda parts: [member("k9.json", b"{}"), *parts], indexed=True)
    assert _totals(repair_dataset(folder, tmp_path / "out")) == (8, 0, 0, 0)
    assert _members(tmp_path / "out") == before
    (line,) = _lines(tmp_path / "out")
    assert (line["key"], line["action"]) == ("k9", "dropped")
    assert line["reason"] == "was not in the tar when its index was written"


def test_the_first_of_two_samples_of_one_key_is_kept(folder: Path, tmp_path: Path) -> None:
    second = folder / "train-000001.tar"
    parts = split_tar(second.read_bytes())
    renamed = [member(one.name.replace("k4.", "k0."), one.content) for one in parts]
    second.write_bytes(join_tar(renamed))
    _list_anew(folder, 1)
    before = _members(folder)
    assert _totals(repair_dataset(folder, tmp_path / "out")) == (7, 0, 0, 1)
    first = {part.name: part.content for part in split_tar((folder / SHARD).read_bytes())}
    assert _members(tmp_path / "out") == {**before, **first}
    (line,) = _lines(tmp_path / "out")
    assert (line["shard"], line["key"]) == (second.name, "k0")


def _list_anew(folder: Path, shard: int) -> None:
    info = json.loads((folder / FILE).read_text("utf8"))
    tar = folder / info["shards"][shard]["name"]
    sha256 = file_sha256(tar)
    info["shards"][shard].update(sha256=sha256, bytes=tar.stat().st_size)
    (folder / FILE).write_text(json.dumps(info), "utf8")
    write_index(tar, sha256)


@pytest.mark.parametrize("indexed", [True, False])
def test_what_a_cut_tar_has_lost_is_counted(indexed: bool, folder: Path, tmp_path: Path) -> None:
    tar = folder / SHARD
    content = tar.read_bytes()
    tar.write_bytes(content[: content.index(b"k2.json")])
    if not indexed:
        index_path(tar).unlink()
    report = repair_dataset(folder, tmp_path / "out")
    assert report.dropped == {"train": 2}
    keys = {one["key"] for one in _lines(tmp_path / "out") if one["action"] == "dropped"}
    assert keys == ({"k2", "k3"} if indexed else {""})
    assert "dropped: lost or cut off" in "\n".join(report.table())


@pytest.mark.parametrize(
    ("counted", "listed", "said"),
    [
        (3, 3, {}),
        (4, 3, {"": "1 samples are lost without a trace"}),
        (4, 4, {"": "1 samples are lost without a trace"}),
        (6, 4, {"": "3 samples are lost without a trace"}),
    ],
)
@pytest.mark.parametrize("state", ["listed", "listed, no index", "changed, no index"])
def test_strays_stand_for_no_sample_that_is_lost(
    state: str, counted: int, listed: int, said: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    """k1 is gone, and as many strays are there as samples."""
    strays = [member(f"s{number}.txt") for number in range(listed)]
    tar = folder / SHARD
    parts = [part for part in split_tar(tar.read_bytes()) if not part.name.startswith("k1.")]
    tar.write_bytes(join_tar([*strays, *parts]))
    if state != "changed, no index":
        _list_anew(folder, 0)
    if state != "listed":
        index_path(tar).unlink()
    info = json.loads((folder / FILE).read_text("utf8"))
    info["shards"][0]["samples"] = counted
    (folder / FILE).write_text(json.dumps(info), "utf8")
    report = repair_dataset(folder, tmp_path / "out")
    assert _totals(report) == (7, 0, 0, counted - 3)
    reasons = {one["key"]: one["reason"] for one in _lines(tmp_path / "out")}
    foreign = {f"s{number}" for number in range(listed)}
    assert foreign <= reasons.keys()
    assert {key: reason for key, reason in reasons.items() if key not in foreign} == said


def test_strays_that_an_index_knows_stand_for_no_sample(folder: Path, tmp_path: Path) -> None:
    """They come last in it; the tar was changed since, and k1 and a stray are gone."""
    tar = folder / SHARD
    parts = split_tar(tar.read_bytes())
    tar.write_bytes(join_tar([member("s0.txt"), member("s1.txt"), *parts]))
    _list_anew(folder, 0)
    left = [part for part in parts if not part.name.startswith("k1.")]
    tar.write_bytes(join_tar([member("s1.txt"), *left]))
    assert _totals(repair_dataset(folder, tmp_path / "out")) == (7, 0, 0, 1)
    assert {one["key"] for one in _lines(tmp_path / "out")} == {"k1", "s0", "s1"}


def test_a_sample_of_which_all_is_too_large_is_found(folder: Path, tmp_path: Path) -> None:
    large = member("k1.jpg", bytes(MOST_BYTES + 1))
    _edit(
        folder,
        lambda parts: [*(one for one in parts if not one.name.startswith("k1.")), large],
        indexed=False,
    )
    assert _totals(repair_dataset(folder, tmp_path / "out")) == (7, 0, 0, 1)
    (line,) = _lines(tmp_path / "out")
    assert (line["key"], line["fault"]) == ("k1", "too large")


@pytest.mark.parametrize("indexed", [True, False])
def test_what_a_shard_that_is_gone_held_is_named_if_known(
    indexed: bool, folder: Path, tmp_path: Path
) -> None:
    (folder / SHARD).unlink()
    if not indexed:
        index_path(folder / SHARD).unlink()
    assert _totals(repair_dataset(folder, tmp_path / "out")) == (4, 0, 0, 4)
    said = [(one["key"], one["reason"]) for one in _lines(tmp_path / "out")]
    keys = [(key, "its tar is missing") for key in KEYS[:4]]
    assert said == (keys if indexed else [("", "4 samples are lost without a trace")])
    assert [one.name for one in read_info(tmp_path / "out").shards] == [SHARD]


def test_statistics_are_of_what_was_kept(folder: Path, tmp_path: Path) -> None:
    _edit(folder, _with("k1.speech.npy", NAN), indexed=False)
    repair_dataset(folder, tmp_path / "out")
    split = open_dataset(tmp_path / "out").split("train")
    rows = [split.read(sample).speech for sample in range(len(KEYS))]
    speech = read_info(tmp_path / "out").features.speech
    assert speech is not None
    there = np.concatenate([one for one in rows if one is not None]).astype(float)
    np.testing.assert_allclose(speech.mean, there.mean(axis=0), rtol=1e-5)


def _tokenizer(folder: Path) -> dict[str, bytes]:
    files = (path for path in (folder / "tokenizer").rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_tokenizer_is_kept(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer" / "more").mkdir(parents=True)
    (folder / "tokenizer" / "tokenizer.model").write_bytes(b"pieces")
    (folder / "tokenizer" / "more" / "notes.txt").write_bytes(b"any")
    repair_dataset(folder, tmp_path / "out")
    expected = {"tokenizer/tokenizer.model": b"pieces", "tokenizer/more/notes.txt": b"any"}
    assert _tokenizer(tmp_path / "out") == expected == _tokenizer(folder)
    assert _lines(tmp_path / "out") == []
    assert not list(check_dataset(tmp_path / "out"))


def test_of_the_tokenizers_folder_nothing_but_files_is_kept(folder: Path, tmp_path: Path) -> None:
    """A dataset of others may hold links to anything, pipes without an end and huge files."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"secret")
    inside = folder / "tokenizer"
    inside.mkdir()
    (inside / "vocab.txt").symlink_to(secret / "key")
    (inside / "all").symlink_to(secret)
    (inside / "gone").symlink_to(tmp_path / "nothing")
    os.mkfifo(inside / "pipe")
    with (inside / "large").open("wb") as file:
        file.truncate(MOST_TOKENIZER + 1)
    (inside / "tokenizer.model").write_bytes(b"pieces")
    repair_dataset(folder, tmp_path / "out")
    assert _tokenizer(tmp_path / "out") == {"tokenizer/tokenizer.model": b"pieces"}
    lines = {one["member"]: one["reason"] for one in _lines(tmp_path / "out")}
    names = ("all", "gone", "pipe", "vocab.txt")
    assert lines == {
        "tokenizer/large": "has more than 64 MiB, which no tokenizer's file has",
        **{f"tokenizer/{name}": "not a regular file" for name in names},
    }


def test_a_link_to_a_tokenizer_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer").symlink_to(tmp_path)
    repair_dataset(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "tokenizer").exists()
    (line,) = _lines(tmp_path / "out")
    assert (line["member"], line["reason"]) == ("tokenizer", "not a regular file")


def test_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    before = _members(folder)
    for out in (folder, tmp_path):
        with pytest.raises(UserError, match="exists already"):
            repair_dataset(folder, out)
    left = folder.rename(tmp_path / "out.writing")
    with pytest.raises(UserError, match=r"would be written in .*out\.writing; give another name"):
        repair_dataset(left, tmp_path / "out")
    assert _members(left) == before


def test_where_nothing_can_be_saved_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    for tar in folder.glob("*.tar"):
        tar.write_bytes(b"")
    with pytest.raises(UserError, match=r"nothing of .* can be saved"):
        repair_dataset(folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("step", ["write_members", "add_file", "_finish"])
def test_an_interrupted_repair_leaves_nothing(
    step: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer.ShardWriter, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        repair_dataset(folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_killed_repair_leaves_no_dataset(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the folder got its name; the next repair begins anew."""
    monkeypatch.setattr(
        writer,
        "_sync_files",
        lambda _: shutil.copytree(tmp_path / "out.writing", tmp_path / "left"),
    )
    repair_dataset(folder, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "left").rename(tmp_path / "out.writing")
    monkeypatch.undo()
    assert _totals(repair_dataset(folder, tmp_path / "out")) == (8, 0, 0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_clips_without_faces_stay_as_they_are(tmp_path: Path) -> None:
    clips = [Clip("a", "one"), Clip("b", speech=np.ones((2, 5), np.float16))]
    folder = write_clips(tmp_path / "d", train=clips)
    assert _totals(repair_dataset(folder, tmp_path / "out")) == (2, 0, 0, 0)
    train = open_dataset(tmp_path / "out").split("train")
    assert all(same(train.read(at), clip) for at, clip in enumerate(clips))
