"""Which subtitles inside a recording are taken."""

import pytest

from data_pipeline.build_subtitles import (
    CHOSEN,
    FORCED,
    OTHERS,
    PICTURES,
    UNKNOWN,
    CutBy,
    choose_all,
)
from data_pipeline.corpora.base import Recording
from data_pipeline.corpora.transcript_names import Transcript
from data_pipeline.errors import UserError
from data_pipeline.features.subtitles import Subtitles


def texts(*described: str, sound: str = "") -> Subtitles:
    """Streams from 2 on, each as its language and its marks."""
    found = []
    for number, one in enumerate(described, start=2):
        language, *marks = one.split(" ")
        found.append(Transcript(str(number), "", language, frozenset(marks)))
    return Subtitles(tuple(found), sound=sound)


def chosen(found: Subtitles, *languages: str) -> tuple[int | None, str, str]:
    recording = Recording("film", "train", "film.mkv", cut=True, subtitles=languages)
    (by,) = choose_all([recording], {"film": found})
    assert by.recording is recording
    return by[1:]


@pytest.mark.parametrize(
    ("found", "languages", "stream", "code"),
    [
        (texts("eng"), (), 2, "en"),
        (texts(""), ("ko",), 2, ""),
        (texts("eng sdh", "eng"), (), 3, "en"),
        (texts("eng sdh"), (), 2, "en"),
        (texts("eng", "eng"), (), 2, "en"),
        (texts("eng forced", "eng sdh"), (), 3, "en"),
        (texts("ger", "eng"), ("en",), 3, "en"),
        (texts("ger", "eng", "kor"), ("ko", "en"), 4, "ko"),
        (texts("pt", "pt-br"), ("pt-br",), 3, "pt"),
        (texts("ger", "eng", "kor", sound="kor"), (), 4, "ko"),
        (texts("ger", "en-us", sound="eng"), (), 3, "en"),
        (texts("ger", "eng", sound="ger"), ("en",), 3, "en"),
        (texts("eng", sound="jpn"), ("en",), 2, "en"),
        (texts("nob", sound="nor"), (), 2, "no"),
        (texts("eng", "chi", sound="cmn"), (), 3, "zh"),
        (texts("eng", "", sound="jpn"), (), 3, ""),
    ],
)
def test_one_is_taken(found: Subtitles, languages: tuple[str, ...], stream: int, code: str) -> None:
    assert chosen(found, *languages) == (stream, code, CHOSEN)


@pytest.mark.parametrize(
    ("found", "languages", "why"),
    [
        (Subtitles(), (), ""),
        (texts("eng forced", "ger forced"), (), FORCED),
        (texts("eng forced", "ger"), ("en",), OTHERS),
        (texts("eng", sound="jpn"), (), OTHERS),
        (texts("eng", "ger", sound="jpn"), (), OTHERS),
        (Subtitles(pictures=True, others=True), (), PICTURES),
        (Subtitles(others=True), (), UNKNOWN),
        (texts("ger")._replace(pictures=True), ("en",), OTHERS),
        (texts("ger forced")._replace(pictures=True), (), FORCED),
    ],
)
def test_none_is_taken(found: Subtitles, languages: tuple[str, ...], why: str) -> None:
    assert chosen(found, *languages) == (None, "", why)


def test_an_open_choice_is_one_line() -> None:
    films = [
        Recording(name, "train", f"{name}.mkv", cut=True, subtitles=())
        for name in ("a", "b", "c", "killer")
    ]
    found = {
        "c": texts("eng", "ger"),
        "a": texts("eng", "ger", sound="eng"),
        "b": texts("ger", "kor", "ger sdh"),
    }
    with pytest.raises(UserError) as caught:
        choose_all(films, found)
    assert str(caught.value) == (
        "b.mkv has subtitles in de, ko inside, and does not say in which its sound is "
        "(1 more have several); say which with --language de, that of what is spoken"
    )
    assert choose_all(films[::3], found) == [
        CutBy(films[0], 2, "en", CHOSEN),
        CutBy(films[3]),
    ]
