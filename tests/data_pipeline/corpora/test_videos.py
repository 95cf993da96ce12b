"""A folder of videos: which files are found, whose a transcript is, and what is built of them."""

import json
import os
import tarfile
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline import build
from data_pipeline.build import BuildSettings, build_dataset, plan_build
from data_pipeline.build_report import read_report
from data_pipeline.clip import Clip, Word, is_key
from data_pipeline.corpora.base import DOUBLE, LONGEST_S, Recording, load_corpus
from data_pipeline.corpora.source import open_source
from data_pipeline.corpora.videos import NO_SPEECH
from data_pipeline.errors import UserError
from data_pipeline.features.extract import ExtractSettings
from data_pipeline.shards.check import check_dataset
from data_pipeline.shards.reader import open_dataset
from tests.data_pipeline.features.media import make_sound, make_video

SRT = "1\n00:00:01,000 --> 00:00:02,500\nHello there.\n\n2\n00:00:03,000 --> 00:00:04,000\nBye.\n"
HELLO = [("Hello there.", (1.0, 2.5)), ("Bye.", (3.0, 4.0))]


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    root.mkdir(exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def read(
    source: Path,
    transcripts: Path | None = None,
    encoding: str | None = None,
    speaker_folder: str | None = None,
) -> list[Recording]:
    given = {
        "transcripts": transcripts,
        "encoding": encoding,
        "speaker_folder": speaker_folder,
    }
    options = {name: value for name, value in given.items() if value is not None}
    return list(load_corpus("videos", options).recordings(open_source(source)))


def told(recordings: list[Recording]) -> list[tuple[str | None, tuple[float, float] | None]]:
    return [(one.text, one.span) for one in recordings]


def test_files_are_found_by_suffix_and_cut_by_speech_without_a_transcript(tmp_path: Path) -> None:
    names = ["b.MKV", "a.mp4", "ann/c.Opus", "d.ts", "a.txt", "._e.mp4", "f", ".mp4"]
    found = read(write(tmp_path, dict.fromkeys(names, b"")))
    assert [(one.key, one.media) for one in found] == [
        ("a", "a.mp4"),
        ("ann-c", "ann/c.Opus"),
        ("b", "b.MKV"),
        ("d", "d.ts"),
    ]
    assert all(one.cut and one.split == "train" and one.text is None for one in found)
    assert [one.session for one in found] == ["a", "ann-c", "b", "d"]
    with pytest.raises(UserError, match=r"videos: the source has no file in \.mp4 \.mkv"):
        read(write(tmp_path / "none", {"a.txt": b""}))


def test_files_that_are_left_out_are_counted_by_suffix(
    tmp_path: Path, extract_settings: ExtractSettings
) -> None:
    others = ["a.txt", "b.TXT", "kim/notes.docx", "Kim vs. Lee, part 2", "README", "._e.mp4"]
    known = ["a.srt", "a.json", "rows.tsv", "rows.csv", "DCIM/00001.MTS", "VTS_01_1.VOB", "b.aac"]
    files: dict[str, str | bytes] = dict.fromkeys([*others, *known], b"")
    source = write(tmp_path / "raw", {**files, "a.mp4": b"", "a.srt": SRT, "face.jpg": b""})
    settings = BuildSettings("videos", source, tmp_path / "out", extract_settings)
    assert plan_build(settings).left_out == {"": 2, ".docx": 1, ".jpg": 1, ".txt": 2}
    rows = [{"media": "a", "text": "so", "image": "face.jpg"}]
    table = write(tmp_path, {"all.json": json.dumps(rows)}) / "all.json"
    found = plan_build(replace(settings, options={"transcripts": table}))
    assert found.left_out == {"": 2, ".docx": 1, ".txt": 2}


def test_archives_and_their_top_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "talks", {"a.mp4": b"", "a.srt": SRT})
    with tarfile.open(tmp_path / "talks.tar", "w") as tar:
        tar.add(folder, "talks")
    assert read(tmp_path / "talks.tar") == read(folder)


def test_keys_are_safe_and_differ_in_every_script(tmp_path: Path) -> None:
    names = [
        "김치/인터뷰.mp4",
        "🎉👩‍🚀.mp4",
        "a.b.mp4",
        "a-b.mp4",
        "a/b.mp4",
        "a.mp4",
        "a.mkv",
        "back\\slash\n.mp4",
        f"{'한' * 60}/{'글' * 60}1.mp4",
        f"{'한' * 60}/{'글' * 60}2.mp4",
        os.fsdecode(b"caf\xe9.mp4"),
    ]
    found = read(write(tmp_path, dict.fromkeys(names, b"")))
    assert sorted(str(one.media) for one in found) == sorted(names)
    keys = {str(one.media): one.key for one in found}
    assert len(set(keys.values())) == len(names)
    assert all(is_key(key) and len(key.encode()) < 220 for key in keys.values())
    assert keys["김치/인터뷰.mp4"] == "김치-인터뷰"
    assert keys["🎉👩‍🚀.mp4"] == "🎉👩-🚀"
    assert all(keys[name].startswith("a-b-") for name in ("a.b.mp4", "a-b.mp4", "a/b.mp4"))
    assert read(tmp_path) == found


def test_links_that_go_round_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path, {"in/a.mp4": b""})
    (tmp_path / "in" / "again").symlink_to(tmp_path)
    (tmp_path / "self.mp4").symlink_to("self.mp4")
    (tmp_path / "gone.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "linked.mp4").symlink_to("in/a.mp4")
    assert [one.media for one in read(tmp_path)] == ["in/a.mp4", "linked.mp4"]


def test_a_sound_beside_its_video_is_named_and_left_out(tmp_path: Path) -> None:
    video, sound = read(write(tmp_path, {"a.mp4": b"", "a.wav": b"", "a.srt": SRT}))[1:]
    assert (video.media, video.key, video.flaw) == ("a.mp4", "a-0002", "")
    assert (sound.media, sound.key, sound.flaw, sound.cut) == ("a.wav", "a-wav", DOUBLE, False)


WHISPER = {"segments": [{"start": 1, "end": 2.5, "text": " Hello there.", "speaker": "Ann"}]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.srt", SRT),
        ("a.VTT", "WEBVTT\n\n" + SRT.replace(",", ".")),
        ("a.tsv", "start\tend\ttext\n1000\t2500\tHello there.\n3000\t4000\tBye.\n"),
        ("a.json", json.dumps([{"begin_s": b, "end_s": e, "text": t} for t, (b, e) in HELLO])),
        ("a.mp4.srt", SRT),
        ("a.en.srt", SRT),
        ("a.en-US.srt", SRT),
        ("subtitles/a.srt", SRT),
    ],
)
def test_transcripts_beside_the_videos(tmp_path: Path, name: str, content: str) -> None:
    source = write(tmp_path, {"a.mp4": b"", "b.mp4": b"", name: content})
    first, second, other = read(source)
    assert told([first, second]) == HELLO
    assert [first.key, second.key, other.key] == ["a-0001", "a-0002", "b"]
    assert first.language == ("en" if ".en" in name else "")
    assert (first.media, first.session, first.cut, first.flaw) == ("a.mp4", "a", False, "")
    assert other.cut


def test_which_of_several_transcripts_is_taken(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"a.mp4": b"", "a.ko.srt": SRT, "a.de.srt": SRT}
    source = write(tmp_path, files)
    message = r"a\.de\.srt and a\.ko\.srt would both be .* of a\.mp4; say .* --language de, that of"
    with pytest.raises(UserError, match=message):
        read(source)
    write(source, {"a.json": json.dumps(WHISPER), "a.tsv": "no transcript"})
    (only,) = read(source)
    assert (only.text, only.span, only.speaker) == ("Hello there.", (1.0, 2.5), "Ann")
    write(source, {"a.vtt": "WEBVTT\n\n" + SRT.replace(",", ".")})
    assert told(read(source)) == HELLO


def test_a_name_is_found_however_its_letters_are_composed(tmp_path: Path) -> None:
    apart, whole = (unicodedata.normalize(form, "인터뷰") for form in ("NFD", "NFC"))
    found = read(write(tmp_path, {f"{apart}.mp4": b"", f"{whole}.srt": SRT}))
    assert told(found) == HELLO
    assert found[0].key == f"{whole}-0001"


def test_other_tables_and_notes_are_no_transcripts(tmp_path: Path) -> None:
    names = ["a/1.mp4", "b/1.mp4", "a/1.info.json", "list.tsv", "m/1.json"]
    assert [one.cut for one in read(write(tmp_path, dict.fromkeys(names, b"{}")))] == [True, True]


STRAYS = ["a.v1.vtt", "b.srt", "in/a.srt"]


def test_subtitles_of_nothing_leave_themselves_out_and_are_told(tmp_path: Path) -> None:
    films: dict[str, str | bytes] = {"a.mp4": b"", "in/other.mp4": b"", "a.srt": SRT}
    source = open_source(write(tmp_path, films | dict.fromkeys(STRAYS, "no subtitles")))
    corpus = load_corpus("videos")
    found = list(corpus.recordings(source))
    assert told(found) == [*HELLO, (None, None)]
    assert corpus.left_out(source, found) == {"transcripts of no video": 3}
    assert corpus.remarks(found)[0] == f"transcripts of no video: 3 ({', '.join(STRAYS)})"


def test_subtitles_of_which_none_has_its_video_are_refused_all_at_once(tmp_path: Path) -> None:
    names = [*STRAYS, *(f"t{number:02}.srt" for number in range(20))]
    source = write(tmp_path, {"a.mp4": b"", "in/other.mp4": b"", **dict.fromkeys(names, SRT)})
    message = (
        r"no transcript is of a video of the source, a\.v1\.vtt, .*, t01\.srt and 18 more; each"
    )
    with pytest.raises(UserError, match=message):
        read(source)


@pytest.mark.parametrize(
    ("speaker_folder", "speakers"),
    [
        (None, ["kim", "kim", "lee", "lee", ""]),
        ("0", [""] * 5),
        ("1", ["talks"] * 5),
        ("3", ["s1", "s2", "s1", "", ""]),
    ],
)
def test_speakers_are_the_topmost_folders_that_differ(
    tmp_path: Path, speaker_folder: str | None, speakers: list[str]
) -> None:
    names = ["kim/s1/1.mp4", "kim/s2/1.mp4", "lee/s1/1.mp4", "lee/2.mp4", "z.mp4"]
    source = write(tmp_path, {f"talks/{name}": b"" for name in names})
    found = read(source, speaker_folder=speaker_folder)
    assert {one.media: one.speaker for one in found} == {
        f"talks/{name}": speaker for name, speaker in zip(names, speakers, strict=True)
    }
    named = sorted({*speakers} - {""})
    said = [f"speakers: {len(named)} ({', '.join(named)})"] if named else []
    assert load_corpus("videos").remarks(found) == said


def test_a_speaker_folder_that_no_file_lies_in_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path, {"kim/s1/1.mp4": b"", "2.mp4": b""})
    with pytest.raises(UserError, match="--speaker-folder 3: no file of the source lies in so"):
        read(source, speaker_folder="3")


def test_valid_share_holds_out_whole_speakers_of_several_folders(
    tmp_path: Path, extract_settings: ExtractSettings
) -> None:
    names = [f"{who}/s{number}/1.mp4" for who in "abcd" for number in range(3)]
    source = write(tmp_path / "raw", dict.fromkeys(names, b""))
    settings = BuildSettings("videos", source, tmp_path / "out", extract_settings, valid_share=0.5)
    valid = [one.media or "" for one in plan_build(settings).recordings if one.split == "valid"]
    assert len(valid) == 6
    assert len({name[0] for name in valid}) == 2


def test_a_broken_transcript_names_its_line(tmp_path: Path) -> None:
    source = write(tmp_path, {"in/a.mp4": b"", "in/a.srt": SRT.replace("04,000", "four")})
    with pytest.raises(UserError, match=r"in/a\.srt: line 6: .* should be two times"):
        read(source)


def test_subtitles_in_another_encoding_need_its_name(tmp_path: Path) -> None:
    russian, korean = SRT.replace("Bye", "Пока"), SRT.replace("Bye", "안녕")
    files = {"in/a.srt": russian.encode("cp1251"), "in/b.srt": korean.encode()}
    source = write(tmp_path / "raw", {"in/a.mp4": b"", "in/b.mp4": b"", **files})
    texts = write(tmp_path / "texts", {"a.srt": russian.encode("cp1251")})
    for given in (None, texts):
        with pytest.raises(UserError, match=r"a\.srt: line 7 is not in utf-8; say with --encoding"):
            read(source, given)
    assert [one.text for one in read(source, None, "cp1251")][1::2] == ["Пока.", "안녕."]
    assert read(source, texts, "cp1251")[1].text == "Пока."
    with pytest.raises(UserError, match="--encoding: 'koi9' is none that Python knows"):
        read(source, None, "koi9")


def test_transcripts_of_another_folder(tmp_path: Path) -> None:
    source = write(
        tmp_path / "videos", {"x/1.mp4": b"", "y/1.mp4": b"", "y/2.mp4": b"", "y/2.srt": "nothing"}
    )
    texts = write(tmp_path / "texts", {"x/1.srt": SRT, "y/1.en.vtt": "WEBVTT", "2.srt": SRT})
    found = read(source, texts)
    assert told(found[:2]) == told(found[3:]) == HELLO
    assert (found[2].key, found[2].flaw, found[2].cut) == ("y-1-0001", NO_SPEECH, False)
    write(texts, {"1.srt": SRT})
    with pytest.raises(UserError, match=r"1\.srt could be of x/1\.mp4 or y/1\.mp4; give its fol"):
        read(source, texts)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", r"--transcripts: there is no .*absent; give a folder, an archive or a table"),
        ("texts/b.srt", r"--transcripts: .*b\.srt is of one recording; give its folder"),
        ("texts", r"videos: no transcript is of a video of the source, b\.srt; each should"),
        ("bare", r"--transcripts: bare has no file in \.srt \.vtt"),
        ("bare/a.txt", r"--transcripts: a has no file in \.srt"),
        ("bare/a.doc", r"--transcripts: .*a\.doc is neither a folder"),
    ],
)
def test_transcripts_that_cannot_be_are_refused(tmp_path: Path, name: str, message: str) -> None:
    source = write(tmp_path / "videos", {"a.mp4": b""})
    write(tmp_path, {"texts/b.srt": SRT, "bare/a.txt": "", "bare/a.doc": ""})
    with pytest.raises(UserError, match=message):
        read(source, tmp_path / name)


TABLE = (
    "media\tbegin_s\tend_s\ttext\tspeaker\tsession\tsplit\tmood\twords\n"
    "x/1.mp4\t3\t4\tBye.\tAnn\tmorning\tvalid\tsad\t\n"
    'x/1\t1\t2.5\tHello there.\t\t\t\t\t[["Hello", 1.1, 1.5], ["there", 1.5, 2.75]]\n'
    "2.wav\t\t\tAll of it.\t7\t\t\t\t\n"
)


def test_a_table_of_all_transcripts(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"x/1.mp4": b"", "y/1.mp4": b"", "y/2.wav": b"", "y/2.srt": ""})
    table = tmp_path / "all.tsv"
    table.write_text(TABLE)
    hello, bye, unnamed, sound = read(source, table)
    assert told([hello, bye]) == HELLO
    assert [hello.key, bye.key, sound.key] == ["x-1-0001", "x-1-0002", "y-2-0001"]
    assert hello.words == (Word("Hello", 0.1, 0.5), Word("there", 0.5, 1.5))
    assert (hello.speaker, hello.session, hello.split, hello.labels) == ("x", "x-1", "train", {})
    assert (bye.speaker, bye.session, bye.split) == ("Ann", "morning", "valid")
    assert bye.labels == {"mood": "sad"}
    assert (unnamed.key, unnamed.cut) == ("y-1", True)
    assert (sound.text, sound.span, sound.speaker) == ("All of it.", None, "7")
    lines = [line.split("\t") for line in TABLE.splitlines()]
    objects = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    parsed = [
        {name: json.loads(cell) if name == "words" and cell else cell for name, cell in one.items()}
        for one in objects
    ]
    (tmp_path / "all.json").write_text(json.dumps(parsed))
    assert read(source, tmp_path / "all.json") == read(source, table)
    (tmp_path / "all.csv").write_bytes("file,text\r\nx/1.mp4,안녕\r\n".encode("cp949"))
    korean, *rest = read(source, tmp_path / "all.csv", "cp949")
    assert (korean.text, korean.labels, korean.cut) == ("안녕", {}, False)
    assert korean.longest_s == LONGEST_S  # the whole file is an utterance, if it can be one
    assert all(one.cut for one in rest)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "media,text\nc.mp4,x\n", r"t\.csv: line 2: media 'c\.mp4'; it should name a vid"),
        ("t.csv", "text\nx\n", r"t\.csv: line 2: media ''; it should name"),
        ("t.csv", "media,text\n", r"t\.csv: it has no line"),
        ("t.csv", "media,text\na.mp4,x\na,x\n", r"t\.csv: line 3: media 'a' names 2 files"),
        ("t.csv", "media,begin_s,end_s\na.mp4,2,1\n", r"t\.csv: line 2 has begin_s='2' and end_s"),
        ("t.csv", "media,start,end\na.mp4,1,2\n", r"t\.csv: column 'start' .* call it begin_s"),
        ("t.json", '[{"media": "a.mp4", "End": 2}]', r"t\.json: column 'End' .* call it end_s, in"),
        ("t.csv", "media,words\na.mp4,so\n", r"t\.csv: line 2: words should be as"),
        ("t.csv", "media,image\na.mp4,b.jpg\n", r"videos: no file b\.jpg"),
        ("t.json", '{"a": 1}', r"t\.json: it should be a list of objects with media and text"),
        ("t.json", '[{"media": "a.mp4",\n}]', r"t\.json: line 2: .*; it should be JSON"),
        ("t.json", '[{"media": "a.mp4", "text": "\\ud83d"}]', r"t\.json: object 1: .* surrogate"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    source = write(tmp_path / "in", {"a.mp4": b"", "a.mkv": b""})
    write(tmp_path, {name: content})
    with pytest.raises(UserError, match=message):
        read(source, tmp_path / name)


def test_speakers_are_those_of_the_transcript_or_the_folder(tmp_path: Path) -> None:
    voices = (
        "start\tend\ttext\tspeaker\n0\t1000\ta\tAnn\n1000\t2000\tb\tSPEAKER_00\n2000\t3000\tc\t\n"
    )
    folders = write(tmp_path / "many", {"kim/1.mp4": b"", "kim/1.tsv": voices, "lee/1.mp4": b""})
    found = read(folders)
    assert [one.speaker for one in found] == ["Ann", "kim-1-SPEAKER_00", "kim", "lee"]
    assert {one.session for one in found} == {"kim-1", "lee-1"}
    one_folder = write(tmp_path / "one", {"in/1.mp4": b"", "in/1.tsv": voices, "in/2.mp4": b""})
    assert [one.speaker for one in read(one_folder)] == ["Ann", "in-1-SPEAKER_00", "", ""]


def test_cues_that_are_no_utterances_have_a_flaw(tmp_path: Path) -> None:
    times = ["-0.02\t1", "1\t1", "3\t2", "4\t64", "5\t65.1", "7.02\t7.04", "8\t8.019"]
    lines = "".join(f"{time}\ta\n" for time in times)
    found = read(write(tmp_path, {"a.wav": b"", "a.tsv": f"begin_s\tend_s\ttext\n{lines}"}))
    assert [one.flaw for one in found] == [
        "it begins before its file: at -0.020 s",
        "it has no length: from 1.000 to 1.000 s",
        "it has no length: from 3.000 to 2.000 s",
        "",
        "it is 60 s long; an utterance has 60 at most",
        "",
        "it is 0.019 s long; an utterance has 0.02 at least",
    ]


def tone(*spans: tuple[float, float], length_s: float) -> NDArray[np.float32]:
    """Somebody speaks in these spans; else there is hardly any noise."""
    sound = np.random.default_rng(0).normal(0, 1e-3, round(length_s * 16_000)).astype(np.float32)
    for begin_s, end_s in spans:
        at = np.arange(round(begin_s * 16_000), round(end_s * 16_000))
        sound[at] += (0.2 * np.sin(2 * np.pi * 300 * at / 16_000)).astype(np.float32)
    return sound


def video(length_s: int, sound: NDArray[np.float32] | None, level: int = 90) -> bytes:
    times = range(0, 1000 * length_s, 100)
    return make_video(times, [level] * len(times), sound)


def clips(folder: Path) -> dict[str, Clip]:
    train = open_dataset(folder).split("train")
    read_clips = [train.read(at) for at in range(len(train))]
    return {clip.key: clip for clip in read_clips}


def quarantined(folder: Path) -> dict[str, str]:
    lines = (folder / "quarantine.jsonl").read_text("utf8").splitlines()
    return {one["key"]: one["reason"] for one in map(json.loads, lines)}


@pytest.mark.usefixtures("in_process")
def test_subtitled_videos_and_a_long_sound_are_built(
    tmp_path: Path, extract_settings: ExtractSettings
) -> None:
    speech = tone((1, 2.5), (3, 4), length_s=5)
    files: dict[str, str | bytes] = {
        "kim/🎉.mp4": video(5, speech),
        "kim/🎉.ko.srt": SRT.replace("Bye", "안녕"),
        "lee/인터뷰.mp4": video(5, speech),
        "lee/인터뷰.json": json.dumps(WHISPER),
        "lee/long.wav": make_sound(tone((2, 4), (9, 11), length_s=25)),
        "read me.txt": "",
    }
    source = write(tmp_path / "raw", files)
    settings = BuildSettings("videos", source, tmp_path / "out", extract_settings)
    report = build_dataset(settings)
    assert report.quarantined == 0
    assert report == read_report(open_dataset(settings.out))
    assert report.left_out == {".txt": 1}
    assert not list(check_dataset(settings.out))
    found = clips(settings.out)
    assert [(key, clip.text, clip.speaker) for key, clip in found.items()] == [
        ("kim-🎉-0001", "Hello there.", "kim"),
        ("kim-🎉-0002", "안녕.", "kim"),
        ("lee-long-0001", None, "lee"),
        ("lee-long-0002", None, "lee"),
        ("lee-인터뷰-0001", "Hello there.", "Ann"),
    ]
    assert [clip.duration_s for clip in found.values()] == pytest.approx(
        [1.5, 1, 2, 2, 1.5], abs=0.2
    )
    assert found["kim-🎉-0002"].language == "ko"
    assert found["kim-🎉-0001"].face is not None
    assert all(clip.speech is not None for clip in found.values())
    assert found["lee-long-0001"].face is None


@pytest.mark.usefixtures("in_process")
def test_a_stopped_build_goes_on_with_its_own_transcripts_only(
    tmp_path: Path, extract_settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "raw", {"a.wav": make_sound(tone((0, 5), length_s=5))})
    texts = write(tmp_path / "texts", {"a.srt": SRT})
    sound = replace(extract_settings, face=None)
    settings = BuildSettings("videos", source, tmp_path / "out", sound)
    settings = replace(settings, options={"transcripts": texts})
    with monkeypatch.context() as stopped:
        stopped.setattr(build, "_finished", lambda *_: (_ for _ in [1 / 0]))
        with pytest.raises(ZeroDivisionError):
            build_dataset(settings)
    others: tuple[dict[str, Path | str], ...] = (
        {},
        {"transcripts": write(tmp_path / "others", {"a.srt": SRT})},
        {"transcripts": texts, "encoding": "cp949"},
    )
    for options in others:
        with pytest.raises(UserError, match="left by a build with other settings"):
            build_dataset(replace(settings, options=options))
    write(texts, {"a.srt": SRT.replace("04,000", "04,800").replace("Hello", "Good day")})
    build_dataset(settings)
    found = clips(settings.out).values()
    assert [(clip.text, clip.duration_s) for clip in found] == [
        ("Good day there.", 1.5),
        ("Bye.", 1.8),
    ]
