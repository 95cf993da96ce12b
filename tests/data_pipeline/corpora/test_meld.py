"""MELD in its own layout, small: with videos and without."""

from collections import Counter
from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from tests.data_pipeline.corpora.test_labelled import read, write

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"
LINE = '1,"He\x92s here,  Joey",Ross,joy,positive,4,2\n'
TABLES: dict[str, str | bytes] = {
    f"meld/{part}_sent_emo.csv": HEADER + LINE for part in ("train", "dev", "test")
}


def test_control_characters_are_mended(tmp_path: Path) -> None:
    found = read("meld", write(tmp_path, TABLES))
    assert [one.split for one in found] == ["train", "valid", "test"]
    assert [one.key for one in found][1] == "valid-dia4-utt2"
    assert {one.text for one in found} == {"He’s here, Joey"}
    assert found[0].labels == {"emotion": "joy", "sentiment": "positive"}
    assert {one.media for one in found} == {None}


def test_videos_belong_to_the_part_of_their_folder(tmp_path: Path) -> None:
    videos: dict[str, str | bytes] = {
        "MELD.Raw/train/train_splits/dia4_utt2.mp4": b"",
        "MELD.Raw/dev_splits_complete/dia4_utt1.mp4": b"",
        "MELD.Raw/output_repeated_splits_test/dia4_utt2.mp4": b"",
        "MELD.Raw/latest/dia4_utt2.mp4": b"",
        "MELD.Raw/train/train_splits/._dia4_utt2.mp4": b"",
    }
    train, valid, test = read("meld", write(tmp_path, TABLES | videos))
    assert train.media == "MELD.Raw/train/train_splits/dia4_utt2.mp4"
    assert (valid.media, valid.text) == (None, "He’s here, Joey"), "text only: it has no video"
    assert test.media == "MELD.Raw/output_repeated_splits_test/dia4_utt2.mp4"


def test_a_video_that_was_cut_anew_goes_before_the_old_one(tmp_path: Path) -> None:
    again = "more/test/final_videos_testdia4_utt2.mp4"
    old = "output_repeated_splits_test/dia4_utt2.mp4"
    root = write(tmp_path, TABLES | {again: b"", old: b""})
    assert read("meld", root)[2].media == again


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the source has no train_sent_emo\.csv"):
        read("meld", tmp_path)
    write(tmp_path, TABLES | {"meld/dev_sent_emo.csv": HEADER.replace("Emotion", "Mood")})
    with pytest.raises(UserError, match=r"dev_sent_emo\.csv has no column 'Emotion'"):
        read("meld", tmp_path)
    write(tmp_path, TABLES | {"meld/test_sent_emo.csv": HEADER + "1,Hi,Ross\n"})
    with pytest.raises(UserError, match=r"line 2 of .*test_sent_emo\.csv has not as many columns"):
        read("meld", tmp_path)


@pytest.mark.corpora
def test_the_real_tables(shared: Path) -> None:
    found = read("meld", shared / "data" / "sog_text.tar.xz")
    assert Counter(one.split for one in found) == {"train": 9989, "valid": 1109, "test": 2610}
    assert not any("\x92" in (one.text or "") for one in found)
