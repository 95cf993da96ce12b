"""IEMOCAP in its own layout, small: two sessions, a dialogue with a video and one without."""

from pathlib import Path

import pytest

from data_pipeline.clip import Word
from data_pipeline.corpora.iemocap import parse_alignment
from data_pipeline.errors import UserError
from tests.data_pipeline.corpora.test_labelled import read, write

HEAD = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
RATERS = "C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
ALIGNMENT = """\
\t SFrm  EFrm    SegAScr Word
\t    0    44    -200000 <s>
\t   45    92    -351210 EXCUSE(8)
\t   93   103          1 ++BREATHING++
\t  104   130    -120000 ME
\t  131   194    -900000 </s>
 Total score:    -1571209

"""


def line(name: str, emotion: str = "neu", begin: str = "6.2901", end: str = "8.2357") -> str:
    return f"[{begin} - {end}]\t{name}\t{emotion}\t[2.5000, 3.0000, 1.5000]\n{RATERS}"


def files() -> dict[str, str | bytes]:
    one, two = "Session1/dialog", "Session5/dialog"
    said = "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\nM: Yeah.\n"
    also = "Ses01F_impro01_M000 [007.5-010.0]: It's  caf\xe9: [LAUGHTER]\n"
    return {
        f"{one}/EmoEvaluation/Ses01F_impro01.txt": HEAD
        + line("Ses01F_impro01_F000")
        + line("Ses01F_impro01_M000", "xxx", "7.5", "10.0"),
        f"{one}/EmoEvaluation/Categorical/Ses01F_impro01_e2_cat.txt": "Ses01F_impro01_F000 :x\n",
        f"{one}/EmoEvaluation/._Ses01F_impro01.txt": b"\x00\x05\x16\x07",
        f"{one}/transcriptions/Ses01F_impro01.txt": (said + also).encode("latin-1"),
        f"{one}/avi/DivX/Ses01F_impro01.avi": b"",
        f"{one}/avi/DivX/._Ses01F_impro01.avi": b"",
        "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav": b"",
        "Session1/sentences/ForcedAlignment/Ses01F_impro01/Ses01F_impro01_F000.wdseg": ALIGNMENT,
        f"{two}/EmoEvaluation/Ses05M_script01_1b.txt": HEAD
        + line("Ses05M_script01_1b_M003", "exc", "1", "2.5"),
        f"{two}/transcriptions/Ses05M_script01_1b.txt": "Ses05M_script01_1b_M003 [1-2.5]: What?\n",
        "Session5/sentences/wav/Ses05M_script01_1b/Ses05M_script01_1b_M003.wav": b"",
    }


EVALUATION = "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
WAV = "Session5/sentences/wav/Ses05M_script01_1b/Ses05M_script01_1b_M003.wav"
VIDEO = "Session1/dialog/avi/DivX/Ses01F_impro01.avi"


def test_utterances_of_a_video_are_spans_and_halves_of_it(tmp_path: Path) -> None:
    woman, man, _ = read("iemocap", write(tmp_path, files()))
    assert (woman.key, woman.media, woman.span) == ("Ses01F_impro01_F000", VIDEO, (6.2901, 8.2357))
    assert (man.media, man.span) == (VIDEO, (7.5, 10.0))
    assert woman.region == (0, 0, 0.5, 1), "she wears the markers, as the file's name says"
    assert man.region == (0.5, 0, 1, 1)
    assert (woman.speaker, man.speaker) == ("Ses01F", "Ses01M")
    assert {woman.session, man.session} == {"Ses01"}


def test_labels_and_texts(tmp_path: Path) -> None:
    woman, man, other = read("iemocap", write(tmp_path, files()))
    scores = {"valence": 2.5, "activation": 3.0, "dominance": 1.5}
    assert woman.labels == {"emotion": "neu", **scores}
    assert [one.labels["emotion"] for one in (man, other)] == ["xxx", "exc"]
    assert [one.text for one in (woman, man, other)] == [
        "Excuse me.",
        "It's caf\u00e9: [LAUGHTER]",
        "What?",
    ]
    assert {one.language for one in (woman, man, other)} == {"en"}


def test_without_a_video_the_utterance_has_a_file_of_its_own(tmp_path: Path) -> None:
    other = read("iemocap", write(tmp_path, files()))[2]
    assert (other.media, other.span, other.region) == (WAV, None, None)
    assert (other.speaker, other.session) == ("Ses05M", "Ses05")


def test_words_have_times_from_the_utterances_begin(tmp_path: Path) -> None:
    woman, man, _ = read("iemocap", write(tmp_path, files()))
    assert woman.words == (Word("excuse", 0.45, 0.93), Word("me", 1.04, 1.31))
    assert man.words == ()


def test_a_bad_alignment_is_named() -> None:
    with pytest.raises(UserError, match=r"a\.wdseg: '12 WHAT' is no word with its frames"):
        parse_alignment("a.wdseg", "12 WHAT")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the source has no EmoEvaluation/Ses\*\.txt"):
        read("iemocap", tmp_path)
    root = write(tmp_path, files())
    (root / WAV).unlink()
    message = r"no video and no sound of Ses05M_script01_1b_M003 \(1 are missing\)"
    with pytest.raises(UserError, match=message):
        read("iemocap", root)
    (root / "Session1/dialog/transcriptions/Ses01F_impro01.txt").unlink()
    with pytest.raises(UserError, match=r"no transcript of Ses01F_impro01_F000 \(2 are missing\)"):
        read("iemocap", root)


def test_a_malformed_judgement_is_named(tmp_path: Path) -> None:
    root = write(tmp_path, files() | {EVALUATION: HEAD + "[6.29 - 8.23]\tSes01F_impro01\tneu\n"})
    with pytest.raises(UserError, match=r"line 3 of .*impro01\.txt is not '\[begin - end\]"):
        read("iemocap", root)
