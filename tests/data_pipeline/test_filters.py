import math
from dataclasses import replace

import numpy as np
import pytest

from data_pipeline.errors import UserError
from data_pipeline.filters import Dropped, Filters, Measures, count_words, speech_level


def test_nothing_is_dropped_unless_it_is_asked_to() -> None:
    assert Filters().first_failed(Measures(0, 0.0, -120.0, 0.0, 0.0)) is None


def test_thresholds_themselves_pass_and_what_a_clip_does_not_have_is_not_judged() -> None:
    filters = Filters(2, 0.5, 1.0, -50.0, 0.5, 1.0)
    assert filters.first_failed(Measures(2, 0.5, -50.0, 0.5, 1.0)) is None
    assert filters.first_failed(Measures(2, 1.0)) is None
    assert filters.first_failed(Measures()) is None


@pytest.mark.parametrize(
    ("measures", "dropped"),
    [
        (Measures(1, 0.1, -60, 0), Dropped("min_words", 1, 2)),
        (Measures(2, 0.4, -60, 0), Dropped("min_duration_s", 0.4, 0.5)),
        (Measures(None, 1.1, -60, 0), Dropped("max_duration_s", 1.1, 1.0)),
        (Measures(2, 0.5, -50.1, 0), Dropped("min_speech_dbfs", -50.1, -50.0)),
        (Measures(None, 0.5, None, 0.49, 0.0), Dropped("min_face_share", 0.49, 0.5)),
        (Measures(None, 0.5, None, 0.5, 0.0), Dropped("min_speaker_score", 0.0, 1.0)),
    ],
)
def test_the_first_filter_that_a_clip_fails_is_named(measures: Measures, dropped: Dropped) -> None:
    assert Filters(2, 0.5, 1.0, -50.0, 0.5, 1.0).first_failed(measures) == dropped


def test_what_is_required_is_judged_as_soon_as_it_is_known() -> None:
    filters = Filters(min_words=2, min_face_share=0.5, require=("speech", "face", "text"))
    assert [*filters.thresholds] == [
        "require_text",
        "min_words",
        "min_face_share",
        "require_face",
        "require_speech",
    ]
    assert filters.first_failed(Measures(text=0)) == Dropped("require_text", 0, 1)
    has = Measures(2, text=1)
    assert filters.first_failed(has) is None
    assert filters.first_failed(replace(has, face=0, speech=0)) == Dropped("require_face", 0, 1)
    assert filters.first_failed(replace(has, face=1, speech=0)) == Dropped("require_speech", 0, 1)
    assert filters.first_failed(replace(has, face=1, speech=1)) is None
    assert Filters().first_failed(Measures(text=0, face=0, speech=0)) is None


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (Filters(require=("text", "sound")), "--require sound: give text, face, speech, or some"),
        (Filters(min_words=-1), "--min-words -1: give a number of 0 or more"),
        (Filters(min_face_share=50), "--min-face-share 50: give a number from 0 to 1"),
        (Filters(min_speaker_score=4), "--min-speaker-score 4: give a number from 0 to 3"),
        (Filters(min_speech_dbfs=3), "--min-speech-dbfs 3: give a number from -120 to 0"),
        (Filters(max_duration_s=math.nan), "--max-duration-s nan: give a number of 0 or more"),
        (Filters(None, 3, 2), "--min-duration-s 3 is more than --max-duration-s 2"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(filters: Filters, message: str) -> None:
    with pytest.raises(UserError, match=message):
        filters.check()


def test_level_is_the_rms_below_full_scale() -> None:
    tone = np.sin(np.arange(16_000, dtype=np.float32) * 0.1)
    assert speech_level(tone) == pytest.approx(-3.01, abs=0.05)
    assert speech_level(tone * 0.01) == pytest.approx(-43.01, abs=0.05)
    assert speech_level(np.zeros(10, np.float32)) == speech_level(tone * 1e-9) == -120
    assert speech_level(None) is None


def test_blank_text_is_no_text() -> None:
    assert [count_words(text) for text in ("so it is", " so ", " ", "", None)] == [
        3, 1, None, None, None,
    ]  # fmt: skip
