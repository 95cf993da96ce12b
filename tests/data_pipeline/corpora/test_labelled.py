"""The labelled corpora: in their own layout, small, and the real ones where they are."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.corpora.base import Recording, load_corpus
from data_pipeline.corpora.korean_speech import EMOTIONS, NAME, PARTS
from data_pipeline.corpora.source import open_source
from data_pipeline.errors import UserError


def read(name: str, root: Path) -> list[Recording]:
    return list(load_corpus(name).recordings(open_source(root)))


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


RAVDESS = "file\tdur_s\temotion\tintensity\ttext\trepetition\tactor\tsex\n"
KOREAN = "wav\tpart\tspeaker\temotion\tdur_s\tsr\ttext\n"


def test_ravdess(tmp_path: Path) -> None:
    line = "03-01-01.ogg\t3.3\thappy\tstrong\tKids are talking by the door\t1\t7\tmale\n"
    root = write(tmp_path, {"manifest.tsv": RAVDESS + line, "speech/03-01-01.ogg": b""})
    (found,) = read("ravdess", root)
    assert (found.key, found.media) == ("03-01-01", "speech/03-01-01.ogg")
    assert (found.speaker, found.language) == ("actor-07", "en")
    assert found.labels == {"emotion": "happy", "intensity": "strong"}


def units(**arrays: NDArray[np.generic]) -> bytes:
    content = io.BytesIO()
    np.savez(content, allow_pickle=True, **arrays)
    return content.getvalue()


def test_ravdess_has_the_action_units_of_its_videos(tmp_path: Path) -> None:
    lines = "".join(f"03-{n}.ogg\t3.3\thappy\tstrong\tKids\t1\t7\tmale\n" for n in "ab")
    sounds: dict[str, str | bytes] = {f"speech/03-{n}.ogg": b"" for n in "ab"}
    means = np.arange(70, dtype=np.float32).reshape(2, 35)
    archive = units(clip=np.array(["01-c", "01-b"]), au_mean=means)
    root = write(tmp_path, {"manifest.tsv": RAVDESS + lines, **sounds})
    assert [one.action_units for one in read("ravdess", root)] == [None, None]
    write(tmp_path, {"face_au_means.npz": archive})
    first, second = read("ravdess", root)
    assert (first.action_units, second.action_units) == (None, tuple(range(35, 70)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        units(clip=np.array(["a"])),
        units(clip=np.array(["a"]), au_mean=np.zeros((1, 34))),
        units(clip=np.array(["a"]), au_mean=np.full((1, 35), np.nan)),
        units(clip=np.array(["a"]), au_mean=np.full((1, 35), 1e9)),
        units(clip=np.array(["a"]), au_mean=np.full((1, 35), "a")),
        units(clip=np.array(["a"]), au_mean=np.array(0)),
        units(clip=np.array(0), au_mean=np.zeros((1, 35))),
        units(clip=np.array([{}], dtype=object), au_mean=np.zeros((1, 35))),
    ],
)
def test_action_units_of_another_form_are_refused(tmp_path: Path, content: bytes) -> None:
    line = "03-a.ogg\t3.3\thappy\tstrong\tKids\t1\t7\tmale\n"
    write(tmp_path, {"manifest.tsv": RAVDESS + line, "03-a.ogg": b"", "face_au_means.npz": content})
    with pytest.raises(UserError, match=r"RAVDESS: face_au_means\.npz cannot be read"):
        read("ravdess", tmp_path)


def test_ravdess_as_published_takes_videos_before_sounds(tmp_path: Path) -> None:
    names = [
        "Video_Speech_Actor_01/Actor_01/01-01-03-02-02-01-01.mp4",
        "Video_Speech_Actor_01/Actor_01/02-01-03-02-02-01-01.mp4",
        "Audio_Speech_Actors_01-24/Actor_01/03-01-03-02-02-01-01.wav",
        "Audio_Speech_Actors_01-24/Actor_24/03-01-01-01-01-02-24.wav",
        "Audio_Song_Actors_01-24/Actor_24/03-02-01-01-01-02-24.wav",
    ]
    sound, video = read("ravdess", write(tmp_path, dict.fromkeys(names, b"")))
    assert (video.key, video.media) == ("01-01-03-02-02-01-01", names[0])
    assert (video.speaker, video.text) == ("actor-01", "Dogs are sitting by the door")
    assert video.labels == {"emotion": "happy", "intensity": "strong"}
    assert (sound.media, sound.speaker) == (names[3], "actor-24")
    assert sound.labels == {"emotion": "neutral", "intensity": "normal"}


def test_ravdess_takes_a_file_once_that_is_there_twice(tmp_path: Path) -> None:
    name = "Actor_01/03-01-03-02-02-01-01.wav"
    root = write(tmp_path, {name: b"", f"audio_speech_actors_01-24/{name}": b""})
    assert [one.media for one in read("ravdess", root)] == [name]


def test_korean_speech_has_labels_where_there_are_any(tmp_path: Path) -> None:
    lines = (
        'nea1.ogg\tEmotional\tnea\tjoy\t5.8\t16000\t"좋아요" 라고\n'
        "pfa1.ogg\tPersonality\tpfa\t\t2\t16000\t네\n"
    )
    root = write(tmp_path, {"manifest.tsv": KOREAN + lines, "nea1.ogg": b"", "pfa1.ogg": b""})
    first, second = read("korean_speech", root)
    assert (first.text, first.labels, first.speaker) == ('"좋아요" 라고', {"emotion": "joy"}, "nea")
    assert (second.labels, second.session) == ({}, "Personality")


def test_korean_speech_as_published(tmp_path: Path) -> None:
    names = ("E/nea/wav/nea00205.wav", "P/pfa/wav/pfa00001.wav", "E/emh/wav/emh00301.wav")
    texts: dict[str, str | bytes] = {
        "E/nea/transcript/nea00205.txt": "좋아요.\n",
        "E/nea/script/nea00205.txt": "좋습니다.\n",
        "E/emh/script/emh00301.txt": "아니요.\n",
        "P/pfa/transcript/pfa00001.txt": "그때도",
    }
    found = read("korean_speech", write(tmp_path, texts | dict.fromkeys(names, b"")))
    assert [(one.key, one.text, one.speaker, one.session, one.labels) for one in found] == [
        ("emh00301", None, "emh", "Emotional", {"emotion": "sadness"}),
        ("nea00205", "좋아요.", "nea", "Emotional", {"emotion": "anger"}),
        ("pfa00001", "그때도", "pfa", "Personality", {}),
    ]
    assert found[1].media == names[0]
    write(tmp_path, {"E/nea/wav/nea00401.wav": b""})
    with pytest.raises(UserError, match=r"nea00401.wav has a number beyond those of the four"):
        read("korean_speech", tmp_path)


@pytest.mark.parametrize(("corpus", "header"), [("ravdess", RAVDESS), ("korean_speech", KOREAN)])
def test_bad_manifests_are_named(tmp_path: Path, corpus: str, header: str) -> None:
    with pytest.raises(UserError, match=r"the source has no manifest\.tsv"):
        read(corpus, tmp_path)
    write(tmp_path, {"manifest.tsv": header.replace("emotion", "mood")})
    with pytest.raises(UserError, match=r"manifest\.tsv has no column 'emotion'"):
        read(corpus, tmp_path)
    write(tmp_path, {"manifest.tsv": f"{header}a.ogg\tb\n"})
    with pytest.raises(UserError, match=r"line 2 of manifest\.tsv has not as many columns"):
        read(corpus, tmp_path)
    write(tmp_path, {"manifest.tsv": header + "\t".join(["a.ogg"] * header.count("\t")) + "\tz\n"})
    with pytest.raises(UserError, match=r"no file a\.ogg \(1 are missing\)"):
        read(corpus, tmp_path)
    write(tmp_path, {"manifest.tsv": b"\xff\xfe"})
    with pytest.raises(UserError, match="is not UTF-8"):
        read(corpus, tmp_path)


def test_fer2013_is_faces_in_two_splits(tmp_path: Path) -> None:
    root = write(tmp_path, {"train/sad/1.jpg": b"", "test/happy/Private.2.jpg": b"", "x.txt": b""})
    test, train = read("fer2013", root)
    assert (train.key, train.media, train.aligned_face) == ("train-sad-1", "train/sad/1.jpg", True)
    assert (test.key, test.labels) == ("test-happy-Private-2", {"emotion": "happy"})
    with pytest.raises(UserError, match=r"the source has no train/<class>/<image>"):
        read("fer2013", write(tmp_path / "flat", {"1.jpg": b""}))


KEMDY_HEADER = (
    ",Wav,,Segment ID,Total Evaluation,,,Eval01F,,\r\n"
    ",start,end,,Emotion,Valence,Arousal,Emotion,Valence,Arousal\r\n"
)


def kemdy_line(segment: str, emotion: str) -> str:
    return f"1,0.1,2.5,{segment},{emotion},3,3,neutral,3,3\r\n"


def test_kemdy19_takes_each_segment_from_its_speakers_own_table(tmp_path: Path) -> None:
    woman, man = "Sess01_script01_F001", "Sess01_impro02_M003"
    both = kemdy_line(woman, "happy") + kemdy_line(man, "angry")
    judged_by_man = kemdy_line(woman, "sad") + kemdy_line(man, "neutral")
    root = write(
        tmp_path,
        {
            "annotation/Session01_F_res.csv": KEMDY_HEADER + both,
            "annotation/Session01_M_res.csv": KEMDY_HEADER + judged_by_man,
            f"wav/Session01/{woman}.wav": b"",
            f"wav/Session01/{woman}.txt": "안녕 하세요\n둘째 줄",
            f"wav/Session01/{man}.wav": b"",
            f"wav/Session01/{man}.txt": "반가워".encode("cp949"),
        },
    )
    first, second = read("kemdy19", root)
    assert (first.key, first.labels, first.speaker) == (woman, {"emotion": "happy"}, "Sess01-F")
    assert (second.key, second.labels, second.text) == (man, {"emotion": "neutral"}, "반가워")
    assert (first.text, first.session) == ("안녕 하세요", "Sess01")


def test_kemdy20_is_cleaned_as_the_baseline_does(tmp_path: Path) -> None:
    names = [f"Sess12_script03_User023F_{number:03}" for number in range(4)]
    emotions = ["disqust", "neutral;happy", "surprise", "sad"]
    lines = "".join(map(kemdy_line, names, emotions)) + ",,,,,,,,,\r\n\r\n"
    files: dict[str, str | bytes] = {"annotation/Sess12_eval.csv": KEMDY_HEADER + lines}
    for name in names[:3]:  # the last one's files are missing
        files |= {f"wav/Session12/{name}.wav": b"", f"wav/Session12/{name}.txt": "네"}
    found = read("kemdy20", write(tmp_path, files))
    assert [(one.key, one.labels["emotion"]) for one in found] == [
        (names[0], "disgust"),
        (names[2], "surprise"),
    ]
    assert {(one.speaker, one.session) for one in found} == {("User023F", "Sess12")}


def test_marks_of_kemdys_transcribers_are_no_text(tmp_path: Path) -> None:
    said = {
        "n/ 어/ 그+ 그래서 l/": "어 그 그래서",
        "b/아 A/S 맡겼* 어/, N/": "아 A/S 맡겼 어,",
        "c/ u/": None,
    }
    names = [f"Sess12_script03_User023F_{number:03}" for number in range(len(said))]
    lines = "".join(kemdy_line(name, "happy") for name in names)
    files: dict[str, str | bytes] = {"annotation/Sess12_eval.csv": KEMDY_HEADER + lines}
    for name, text in zip(names, said, strict=True):
        files |= {f"wav/Session12/{name}.wav": b"", f"wav/Session12/{name}.txt": text}
    found = read("kemdy20", write(tmp_path, files))
    assert [one.text for one in found] == list(said.values())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "has not its two header lines"),
        (KEMDY_HEADER.replace("Segment ID", "Segment"), "has no column 'segment id'"),
        (KEMDY_HEADER.replace("Emotion", "Mood"), "has no column 'total evaluation' / 'emotion'"),
        (f"{KEMDY_HEADER}1,2\r\n", "a line that is too short: 1,2"),
    ],
)
def test_bad_kemdy_tables_are_named(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read("kemdy20", write(tmp_path, {"annotation/Sess01_eval.csv": table}))


@pytest.mark.corpora
def test_real_ravdess(shared: Path) -> None:
    found = read("ravdess", shared / "data" / "ravdess.tar")
    assert len(found) == 1200
    assert len({one.speaker for one in found}) == 20
    assert Counter(str(one.labels["emotion"]) for one in found)["neutral"] == 80


@pytest.mark.corpora
def test_real_korean_speech(shared: Path) -> None:
    found = read("korean_speech", shared / "data" / "korean_speech.tar")
    for one in found:  # a name says what the table says
        match = NAME.fullmatch(one.key)
        assert match
        assert (match["speaker"], PARTS[match["kind"]]) == (one.speaker, one.session)
        place = (int(match["number"]) - 1) // 100
        assert one.labels.get("emotion") in (None, EMOTIONS[place])
    labels = Counter(str(one.labels.get("emotion", "")) for one in found)
    assert labels == {"": 463, "neutral": 75, "joy": 75, "anger": 75, "sadness": 75}
