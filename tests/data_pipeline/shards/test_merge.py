from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.clip import Clip
from data_pipeline.errors import UserError
from data_pipeline.shards.dataset import FeatureSchema, SpeechSchema
from data_pipeline.shards.merge import merge_datasets
from data_pipeline.shards.reader import open_dataset
from data_pipeline.shards.writer import ShardWriter
from tests.data_pipeline.shards.samples import FEATURES, make_clips, same


def write(
    out: Path, name: str, features: FeatureSchema, splits: Mapping[str, Sequence[Clip]]
) -> Path:
    with ShardWriter(out, name=name, corpus=name, licence=name, features=features) as writer:
        for split, clips in splits.items():
            for clip in clips:
                writer.write(split, clip)
    return out


def faceless(clips: list[Clip]) -> list[Clip]:
    return [replace(clip, face=None, expression=None) for clip in clips]


def test_all_clips_are_there_split_by_split_with_their_datasets_name(tmp_path: Path) -> None:
    first = {"train": make_clips(5), "valid": make_clips(2, "v")}
    second = {"train": faceless(make_clips(3)), "test": faceless(make_clips(2, "t"))}
    one = write(tmp_path / "one", "one", FEATURES, first)
    two = write(tmp_path / "two", "two", FEATURES, second)
    counts = merge_datasets([one, two], tmp_path / "out")
    assert counts == {"train": 8, "valid": 2, "test": 2}
    merged = open_dataset(tmp_path / "out")
    assert (merged.info.name, merged.info.licence) == ("one+two", "one; two")
    expected = [replace(clip, key=f"one-{clip.key}") for clip in first["train"]]
    expected += [replace(clip, key=f"two-{clip.key}") for clip in second["train"]]
    train = merged.split("train")
    assert all(same(train.read(at), clip) for at, clip in enumerate(expected))
    assert merged.info.features.speech is not None
    rows = np.concatenate([clip.speech for clip in expected if clip.speech is not None])
    np.testing.assert_allclose(
        merged.info.features.speech.mean, rows.astype(float).mean(axis=0), rtol=1e-5
    )


def test_rows_of_different_encoders_are_not_mixed(tmp_path: Path) -> None:
    one = write(tmp_path / "one", "one", FEATURES, {"train": make_clips(3)})
    speech = SpeechSchema(dim=5, rows_per_s=50 / 3, encoder="s", encoder_sha256="2")
    other = FeatureSchema(face=FEATURES.face, speech=speech)
    two = write(tmp_path / "two", "two", other, {"train": make_clips(3)})
    expected = "the speech rows of two have encoder_sha256=2, those of one 1; build both"
    with pytest.raises(UserError, match=expected):
        merge_datasets([one, two], tmp_path / "out")
    with pytest.raises(UserError, match="are both called 'one'; give one another name, with"):
        merge_datasets([one, one], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_broken_clip_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    one = write(tmp_path / "one", "one", FEATURES, {"train": make_clips(3)})
    tar = one / "train-000000.tar"
    tar.write_bytes(tar.read_bytes().replace(b'"words"', b'"words\xff', 1))
    with pytest.raises(UserError, match=r"train-000000\.tar: clip c0 is broken"):
        merge_datasets([one], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]


def test_a_key_that_would_become_too_long_is_refused(tmp_path: Path) -> None:
    clips = [replace(clip, key="k" * 250) for clip in make_clips(1)]
    one = write(tmp_path / "one", "a-long-name", FEATURES, {"train": clips})
    with pytest.raises(UserError, match="would be a key of more than 255 characters"):
        merge_datasets([one], tmp_path / "out")
    assert not (tmp_path / "out").exists()
