"""Builds of films with subtitles inside: the clips are those of the same subtitles beside them."""

import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline import build, build_cut, build_pool, build_worker, cutting
from data_pipeline.build import BuildSettings, build_dataset
from data_pipeline.build_report import BuildReport
from data_pipeline.build_subtitles import OTHERS, SILENT, TAKEN, TAKEN_DAMAGED
from data_pipeline.clip import Clip
from data_pipeline.errors import UserError
from data_pipeline.features.extract import ExtractSettings
from data_pipeline.features.subtitles import Subtitles, read_cues
from data_pipeline.shards.reader import open_dataset
from tests.data_pipeline.features.media import make_video, voice
from tests.data_pipeline.features.subtitled import Line, Track, mov_text, with_subtitles

pytestmark = pytest.mark.usefixtures("in_process")

LINES = [(1000, 1500, b"JOHN: <i>Hello</i> there."), (3000, 1000, b"Bye."), (4100, 10, b"So")]
SRT = (
    "1\n00:00:01,000 --> 00:00:02,500\nJOHN: <i>Hello</i> there.\n\n"
    "2\n00:00:03,000 --> 00:00:04,000\nBye.\n\n3\n00:00:04,100 --> 00:00:04,110\nSo\n"
)


def film(*tracks: Track, form: str = "matroska", sound: str = "") -> bytes:
    heard = voice([(1, 2.5), (3, 4)], length_s=5)
    return with_subtitles(
        make_video(range(0, 5000, 500), [90] * 10, heard), tracks, form, sound=sound
    )


def give(
    folder: Path, extract: ExtractSettings, files: Mapping[str, bytes | str], **options: str | Path
) -> BuildSettings:
    """A build of the sound of these files."""
    for name, content in files.items():
        path = folder / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    sound = replace(extract, face=None)
    return BuildSettings("videos", folder / "raw", folder / "out", sound, options=options)


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def clips(out: Path) -> dict[str, Clip]:
    train = open_dataset(out).split("train")
    found = [train.read(at) for at in range(len(train))]
    return {clip.key: clip for clip in found}


def test_clips_are_those_of_the_same_subtitles_beside_the_film(
    tmp_path: Path, extract_settings: ExtractSettings
) -> None:
    in_mp4 = [(begin, length, mov_text(text.decode())) for begin, length, text in LINES]
    ass = [
        (begin, length, b"%d,0,Default,,0,0,0,," % at + text)
        for at, (begin, length, text) in enumerate(LINES)
    ]
    inside = {
        "kim/a.mkv": film(Track(LINES, language="eng")),
        "kim/b.mp4": film(Track(in_mp4, "mov_text", "eng"), form="mp4"),
        "lee/c.mkv": film(Track(ass, "ass", "eng")),
    }
    report = build_dataset(give(tmp_path / "inside", extract_settings, inside))
    assert report.subtitles == {TAKEN: 3}
    plain: dict[str, bytes | str] = {
        name: film(form="mp4" if name.endswith("mp4") else "matroska") for name in inside
    }
    texts: dict[str, bytes | str] = {
        "kim/a.en.srt": SRT,
        "kim/b.en.srt": SRT,
        "lee/c.en.ass": "[Events]\nDialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,JOHN: <i>Hello"
        "</i> there.\nDialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,Bye.\n"
        "Dialogue: 0,0:00:04.10,0:00:04.11,Default,,0,0,0,,So\n",
    }
    other = build_dataset(give(tmp_path / "beside", extract_settings, plain | texts))
    assert other.subtitles == {}
    assert replace_report(other) == replace_report(report)
    found, wanted = content(tmp_path / "inside" / "out"), content(tmp_path / "beside" / "out")
    assert found.pop("build_report.json") != wanted.pop("build_report.json")
    assert found == wanted
    hello = clips(tmp_path / "inside" / "out")["kim-a-0001"]
    assert (hello.text, hello.duration_s, hello.speaker) == ("Hello there.", 1.5, "kim")
    assert (hello.session, hello.language) == ("kim-a", "en")
    assert report.broken == {"it is N s long; an utterance has N at least": 3}


def replace_report(report: BuildReport) -> BuildReport:
    """A report without what differs."""
    return report.model_copy(update={"subtitles": {}, "corpus_sha256": ""})


def test_what_is_beside_goes_before_and_transcripts_elsewhere_are_all_there_are(
    tmp_path: Path, extract_settings: ExtractSettings
) -> None:
    media = film(Track([(1000, 1500, b"Inside.")], language="eng"))
    files: dict[str, bytes | str] = {"a.mkv": media, "a.srt": SRT, "b.mkv": media}
    settings = give(tmp_path / "one", extract_settings, files)
    assert build_dataset(settings).subtitles == {TAKEN: 1}
    assert {key: clip.text for key, clip in clips(settings.out).items()} == {
        "a-0001": "Hello there.",
        "a-0002": "Bye.",
        "b-0001": "Inside.",
    }
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.srt").write_text(SRT)
    elsewhere = give(tmp_path / "two", extract_settings, files, transcripts=tmp_path / "texts")
    assert build_dataset(elsewhere).subtitles == {}
    assert clips(elsewhere.out)["b-0001"].text is None


def hostile() -> dict[str, bytes]:
    """Films whose subtitles have something wrong with them; and one in which all is well."""
    damaged = [(100 * at, 90, b"So %d" % at) for at in range(20)]
    damaged[7] = (700, 90, b"\xff\xfe\xfd")
    cyrillic: list[Line] = [(1000, 1500, "да".encode("cp1251"))]
    return {
        "damaged.mkv": film(Track(damaged, language="eng")),
        "empty.mkv": film(Track([], language="eng")),
        "forced.mkv": film(Track(LINES, language="eng", disposition=64)),
        "german.mkv": film(Track(LINES, language="ger")),
        "other.mkv": film(Track(cyrillic, language="eng")),
        "well.mkv": film(Track(LINES, language="ger"), Track(LINES, language="eng")),
        "broken.mkv": film(Track(LINES, language="eng"))[:60],
    }


def test_films_whose_subtitles_cannot_be_taken_are_cut_by_their_speech_and_counted(
    tmp_path: Path, extract_settings: ExtractSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = give(tmp_path, extract_settings, hostile(), language="en")
    report = build_dataset(settings)
    assert report.subtitles == {
        "not taken: cannot be read": 1,
        "not taken: forced alone": 1,
        OTHERS: 1,
        SILENT: 1,
        TAKEN: 1,
        TAKEN_DAMAGED: 1,
    }
    line = "1 not taken: forced alone, 1 not taken: in other languages alone, 4 to be read\n"
    assert f"subtitles inside files: {line}" in capsys.readouterr().out
    texts = [clip.text for key, clip in clips(settings.out).items() if "damaged" not in key]
    assert texts == [None, None, None, None, "Hello there.", "Bye."]
    assert len(clips(settings.out)) == 19 + 6


def test_a_file_that_cannot_be_looked_into_is_not_cut_as_if_it_had_no_subtitles(
    tmp_path: Path, extract_settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails for a moment would otherwise give other clips than one that does not."""
    settings = give(tmp_path, extract_settings, {"a.mkv": film(Track(LINES))})

    def fails(_: object) -> Subtitles:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(build_worker, "find_subtitles", fails)
        with pytest.raises(UserError, match="1 are broken"):
            build_dataset(settings)
    build_dataset(settings)
    assert {clip.text for clip in clips(tmp_path / "out").values()} == {"Hello there.", "Bye."}


def test_an_open_choice_is_refused_before_anything_is_read_through(
    tmp_path: Path, extract_settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = film(Track(LINES, language="ger"), Track(LINES, language="eng"))
    settings = give(tmp_path, extract_settings, {"a.mkv": film(Track(LINES)), "b.mkv": two})
    monkeypatch.setattr(build_cut, "cut", lambda *_: pytest.fail("it was cut"))
    with pytest.raises(UserError, match=r"^b\.mkv has subtitles in de, en inside, .*--language de"):
        build_dataset(settings)


def test_speakers_on_both_sides_are_told(
    tmp_path: Path, extract_settings: ExtractSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files are held out before it is known who speaks in them."""

    def spoken(*names: str) -> bytes:
        lines = [
            (1000 * at, 900, f"{at},0,Default,{name},0,0,0,,So {at}".encode())
            for at, name in enumerate(names, start=1)
        ]
        return film(Track(lines, "ass", "eng"))

    files = {"a.mkv": spoken("Ann", "Bob"), "b.mkv": spoken("Ann", "Cy", "SPEAKER_01")}
    settings = replace(give(tmp_path, extract_settings, files), valid_share=0.5)
    assert set(build_dataset(settings).samples) == {"train", "valid"}
    assert "--valid-share: speakers who train and validate: 1 (Ann); " in capsys.readouterr().out
    apart = {"a.mkv": spoken("Ann", "SPEAKER_01"), "b.mkv": spoken("Cy", "SPEAKER_01")}
    build_dataset(replace(give(tmp_path / "apart", extract_settings, apart), valid_share=0.5))
    assert "--valid-share" not in capsys.readouterr().out


def test_archives_other_orders_and_interruptions_give_the_same_bytes(
    tmp_path: Path, extract_settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = give(tmp_path, extract_settings, hostile(), language="en")
    build_dataset(settings)
    monkeypatch.setattr(build_pool, "as_completed", lambda futures: reversed(list(futures)))
    stopped = replace(settings, out=tmp_path / "stopped")
    read = []

    def stops_at_the_second(*given: object) -> object:
        read.append(given)
        if len(read) == 2:
            raise KeyboardInterrupt
        return read_cues(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(cutting, "read_cues", stops_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(stopped)
    with monkeypatch.context() as patched:
        patched.setattr(build, "_extract_missing", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_dataset(stopped)
    times_read = len(read)
    build_dataset(stopped)
    assert len(read) == times_read
    assert content(stopped.out) == content(settings.out)
    with tarfile.open(tmp_path / "raw.tar", "w") as tar:
        tar.add(settings.source, "raw")
    packed = replace(settings, source=tmp_path / "raw.tar", out=tmp_path / "packed")
    build_dataset(packed)
    assert content(packed.out) == content(settings.out)
