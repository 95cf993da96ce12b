"""Reading by number, in any order, from several threads, and from datasets that are not whole."""

import gc
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.clip import JSON, BadSampleError
from data_pipeline.errors import UserError
from data_pipeline.shards import reader
from data_pipeline.shards.dataset import read_info
from data_pipeline.shards.index import Flaw, index_path, read_index, write_index
from data_pipeline.shards.reader import Split, open_dataset
from tests.data_pipeline.shards.samples import make_clips, same, write_clips

CLIPS = make_clips(10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_clips(tmp_path / "d", train=CLIPS, valid=make_clips(3, "v"))


@pytest.fixture
def split(folder: Path) -> Split:
    return open_dataset(folder).split("train")


def test_samples_are_the_clips_in_order(split: Split) -> None:
    assert len(split) == len(CLIPS)
    assert split.shard_sizes.tolist() == [4, 4, 2]
    for sample in (9, 0, 4, 3, 8, 7):
        assert same(split.read(sample), CLIPS[sample])
        assert split.read_text(sample) == CLIPS[sample].text
        record = split.read_record(sample)
        assert (record.words, record.speech) == (CLIPS[sample].words, None)
    assert split.location(5) == ("train-000001.tar", "c5")


def test_arrays_are_views_that_cannot_be_written(split: Split) -> None:
    speech = split.read(0).speech
    assert speech is not None
    assert not speech.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        speech[0, 0] = 1


def test_an_open_tar_costs_no_descriptor_and_goes_with_its_last_array(folder: Path) -> None:
    split = open_dataset(folder).split("train")
    before = len(os.listdir("/proc/self/fd"))
    clips = [split.read(sample) for sample in range(len(split))]
    assert len(os.listdir("/proc/self/fd")) == before
    assert mapped(folder) == len(split.shards) > 1
    kept = next(clip.face for clip in clips if clip.face is not None)
    expected = kept.copy()
    del clips, split
    gc.collect()
    assert mapped(folder) == 1
    np.testing.assert_array_equal(kept, expected)
    del kept
    assert mapped(folder) == 0


def mapped(folder: Path) -> int:
    """Files below a folder that are part of this process's memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return len({line.split()[-1] for line in lines if str(folder) in line})


def test_lengths_are_those_of_the_clips(split: Split) -> None:
    for shard, clips in enumerate((CLIPS[:4], CLIPS[4:8], CLIPS[8:])):
        lengths = split.lengths(shard)
        assert lengths.text_chars.tolist() == [len(clip.text or "") for clip in clips]
        assert lengths.face.tolist() == [0 if c.face is None else len(c.face) for c in clips]
        assert lengths.speech.tolist() == [0 if c.speech is None else len(c.speech) for c in clips]


def test_members_are_those_of_the_clips(split: Split) -> None:
    for shard, clips in enumerate((CLIPS[:4], CLIPS[4:8], CLIPS[8:])):
        expected = [
            [True, c.face is not None, c.expression is not None, c.speech is not None, False]
            for c in clips
        ]
        assert split.members(shard).tolist() == expected


@pytest.mark.parametrize(("tars", "samples"), [(1, 100), (100, 5)])
def test_threads_read_the_same_while_tars_are_closed(
    split: Split, monkeypatch: pytest.MonkeyPatch, tars: int, samples: int
) -> None:
    split.most_open = tars
    monkeypatch.setattr(reader, "MOST_INDEXED", samples)
    order = np.random.default_rng(0).integers(len(CLIPS), size=200).tolist()
    with ThreadPoolExecutor(4) as pool:
        clips = list(pool.map(split.read, order))
    assert all(same(clip, CLIPS[sample]) for clip, sample in zip(clips, order, strict=True))
    assert len(split._open) == 1


def test_the_fingerprint_is_that_of_the_content(folder: Path, tmp_path: Path) -> None:
    again = write_clips(tmp_path / "again", train=CLIPS)
    other = write_clips(tmp_path / "other", train=CLIPS[::-1])
    first, second, third = (open_dataset(one).split("train") for one in (folder, again, other))
    assert first.fingerprint == second.fingerprint != third.fingerprint
    assert first.fingerprint != open_dataset(folder).split("valid").fingerprint


def test_without_an_index_the_tar_is_enough(folder: Path) -> None:
    for tar in folder.glob("*.tar"):
        index_path(tar).unlink()
    split = open_dataset(folder).split("train")
    assert all(same(split.read(number), clip) for number, clip in enumerate(CLIPS))


def test_a_bad_sample_loses_no_other(folder: Path, split: Split) -> None:
    path = folder / "train-000001.tar"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"words"', b'"words\xff', 1))
    with pytest.raises(BadSampleError) as caught:
        split.read(4)
    assert caught.value.member == JSON
    assert same(split.read(5), CLIPS[5])
    with pytest.raises(
        UserError, match=r"train-000001\.tar was changed: its sha256 is [0-9a-f]{64}"
    ):
        split.verify()


def test_samples_that_a_tar_lost_keep_their_numbers(folder: Path) -> None:
    """The index is gone, too, and a damaged header makes the new one shorter."""
    path = folder / "train-000000.tar"
    index_path(path).unlink()
    content = bytearray(path.read_bytes())
    at = content.index(b"c3.json")
    content[at : at + 100] = bytes(100)
    path.write_bytes(content)
    split = open_dataset(folder).split("train")
    assert same(split.read(0), CLIPS[0])
    assert same(split.read(4), CLIPS[4])
    with pytest.raises(BadSampleError):
        split.read(3)
    assert len(split.lengths(0).face) == 4
    assert split.location(3)[0] == path.name


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf8")), **changes}), "utf8")


def test_bad_datasets_are_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    def message(place: Path, split: str = "train") -> str:
        with pytest.raises(UserError) as caught:
            open_dataset(place).split(split)
        text = str(caught.value)
        assert "\n" not in text
        return text

    assert "memo data build" in message(tmp_path / "nothing")
    assert "its splits are: train, valid" in message(folder, "test")
    (folder / "train-000000.tar").unlink()
    assert "train-000000.tar is missing" in message(folder)
    _edit(folder, format="memo-dataset/9")
    assert "format" in message(folder)
    (folder / "dataset.json").write_text("{")
    assert "no memo-dataset/1" in message(folder)


@pytest.mark.parametrize("name", ["../x.tar", "/x.tar", "x.zip"])
def test_a_shard_lies_in_the_folder(folder: Path, name: str) -> None:
    shard = {"name": name, "split": "train", "samples": 1, "bytes": 1, "sha256": "0" * 64}
    _edit(folder, shards=[shard])
    with pytest.raises(UserError, match=r"shards\.0\.name"):
        open_dataset(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"samples": -1},
        {"samples": 1.5},
        {"bytes": 0},
        {"sha256": "0" * 63},
        {"sha256": "F" * 64},
        {"split": "../x"},
        {"name": None},
        {"more": 1},
    ],
    ids=str,
)
def test_an_entry_of_another_form_is_refused(folder: Path, change: dict[str, object]) -> None:
    shard = {"name": "a.tar", "split": "train", "samples": 1, "bytes": 10240, "sha256": "0" * 64}
    for bad in ({**shard, **change}, list(shard.values()), {"name": "a.tar"}, None):
        _edit(folder, shards=[shard, bad])
        with pytest.raises(UserError, match=r"no memo-dataset/1: shards\.1"):
            open_dataset(folder)


def test_more_samples_than_a_tar_can_hold_are_refused(folder: Path) -> None:
    """Tables of this length would be made."""
    shard = {"name": "a.tar", "split": "train", "bytes": 10240, "sha256": "0" * 64}
    _edit(folder, shards=[{**shard, "samples": 10}])
    assert open_dataset(folder).info.shards[0].samples == 10
    _edit(folder, shards=[{**shard, "samples": 11}])
    with pytest.raises(UserError, match="11 samples are more than 10240 bytes can hold"):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda speech: speech["mean"].pop(), "mean has 4 numbers for 5 columns"),
        (lambda speech: speech.update(dim=6), "mean has 5 numbers for 6 columns"),
        (lambda speech: speech["std"].__setitem__(0, float("nan")), "finite number"),
    ],
)
def test_statistics_that_fit_no_rows_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    features = json.loads((folder / "dataset.json").read_text("utf8"))["features"]
    change(features["speech"])
    _edit(folder, features=features)
    with pytest.raises(UserError, match=message):
        open_dataset(folder)


def test_rows_must_be_those_of_the_dataset(folder: Path) -> None:
    for number, change in enumerate([{"speech": None}, {"face": None}]):
        features = json.loads((folder / "dataset.json").read_text("utf8"))["features"]
        _edit(folder, features={**features, **change})
        with pytest.raises(BadSampleError, match=r"has rows of \d, dataset.json says 0") as caught:
            open_dataset(folder).split("train").read(0)
        assert caught.value.member == ("speech.npy", "face.npy")[number]
        _edit(folder, features=features)


def test_the_reason_of_a_broken_sample_stands_in_the_index(folder: Path) -> None:
    """What was wrong with it when the index was written is told without looking for it again."""
    tar = folder / "train-000000.tar"
    tar.write_bytes(tar.read_bytes().replace(b"c1.speech.npy", b"c1.speech.npz", 1))
    _reheader(tar, b"c1.speech.npz")
    write_index(tar, read_info(folder).shards[0].sha256)
    index = read_index(tar, read_info(folder).shards[0])
    assert index.flaws[1] == Flaw(
        "speech.npz", "unknown member (known are json, face.npy, expression.npy, speech.npy, jpg)"
    )
    with pytest.raises(BadSampleError, match=r"speech\.npz: unknown member"):
        open_dataset(folder).split("train").read(1)


def test_the_record_of_a_sample_with_bad_rows_can_be_read(folder: Path) -> None:
    """Labels and texts are read of all samples, before anything is trained on."""
    tar = folder / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    at = content.index(b"c1.speech.npy") + 512 + 128
    content[at : at + 2] = np.float16(np.nan).tobytes()
    tar.write_bytes(content)
    write_index(tar, read_info(folder).shards[0].sha256)
    split = open_dataset(folder).split("train")
    assert split.read_text(1) == CLIPS[1].text
    with pytest.raises(BadSampleError, match=r"speech\.npy: holds NaN"):
        split.read(1)


def _reheader(tar: Path, name: bytes) -> None:
    """Make the checksum of a header right."""
    content = bytearray(tar.read_bytes())
    at = content.index(name)
    content[at + 148 : at + 156] = b" " * 8
    content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    tar.write_bytes(content)


def test_an_empty_split_is_refused(folder: Path) -> None:
    _edit(folder, shards=[])
    with pytest.raises(UserError, match="no samples in split 'train'; its splits are: none"):
        open_dataset(folder).split("train")
