from pathlib import Path

from data_pipeline.preview.clips import sample_clips
from data_pipeline.shards.reader import open_dataset
from tests.data_pipeline.shards.samples import make_clips, same, write_clips
from tests.data_pipeline.small_dataset import write_split


def test_clips_are_drawn_by_the_seed_from_all_splits(tmp_path: Path) -> None:
    clips = {clip.key: clip for clip in (*make_clips(30), *make_clips(30, "v"))}
    folder = write_clips(
        tmp_path / "d",
        train=[clip for key, clip in clips.items() if key[0] == "c"],
        valid=[clip for key, clip in clips.items() if key[0] == "v"],
    )
    dataset = open_dataset(folder)
    drawn = [list(sample_clips(dataset, 8, seed)) for seed in (1, 1, 2)]
    keys = [[one.key for one in some] for some in drawn]
    assert keys[0] == keys[1] != keys[2]
    for one in drawn[0]:
        assert one.clip is not None
        assert same(one.clip, clips[one.key])
        assert one.split == ("valid" if one.key[0] == "v" else "train")
        assert one.shard.startswith(one.split)
    assert len(set(keys[0])) == 8
    assert {one.split for one in drawn[0]} == {"train", "valid"}


def test_all_clips_are_taken_of_a_small_dataset_and_broken_ones_say_why(tmp_path: Path) -> None:
    write_split(tmp_path / "d", 6, bad=(4,))
    drawn = list(sample_clips(open_dataset(tmp_path / "d"), 100, seed=3))
    assert [one.key for one in drawn] == [f"k{number}" for number in range(6)]
    assert [one.key for one in drawn if one.clip is None] == ["k4"]
    assert drawn[4].problem.startswith("speech.npy: ")
