"""Datasets are whole or not there, the same bytes for the same clips, and plain WebDataset."""

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset

from data_pipeline.clip import MOST_BYTES, Clip, clip_members
from data_pipeline.errors import UserError
from data_pipeline.shards import writer
from data_pipeline.shards.dataset import FeatureSchema, read_info
from data_pipeline.shards.index import file_sha256
from data_pipeline.shards.writer import RowStatistics
from tests.data_pipeline.shards.samples import make_clips, write_clips


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_and_their_description(tmp_path: Path) -> None:
    out = write_clips(tmp_path / "d", train=make_clips(9), valid=make_clips(2, "v"))
    info = read_info(out)
    assert [(shard.name, shard.split, shard.samples) for shard in info.shards] == [
        ("train-000000.tar", "train", 4),
        ("train-000001.tar", "train", 4),
        ("train-000002.tar", "train", 1),
        ("valid-000000.tar", "valid", 2),
    ]
    assert info.splits == ("train", "valid")
    for shard in info.shards:
        assert shard.bytes == (out / shard.name).stat().st_size
        assert shard.sha256 == file_sha256(out / shard.name)
    expected = {
        name.replace("tar", ext) for name in [s.name for s in info.shards] for ext in ("tar", "idx")
    }
    assert set(_files(out)) == expected | {"dataset.json"}
    assert list(tmp_path.iterdir()) == [out]


def test_the_same_clips_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_clips(tmp_path / name, train=make_clips(6)) for name in "ab")
    assert _files(first) == _files(second)


def test_webdataset_alone_reads_the_tars(tmp_path: Path) -> None:
    clips = make_clips(4)
    out = write_clips(tmp_path / "d", train=clips)
    samples = list(webdataset.WebDataset(str(out / "train-000000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [clip.key for clip in clips]
    for sample, clip in zip(samples, clips, strict=True):
        members = {name: value for name, value in sample.items() if not name.startswith("__")}
        assert members == dict(clip_members(clip))


def test_owner_and_time_are_nobodys(tmp_path: Path) -> None:
    out = write_clips(tmp_path / "d", train=make_clips(2))
    with tarfile.open(out / "train-000000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")


def test_statistics_are_those_of_the_train_rows_in_which_something_was_seen(tmp_path: Path) -> None:
    clips = make_clips(6)
    face = clips[0].face
    assert face is not None
    clips[0] = replace(clips[0], face=np.vstack([face[:-1], np.zeros_like(face[:1])]))
    out = write_clips(tmp_path / "d", train=clips, valid=make_clips(3, "v"))
    schema = read_info(out).features
    assert schema.face is not None
    assert schema.speech is not None
    faces = np.concatenate([clip.face for clip in clips if clip.face is not None]).astype(float)
    faces = faces[faces.any(axis=1)]
    speech = np.concatenate([clip.speech for clip in clips if clip.speech is not None])
    np.testing.assert_allclose(schema.face.mean, faces.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(schema.face.std, faces.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(schema.speech.mean, speech.astype(float).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(schema.speech.std, speech.astype(float).std(axis=0), rtol=1e-5)


def test_without_rows_the_statistics_change_nothing() -> None:
    empty = RowStatistics(3)
    assert empty.mean.tolist() == [0, 0, 0]
    assert empty.std.tolist() == [1, 1, 1]


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> "list[Clip]":
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clips(tmp_path / "d", train=make_clips(9), valid=(clip for clip in interrupted()))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_no_dataset_and_no_hindrance(tmp_path: Path) -> None:
    left = tmp_path / "d.writing"
    left.mkdir()
    (left / "train-000000.tar").write_bytes(b"half")
    out = write_clips(tmp_path / "d", train=make_clips(1), valid=make_clips(1, "v"))
    assert len(read_info(out).shards) == 2
    assert list(tmp_path.iterdir()) == [out]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    out = write_clips(tmp_path / "d", train=make_clips(1))
    with pytest.raises(UserError, match="exists already"):
        write_clips(out, train=make_clips(1))


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "..", "a\nb", "a\0"])
def test_keys_that_would_not_come_back_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="cannot be a key"):
        write_clips(tmp_path / "d", train=[Clip(key)])


def test_a_key_comes_once_in_all_splits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two clips"):
        write_clips(tmp_path / "d", train=make_clips(1), valid=make_clips(1))


NINE = np.zeros((2, 9), np.float16)


@pytest.mark.parametrize(
    "clip", [Clip("k", face=NINE), Clip("k", expression=NINE), Clip("k", speech=NINE)]
)
def test_rows_that_do_not_fit_the_schema_are_refused(tmp_path: Path, clip: Clip) -> None:
    with pytest.raises(ValueError, match=r"rows are \(2, 9\), the schema says"):
        write_clips(tmp_path / "d", train=[clip])


def test_long_and_foreign_keys_come_back(tmp_path: Path) -> None:
    keys = ["k" * 180, "한국어", "with space"]
    out = write_clips(tmp_path / "d", train=[Clip(key, "hi") for key in keys])
    samples = webdataset.WebDataset(str(out / "train-000000.tar"), shardshuffle=False)
    assert [sample["__key__"] for sample in samples] == keys


@pytest.mark.parametrize("split", ["../x", "", "a/b", ".."])
def test_a_split_cannot_lead_elsewhere(tmp_path: Path, split: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a split"):
        write_clips(tmp_path / "d", 4, **{split: make_clips(1)})
    out = write_clips(tmp_path / "d", train=make_clips(1))
    path = out / "dataset.json"
    path.write_text(path.read_text().replace('"split": "train"', f'"split": "{split}"'))
    with pytest.raises(UserError, match=r"shards\.0\.split"):
        read_info(out)


def test_rows_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    for value in (np.nan, 1e6):
        rows = np.full((2, 5), value, np.float32)
        with pytest.raises(ValueError, match="speech rows are not finite"):
            write_clips(tmp_path / "d", train=[Clip("c", speech=rows)])  # type: ignore[arg-type]


def test_what_could_not_be_read_again_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'c' has more than 16 MiB"):
        write_clips(tmp_path / "d", train=[Clip("c", image=bytes(MOST_BYTES))])
    with pytest.raises(ValueError, match="cannot be a key: it is empty or too long"):
        write_clips(tmp_path / "d", train=[Clip("c" * 256, text="a")])
    assert list(tmp_path.iterdir()) == []


def test_after_an_error_at_the_end_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_sync_files", full)
    with pytest.raises(OSError, match="No space"):
        write_clips(tmp_path / "d", train=make_clips(2))
    assert list(tmp_path.iterdir()) == []


def test_what_no_clip_has_is_not_in_the_schema(tmp_path: Path) -> None:
    out = write_clips(tmp_path / "d", train=[Clip("c", text="a")])
    assert read_info(out).features == FeatureSchema()
