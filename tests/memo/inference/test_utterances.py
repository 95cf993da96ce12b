"""Utterances are those that a build would make of the same files."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline import build_pool
from data_pipeline.build import BuildSettings, build_dataset
from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError
from data_pipeline.features.extract import ExtractSettings
from data_pipeline.registry import ModelChoice
from data_pipeline.shards.reader import open_dataset
from memo.inference.utterances import Said, find_parts, plan
from tests.data_pipeline.features.media import make_sound, make_video, voice
from tests.data_pipeline.features.subtitled import Track, with_subtitles

SRT = "1\n00:00:01,000 --> 00:00:02,000\nwow\n\n2\n00:00:02,000 --> 00:00:03,500\ngross\n"
GERMAN = SRT.replace("wow", "oh").replace("gross", "pfui")
NESTED = (  # a line that stands all the time, and two people at once
    "1\n00:00:00,000 --> 01:30:00,000\nMY CHANNEL\n\n2\n00:00:00,500 --> 00:00:03,500\nhello\n\n"
    "3\n00:00:01,000 --> 00:00:02,000\nworld\n\n4\n00:00:03,000 --> 00:00:03,900\nyes\n"
)
INSIDE = Track([(500, 1000, b"so glad"), (1400, 1000, b"tears")], language="eng")

Utterance = tuple[str, tuple[float, float] | None, str | None, str]
"""File, span, text, language."""


@pytest.fixture(scope="module")
def short() -> bytes:
    """Four seconds in which somebody speaks twice."""
    return make_sound(voice([(1, 1.6), (2.2, 3)], 4))


def lay(folder: Path, files: Mapping[str, bytes | str]) -> list[Path]:
    """The files in a folder; those with sound are returned."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return sorted(folder / name for name in files if name.endswith((".wav", ".mkv", ".mp4")))


def told(videos: Sequence[Path], said: Said | None = None) -> list[Recording]:
    found = list[Recording]()
    for one in plan(videos, said or Said()):
        with one.video.open("rb") as media:
            found += find_parts(one, media)[0]
    return found


def usable(videos: Sequence[Path]) -> list[Utterance]:
    return [
        (Path(one.media or "").name, one.span, one.text, one.language)
        for one in told(videos)
        if not one.flaw
    ]


def built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Utterance]:
    """The clips of a build of the same folder."""

    def thread(_: int, __: object, initializer: Any, arguments: Any) -> ThreadPoolExecutor:  # noqa: ANN401
        return ThreadPoolExecutor(1, initializer=initializer, initargs=arguments)

    monkeypatch.setattr(build_pool, "ProcessPoolExecutor", thread)
    sound = ExtractSettings(face=None, speech=ModelChoice("log-mel"))
    out = folder.with_name("out")
    build_dataset(BuildSettings("videos", folder, out, sound))
    train = open_dataset(out).split("train")
    clips = [train.read(at) for at in range(len(train))]
    return [(one.source, one.span, one.text, one.language) for one in clips]


WHISPER = json.dumps({"segments": [{"start": 0.5, "end": 2, "text": "well"}]})


def test_utterances_are_those_of_a_build(
    short: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is beside, by what is inside, by speech, or whole."""
    pauses = voice([(1, 6), (8, 13), (15, 21)], 22)
    film = make_video([0, 1000, 3900], [9, 90, 9], voice([(0.5, 3)], 4))
    files: dict[str, bytes | str] = {
        "alone.wav": short,
        "beside.wav": short,
        "beside.srt": SRT,
        "called.wav": short,
        "called.wav.srt": SRT,
        "english.wav": short,
        "english.en.srt": SRT,
        "english.en.forced.srt": GERMAN,
        "inside.mkv": with_subtitles(film, [INSIDE], sound="eng"),
        "long.wav": make_sound(pauses),
        "loud.wav": short,
        "loud.SRT": SRT,
        "nested.wav": short,
        "nested.srt": NESTED,
        "whisper.wav": short,
        "whisper.json": WHISPER,
        "table.wav": short,
        "table.tsv": "start\tend\ttext\n1000\t2000\twell\n",
    }
    videos = lay(tmp_path / "raw", files)
    expected = sorted(built(tmp_path / "raw", monkeypatch), key=str)
    assert sorted(usable(videos), key=str) == expected
    assert {name for name, *_ in expected} == {one.name for one in videos}
    assert ("alone.wav", None, None, "") in expected
    assert ("english.wav", (1.0, 2.0), "wow", "en") in expected
    assert [span for name, span, *_ in expected if name == "nested.wav"] == [
        (0.5, 3.5),
        (1.0, 2.0),
        (3.0, 3.9),
    ]
    assert [one.text for one in told(videos) if one.flaw] == ["MY CHANNEL"]


def test_silence_has_no_utterance(tmp_path: Path) -> None:
    (silent,) = told(lay(tmp_path, {"a.wav": make_sound(np.zeros(16_000 * 21, np.float32))}))
    assert (silent.flaw, silent.span) == ("no speech was found in it", None)


def test_the_language_chooses_among_transcripts(short: bytes, tmp_path: Path) -> None:
    texts: dict[str, bytes | str] = {"a.wav": short, "a.de.srt": GERMAN, "a.en.srt": SRT}
    videos = lay(tmp_path / "beside", texts)
    with pytest.raises(UserError, match=r"a\.de\.srt and a\.en\.srt would both be .*--language de"):
        plan(videos, Said())
    german = [(one.text, one.language) for one in told(videos, Said(languages=("de",)))]
    assert german == [("oh", "de"), ("pfui", "de")]
    film = make_video([0, 1000, 3900], [9, 90, 9], voice([(0.5, 3)], 4))
    other = Track([(500, 1000, b"so froh")], language="ger")
    inside = lay(tmp_path / "inside", {"a.mkv": with_subtitles(film, [INSIDE, other])})
    with pytest.raises(UserError, match=r"a\.mkv has subtitles in de, en inside.*--language de"):
        plan(inside, Said())
    (froh,) = told(inside, Said(languages=("de",)))
    assert (froh.text, froh.language) == ("so froh", "de")


def test_given_subtitles_go_before_all_others(short: bytes, tmp_path: Path) -> None:
    videos = lay(tmp_path, {"a.wav": short, "a.srt": GERMAN, "a.ko.vtt": f"WEBVTT\n\n{SRT}"})
    path = tmp_path / "a.ko.vtt"
    path.write_text(path.read_text().replace(",", "."))
    given = Said(subtitles=path)
    assert [(one.text, one.language) for one in told(videos, given)] == [
        ("wow", "ko"),
        ("gross", "ko"),
    ]
    assert {one.language for one in told(videos, Said(subtitles=path, languages=("en",)))} == {"en"}
    (whole,) = told(videos, Said(text="well", languages=("en",)))
    assert (whole.text, whole.language, whole.span) == ("well", "en", None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.srt", b"", "its transcript has no speech in it"),
        ("b.srt", b"no subtitles", "line 1: no line has two times"),
        ("b.srt", b"1\n00:01,0 --> 00:02,0\na\n\n2\n00:03 -> 00:04\nb\n", "line 6: '00:03 -> 00:"),
        ("b.srt", b"1\n00:01,0 --> 00:02,0\n\xe9\n", "line 3 is not in utf-8; say with --encoding"),
        ("b.txt", b"so", "no subtitles; give a file in .srt, .vtt, .json, .tsv"),
        ("b.srt", None, "no subtitles can be read .No such file"),
    ],
)
def test_what_is_no_subtitle_file_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: {message}"):
        plan([tmp_path / "a.wav"], Said(subtitles=tmp_path / name))


def test_a_file_that_cannot_be_used_is_told_and_leaves_the_others(
    short: bytes, tmp_path: Path
) -> None:
    videos = lay(
        tmp_path, {"a.wav": b"no sound", "b.wav": short, "b.srt": "no subtitles", "c.wav": short}
    )
    flaws = {Path(one.media or "").name: one.flaw for one in told(videos)}
    assert flaws["a.wav"].startswith("the file cannot be decoded")
    assert "b.srt: line 1: no line has two times" in flaws["b.wav"]
    assert flaws["c.wav"] == ""


ANSWER = '{"file": "a.wav", "begin_s": 0, "used": [], "probabilities": {}}\n'


@pytest.mark.parametrize("content", [ANSWER, ANSWER * 2, "[" * 100_000, '{"title": "a"}', "\xe9"])
def test_what_lies_beside_a_file_and_is_no_transcript_leaves_it_as_it_is(
    short: bytes, tmp_path: Path, content: str
) -> None:
    """What `memo predict --json` has written, what a camera says of its file, anything."""
    videos = lay(tmp_path, {"a.wav": short, "a.json": content.encode("latin1")})
    (planned,) = plan(videos, Said())
    assert planned.note == (
        f"{videos[0]}: beside it are no transcripts (a.json); lay others beside it"
    )
    (whole,) = told(videos)
    assert (whole.text, whole.flaw) == (None, "")


@pytest.mark.parametrize("other", ["a.json", "a.tsv"])
def test_what_is_no_transcript_takes_the_place_of_none(
    short: bytes, tmp_path: Path, other: str
) -> None:
    """It names no language, as the transcript does, and would be taken first."""
    videos = lay(tmp_path, {"a.wav": short, "a.en.srt": SRT, other: ANSWER})
    (planned,) = plan(videos, Said())
    assert planned.note == ""
    assert [one.text for one in told(videos)] == ["wow", "gross"]
    (german,) = plan(videos, Said(languages=("de",)))
    assert german.note == (
        f"{videos[0]}: beside it are no transcripts ({other}) and transcripts in other languages "
        "alone (a.en.srt); lay others beside it"
    )


def test_the_language_given_is_that_of_what_names_none(short: bytes, tmp_path: Path) -> None:
    film = make_video([0, 1000, 3900], [9, 90, 9], voice([(0.5, 3)], 4))
    inside = with_subtitles(film, [Track(INSIDE.lines)])
    videos = lay(tmp_path, {"a.wav": short, "a.srt": SRT, "b.mkv": inside})
    found = told(videos, Said(languages=("ko-kr",)))
    assert [(one.text, one.language) for one in found] == [
        ("wow", "ko"),
        ("gross", "ko"),
        ("so glad", "ko"),
        ("tears", "ko"),
    ]


def test_transcripts_that_are_not_taken_are_told(short: bytes, tmp_path: Path) -> None:
    videos = lay(tmp_path, {"a.wav": short, "a.forced.srt": SRT, "b.wav": short, "b.de.srt": SRT})
    notes = [one.note for one in plan(videos, Said(languages=("en",)))]
    assert notes == [
        f"{videos[0]}: beside it are forced subtitles (a.forced.srt); lay others beside it",
        f"{videos[1]}: beside it are transcripts in other languages alone (b.de.srt); lay others "
        "beside it",
    ]
