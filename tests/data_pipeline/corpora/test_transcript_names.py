"""Names that subtitles have: of which video they are, in which language, and which are taken."""

from pathlib import Path

import pytest

from data_pipeline.corpora.assign import Assigned, assign
from data_pipeline.corpora.base import Recording
from data_pipeline.corpora.finder import Finder
from data_pipeline.corpora.source import open_source
from data_pipeline.errors import UserError


def assigned(root: Path, names: list[str], *languages: str, media: str = "t.mp4") -> Assigned:
    """Of these files, beside a video each."""
    for name in [*names, media]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    films = [Recording("t", "train", media), Recording("other", "train", "other.mp4")]
    return assign(open_source(root), Finder(films), languages, everything=False)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("t.srt", ""),
        ("t.mp4.srt", ""),
        ("t.en.srt", "en"),
        ("t.en.sdh.srt", "en"),
        ("t.SDH.en.srt", "en"),
        ("t.en.hi.srt", "en"),
        ("t.hi.srt", "hi"),
        ("t.hi.cc.srt", "hi"),
        ("t.cc.srt", ""),
        ("t.default.eng.srt", "en"),
        ("t.English.srt", "en"),
        ("t.Deutsch.vtt", "de"),
        ("t.pt-BR.srt", "pt"),
        ("t.pt_BR.srt", "pt"),
        ("t.zh-Hans.vtt", "zh"),
        ("t.en-orig.vtt", "en"),
        ("t.en-de.vtt", "en"),
        ("t.mis.srt", ""),
        ("t_en.srt", "en"),
        ("t-en.srt", "en"),
        ("t_en-US.srt", "en"),
        ("t - English.srt", "en"),
        ("t (English).srt", "en"),
        ("t [ko].sdh.srt", "ko"),
        ("t.mp4.en.json", "en"),
    ],
)
def test_names_that_are_of_the_video(tmp_path: Path, name: str, code: str) -> None:
    found = assigned(tmp_path, [name])
    assert found.transcripts["t"].name == name
    assert found.transcripts["t"].code == code
    assert not found.passed_over


@pytest.mark.parametrize(
    "name", ["t_two.srt", "t-part.srt", "t.v1.srt", "t.en.de.srt", "t2.srt", "en.srt", "t_.srt"]
)
def test_names_that_are_of_no_video(tmp_path: Path, name: str) -> None:
    found = assigned(tmp_path, [name, "t.srt"])
    assert found.transcripts["t"].name == "t.srt"
    assert found.passed_over == {"transcripts of no video": [name]}


def test_the_longest_name_of_a_video_is_meant(tmp_path: Path) -> None:
    (tmp_path / "t.en.mp4").touch()
    films = [Recording(key, "train", f"{key}.mp4") for key in ("t", "t.en")]
    for name in ("t.en.srt", "t.srt"):
        (tmp_path / name).touch()
    found = assign(open_source(tmp_path), Finder(films), (), everything=False)
    assert {key: one.name for key, one in found.transcripts.items()} == {
        "t": "t.srt",
        "t.en": "t.en.srt",
    }


@pytest.mark.parametrize(
    ("names", "languages", "chosen"),
    [
        (["t.srt", "t.en.srt", "t.de.srt"], (), "t.srt"),
        (["t.en.srt", "t.en-orig.vtt"], (), "t.en.srt"),
        (["t.en.srt", "t.en.sdh.srt", "t.en.cc.srt"], (), "t.en.srt"),
        (["t.en.srt", "t.en.vtt", "t.en.json"], (), "t.en.srt"),
        (["t.en.sdh.srt", "t.en.forced.srt"], (), "t.en.sdh.srt"),
        (["t.en.srt", "t.de.srt"], ("de",), "t.de.srt"),
        (["t.English.srt", "t.German.srt"], ("en",), "t.English.srt"),
        (["t.eng.srt", "t.ger.srt"], ("german",), "t.ger.srt"),
        (["t.en.srt", "t.srt"], ("en",), "t.en.srt"),
        (["t.de.srt", "t.srt"], ("en",), "t.srt"),
        (["t.en-GB.srt", "t.en-US.srt"], ("en-us",), "t.en-US.srt"),
        (["t.en_GB.srt", "t.en_US.srt"], ("en-us",), "t.en_US.srt"),
        (["t.en.srt", "t.en-orig.srt"], ("en-orig",), "t.en-orig.srt"),
        (["t.de.srt", "t.ko.srt"], ("en", "ko", "de"), "t.ko.srt"),
    ],
)
def test_which_of_several_is_taken(
    tmp_path: Path, names: list[str], languages: tuple[str, ...], chosen: str
) -> None:
    assert assigned(tmp_path, names, *languages).transcripts["t"].name == chosen


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["t.en-GB.srt", "t.en-US.srt"], r"t\.en-GB\.srt and t\.en-US\.srt .* --language en-gb"),
        (["t.de.vtt", "t.en.srt", "t.en.sdh.srt"], "would both be the transcript of t.mp4; say w"),
        (["t.srt", "t.mp4.srt"], "t.mp4.srt and t.srt .* of t.mp4; keep one, that of what is"),
    ],
)
def test_a_choice_that_is_open_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        assigned(tmp_path, names)


def test_all_choices_that_are_open_are_counted(tmp_path: Path) -> None:
    films = [Recording(key, "train", f"{key}.mp4") for key in "abc"]
    for name in [f"{key}.{code}.srt" for key in "abc" for code in ("de", "en")]:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"of a\.mp4 \(2 more have several\); say which"):
        assign(open_source(tmp_path), Finder(films), (), everything=False)


def test_forced_ones_and_those_of_other_languages_are_passed_over(tmp_path: Path) -> None:
    forced = assigned(tmp_path / "a", ["t.en.forced.srt", "t.foreign.srt"])
    assert forced == ({}, {"forced subtitles": ["t.en.forced.srt", "t.foreign.srt"]})
    others = assigned(tmp_path / "b", ["t.de.srt", "t.ko.sdh.srt", "other.en.srt"], "en")
    assert {one.name for one in others.transcripts.values()} == {"other.en.srt"}
    assert others.passed_over == {
        "transcripts in other languages alone": ["t.de.srt", "t.ko.sdh.srt"]
    }
    message = "--language fr: no transcript is in it, but in de, ko"
    with pytest.raises(UserError, match=message):
        assigned(tmp_path / "c", ["t.de.srt", "t.ko.srt"], "fr")
