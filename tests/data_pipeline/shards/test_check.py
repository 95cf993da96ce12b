"""Each thing that can be wrong with a dataset is found and named; nothing else is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.clip import Clip
from data_pipeline.errors import UserError
from data_pipeline.shards.check import check_dataset, describe
from data_pipeline.shards.dataset import read_info
from data_pipeline.shards.index import file_sha256, index_path, read_index, write_index
from data_pipeline.shards.reader import open_dataset
from data_pipeline.shards.repair import repair_dataset
from tests.data_pipeline.shards.samples import make_clips, write_clips

FIRST = "train-000000.tar"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_clips(tmp_path / "d", train=make_clips(6), valid=make_clips(2, "v"))


def _edit(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "dataset.json"
    path.write_text(change(path.read_text("utf8")), "utf8")


def _accept(folder: Path) -> None:
    """Make size, hash and index fit a changed first tar."""
    record = json.loads((folder / "dataset.json").read_text("utf8"))
    sha256 = file_sha256(folder / FIRST)
    write_index(folder / FIRST, sha256)
    record["shards"][0].update(sha256=sha256, bytes=(folder / FIRST).stat().st_size)
    (folder / "dataset.json").write_text(json.dumps(record), "utf8")


def _lines(folder: Path) -> list[str]:
    return [str(problem) for problem in check_dataset(folder)]


def test_a_whole_dataset_has_no_problem(folder: Path) -> None:
    assert list(check_dataset(folder)) == []


def test_without_dataset_json_there_is_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        check_dataset(tmp_path)


def test_a_missing_and_an_empty_tar(folder: Path) -> None:
    (folder / FIRST).unlink()
    (folder / "valid-000000.tar").write_bytes(b"")
    assert _lines(folder) == [
        f"{FIRST}: is missing or empty",
        "valid-000000.tar: is missing or empty",
    ]


def test_a_cut_tar(folder: Path) -> None:
    path = folder / FIRST
    content = path.read_bytes()
    cut = content.index(b"c2.speech.npy")
    path.write_bytes(content[: cut + 512])
    sample = content.index(b"c2.json")
    assert _lines(folder) == [
        f"{FIRST}, byte {cut:,}: the tar is damaged or cut off here",
        f"{FIRST}, c2, byte {sample:,}: may have lost members: the tar is damaged or cut off at "
        f"byte {cut}",
        f"{FIRST}: has {cut + 512:,} bytes, dataset.json says {len(content):,}",
        f"{FIRST}: has 3 samples, dataset.json says 4",
        f"{FIRST}, c3, byte {content.index(b'c3.json'):,}: is lost",
    ]


def test_a_changed_tar(folder: Path) -> None:
    path = folder / FIRST
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"en"', b'"de"', 1))
    whole, sample = _lines(folder)
    assert whole.startswith(f"{FIRST}: was changed: its sha256 is {file_sha256(path)}")
    assert sample == (
        f"{FIRST}, c0, json, byte 0: was changed since it was written: its checksum differs"
    )


def test_a_padding_that_was_changed_harms_no_sample(folder: Path) -> None:
    path = folder / FIRST
    content = bytearray(path.read_bytes())
    content[content.index(b"c0.face.npy") - 1] ^= 1
    path.write_bytes(content)
    assert [one.key for one in check_dataset(folder)] == [""]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is missing"),
        (b"", "is damaged"),
        (
            b"memoidx1",
            "is of the older format memoidx1, which has no checksums; 'memo data repair' writes "
            "the dataset with new ones",
        ),
    ],
)
def test_a_bad_index(folder: Path, content: bytes | None, reason: str) -> None:
    index = index_path(folder / FIRST)
    index.unlink()
    if content is not None:
        index.write_bytes(content)
    assert _lines(folder) == [f"{FIRST}: its index train-000000.idx {reason}"]
    if content:
        repair_dataset(folder, folder / "repaired")
        assert _lines(folder / "repaired") == []
        assert (folder / "repaired" / FIRST).read_bytes() == (folder / FIRST).read_bytes()


def test_an_index_that_says_something_else(folder: Path) -> None:
    """Valid in itself, but two samples are exchanged: each would be read as the other."""
    path = folder / FIRST
    sha256 = file_sha256(path)
    index = read_index(path, read_info(folder).shards[0])
    order = np.array([1, 0, *range(2, len(index))])
    wrong = replace(index, offsets=index.offsets[order], sizes=index.sizes[order])
    index_path(path).write_bytes(wrong.to_bytes(sha256))
    (line,) = _lines(folder)
    assert line == f"{FIRST}: its index train-000000.idx does not say what is in the tar"


def test_a_broken_member(folder: Path) -> None:
    path = folder / FIRST
    content = path.read_bytes()
    at = content.index(b"\x93NUMPY", content.index(b"c1.speech.npy"))
    path.write_bytes(content[:at] + b"\x93NUMPX" + content[at + 6 :])
    _accept(folder)
    problems = list(check_dataset(folder))
    assert {(one.shard, one.key, one.member) for one in problems} == {(FIRST, "c1", "speech.npy")}
    assert {one.reason for one in problems} == {"not a version 1.0 npy file"}


def test_rows_of_another_dimension(folder: Path) -> None:
    info = json.loads((folder / "dataset.json").read_text("utf8"))
    info["features"]["speech"].update(dim=4, mean=[], std=[])
    _edit(folder, lambda _: json.dumps(info))
    problems = list(check_dataset(folder))
    assert len(problems) == 8
    assert str(problems[0]) == (
        f"{FIRST}, c0, speech.npy, byte 3,072: has rows of 5, dataset.json says 4"
    )


@pytest.mark.parametrize(
    ("row", "fine"), [([0.5, 0.5], True), ([0, 0], True), ([0.5, 0.6], False), ([1.5, -0.5], False)]
)
def test_posteriors(tmp_path: Path, row: list[float], fine: bool) -> None:
    face, expression = np.ones((2, 6), np.float16), np.array([[1, 0], row], np.float16)
    clip = Clip("k", "hi", face=face, expression=expression)
    folder = write_clips(tmp_path / "d", train=[clip])
    assert [one.member for one in check_dataset(folder)] == ([] if fine else ["expression.npy"])


def test_a_key_in_two_shards_and_a_tar_that_is_not_listed(folder: Path, tmp_path: Path) -> None:
    other = write_clips(tmp_path / "other", train=make_clips(4))
    (folder / "extra.tar").write_bytes((other / FIRST).read_bytes())
    assert _lines(folder) == ["extra.tar: dataset.json lacks it"]
    record = json.loads((folder / "dataset.json").read_text("utf8"))
    record["shards"].append({**record["shards"][0], "name": "extra.tar"})
    (folder / "dataset.json").write_text(json.dumps(record), "utf8")
    write_index(folder / "extra.tar", file_sha256(folder / "extra.tar"))
    lines = _lines(folder)
    assert len(lines) == 4
    assert lines[0] == f"extra.tar, c0, byte 0: {FIRST} has this key, too"


def test_description(tmp_path: Path) -> None:
    clips = [*make_clips(4), replace(Clip("x", "one two three"), duration_s=3600)]
    lines = describe(open_dataset(write_clips(tmp_path / "d", train=clips)))
    assert lines["licence"] == "CC0-1.0"
    assert lines["face"] == "6 numbers, 10 a second, f"
    assert lines["speech"] == "5 numbers, 16.67 a second, s"
    assert lines["train: clips"] == "5"
    assert lines["train: hours"] == "1.00"
    assert lines["train: words"] == str(1 + 2 + 3 + 1 + 3)
    assert lines["train: speakers"] == "2"
    assert lines["train: languages"] == "en 4, unknown 1"
    assert lines["train: face rows"] == "in 60% of the clips, mean 3.0, longest 4"
    assert lines["train: speech rows"] == "in 80% of the clips, mean 4.5, longest 6"


def test_what_faces_texts_and_words_are_from_is_described(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "d", train=make_clips(2))
    info = json.loads((folder / "dataset.json").read_text("utf8"))
    info["features"]["face"].update(detector="yunet", detector_sha256="0")
    models = (("recognise", "whisper"), ("align", "ctc"), ("align", "pocketsphinx"))
    info["transcribers"] = [{"task": task, "name": name, "sha256": "0"} for task, name in models]
    (folder / "dataset.json").write_text(json.dumps(info), "utf8")
    lines = describe(open_dataset(folder))
    assert lines["face"] == "6 numbers, 10 a second, f, found by yunet"
    assert (lines["texts"], lines["word times"]) == ("of whisper", "of ctc and pocketsphinx")
