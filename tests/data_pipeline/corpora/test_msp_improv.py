"""MSP-IMPROV in its own layout, small."""

from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from tests.data_pipeline.corpora.test_labelled import read, write

TABLE = """\
UTD-IMPROV-S01A-F01-P-FM01.avi; A; A:2.666667; V:2.500000; D:3.000000 ; N:3.833333;
WORKER_1-p2; Angry; Angry,Frustrated; A:3.000000; V:2.000000; D:NaN; N:4.000000;

UTD-IMPROV-S20N-M06-S-MF11.avi; X; A:3.0; V:3.5; D:NaN ; N:NaN;
"""


def files() -> dict[str, str | bytes]:
    scene = "Video/session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01"
    said = "Human_transcriptions/All_human_transcriptions/MSP-IMPROV-S01A-F01-P-FM01.txt"
    return {
        "Evalution.txt": TABLE,
        f"{scene}.avi": b"",
        f"{scene}.wav": b"",
        "Audio/session6/S20N/S/UTD-IMPROV-S20N-M06-S-MF11.wav": b"",
        said: b"You're \x93late\x94,\r\n  again.\r\n",
        "ASR/MSP-IMPROV-S20N-M06-S-MF11.txt": "you'll ate",
    }


def test_turns_have_their_speakers_labels_and_media(tmp_path: Path) -> None:
    first, second = read("msp_improv", write(tmp_path, files()))
    assert first.key == "MSP-IMPROV-S01A-F01-P-FM01"
    assert first.media == "Video/session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.avi"
    assert (first.speaker, first.session, first.text) == (
        "F01",
        "session1",
        "You're “late”, again.",
    )
    assert first.labels == {
        "emotion": "A",
        "activation": 2.666667,
        "valence": 2.5,
        "dominance": 3.0,
        "naturalness": 3.833333,
        "scenario": "natural",
    }
    assert second.media == "Audio/session6/S20N/S/UTD-IMPROV-S20N-M06-S-MF11.wav"
    assert (second.speaker, second.session) == ("M06", "session6")
    assert second.text is None, "a machine's transcript is none of a person's"
    assert second.labels == {
        "emotion": "X",
        "activation": 3.0,
        "valence": 3.5,
        "scenario": "improvised",
    }


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the source has no Evalution\.txt"):
        read("msp_improv", tmp_path)
    write(tmp_path, {"MSP-IMPROV/Evaluation.txt": TABLE})
    message = r"no file of turn S01A-F01-P-FM01 \(2 are missing\)"
    with pytest.raises(UserError, match=message):
        read("msp_improv", tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "UTD-IMPROV-S01A-F01-P.avi; A; A:2.6;",
        "UTD-IMPROV-S01A-F01-P-FM01.avi",
        "UTD-IMPROV-S01A-F01-P-FM01.avi; AH; A:2.6;",
        "UTD-IMPROV-S01A-F01-P-FM01.avi; A; A:high;",
        "UTD-IMPROV-S01A-F01-P-FM01.avi; A; B:2.0;",
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str) -> None:
    table = TABLE.replace("UTD-IMPROV-S20N", f"{line}\nUTD-IMPROV-S20N")
    root = write(tmp_path, files() | {"Evalution.txt": table})
    with pytest.raises(UserError, match=r"line 4 of Evalution\.txt is not 'UTD-IMPROV-<turn>"):
        read("msp_improv", root)
