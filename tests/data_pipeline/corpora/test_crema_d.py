"""CREMA-D in its own layout, small."""

from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from tests.data_pipeline.corpora.test_labelled import read, write

ACTORS = '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","Caucasian","Not Hispanic"\n'
FILES: dict[str, str | bytes] = {
    "AudioWAV/1001_DFA_ANG_XX.wav": b"",
    "AudioMP3/1001_DFA_ANG_XX.mp3": b"",
    "VideoFlash/1001_DFA_ANG_XX.flv": b"",
    "AudioWAV/1001_IEO_HAP_HI.wav": b"",
    "AudioMP3/1001_IEO_HAP_HI.mp3": b"",
    "AudioWAV/1040_ITH_SAD_X.wav": b"",
    "VideoDemographics.csv": ACTORS,
    "SentenceFilenames.csv": "Stimulus_Number,Filename\n",
}


def test_names_tell_what_a_clip_is(tmp_path: Path) -> None:
    first, second, third = read("crema_d", write(tmp_path, FILES))
    assert (first.key, first.media) == ("1001_DFA_ANG_XX", "VideoFlash/1001_DFA_ANG_XX.flv")
    assert (first.speaker, first.session, first.language) == ("1001", "", "en")
    assert first.text == "Don't forget a jacket."
    assert first.labels == {"emotion": "anger", "sex": "male", "age": 51}
    assert second.media == "AudioWAV/1001_IEO_HAP_HI.wav", "there is no video"
    assert second.labels == {"emotion": "happy", "intensity": "high", "sex": "male", "age": 51}
    assert (third.key, third.labels) == ("1040_ITH_SAD_XX", {"emotion": "sad"})


def test_a_clip_whose_sound_is_misspelt_is_one_clip(tmp_path: Path) -> None:
    video: dict[str, str | bytes] = {"VideoFlash/1040_ITH_SAD_XX.mp4": b""}
    found = read("crema_d", write(tmp_path, FILES | video))
    assert [one.media for one in found][2:] == ["VideoFlash/1040_ITH_SAD_XX.mp4"]
    assert found[2].key == "1040_ITH_SAD_XX"


def test_without_its_table_nothing_is_known_of_the_actors(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    (tmp_path / "VideoDemographics.csv").unlink()
    assert read("crema_d", tmp_path)[0].labels == {"emotion": "anger"}


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the source has no VideoFlash/\*\.flv and no AudioWAV"):
        read("crema_d", tmp_path)
    write(tmp_path, {**FILES, "VideoDemographics.csv": ACTORS.replace("51", "old")})
    with pytest.raises(UserError, match=r"VideoDemographics\.csv has Age='old' of actor 1001"):
        read("crema_d", tmp_path)
    write(tmp_path, {**FILES, "AudioWAV/1001_DFA_JOY_XX.wav": b""})
    with pytest.raises(UserError, match=r"AudioWAV/1001_DFA_JOY_XX\.wav is not named <actor>"):
        read("crema_d", tmp_path)
