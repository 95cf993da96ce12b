import json

import numpy as np

from data_pipeline.build_part import BuildPart
from data_pipeline.build_report import BuildOrigin, BuildTally, count_kinds, sum_reports
from data_pipeline.clip import Clip
from data_pipeline.filters import Dropped, Filters

ROWS = np.ones((2, 3), np.float16)


def quarantine(*reasons: str) -> str:
    return "".join(json.dumps({"key": "k", "reason": reason}) + "\n" for reason in reasons)


def test_reasons_that_differ_in_numbers_or_in_what_the_decoder_said_are_of_one_kind() -> None:
    lines = quarantine(
        "the video cannot be decoded from 1.25 s on",
        "the video cannot be decoded from 3 s on",
        "the sound cannot be decoded (Invalid data (5) in a)",
        "the sound cannot be decoded (End of file)",
        "x" * 1000,
    )
    assert count_kinds(lines.splitlines()) == {
        "the sound cannot be decoded": 2,
        "the video cannot be decoded from N s on": 2,
        "x" * 80: 1,
    }


def test_every_recording_is_counted_once_and_shares_are_of_all_of_them() -> None:
    tally = BuildTally()
    tally.add("train", Clip("a", text=" ", duration_s=0.1, face=ROWS, speech=ROWS))
    tally.add("train", Clip("b", text="so", duration_s=0.2))
    tally.add("valid", Clip("c", text="so", duration_s=3600, speech=ROWS))
    dropped = [("d", Dropped("max_duration_s", 9, 2.5))]
    filters = Filters(min_words=1, max_duration_s=2.5)
    origin = BuildOrigin(corpus="grid", corpus_sha256="0", filters=filters, samples_per_shard=100)
    report = tally.report(origin, None, dropped, quarantine("it is broken"))
    assert (report.recordings, report.quarantined) == (5, 1)
    assert report.samples == {"train": 2, "valid": 1}
    assert report.seconds == {"train": 0.3, "valid": 3600}
    assert report.missing == {"text": 1, "face": 2, "speech": 1}
    assert [line.split() for line in report.table()] == [
        ["recordings", "5", "100.0%"],
        ["written:", "train", "2", "40.0%"],
        ["written:", "valid", "1", "20.0%"],
        ["without", "text", "1", "33.3%"],
        ["without", "face", "2", "66.7%"],
        ["without", "speech", "1", "33.3%"],
        ["filtered:", "min_words", "1", "0", "0.0%"],
        ["filtered:", "max_duration_s", "2.5", "1", "20.0%"],
        ["broken:", "it", "is", "broken", "1", "20.0%"],
        ["hours", "of", "media", "1.00"],
    ]


def test_files_left_out_are_the_same_in_all_parts_and_subtitles_inside_are_added_up() -> None:
    origin = BuildOrigin(
        corpus="videos", corpus_sha256="0", filters=Filters(), samples_per_shard=100
    )
    report = BuildTally().report(origin, None, [], "")
    assert "left_out" not in json.loads(report.content)
    left_out = {"": 1, ".docx": 2, ".mod": 2, ".txt": 1200}
    origin = origin.model_copy(update={"left_out": left_out})
    inside = {"taken": 1200}, {"taken": 34, "not taken: forced alone": 5}
    parts = [
        BuildTally().report(origin, BuildPart(number, 2), [], "", subtitles=of)
        for number, of in enumerate(inside, start=1)
    ]
    whole = sum_reports(parts)
    assert json.loads(whole.content)["left_out"] == left_out
    assert "subtitles" not in json.loads(report.content)
    assert whole.subtitles == {"not taken: forced alone": 5, "taken": 1234}
    assert [line.split() for line in whole.table()[1:3]] == [
        ["subtitles", "inside:", "not", "taken:", "forced", "alone", "5"],
        ["subtitles", "inside:", "taken", "1,234"],
    ]
    assert whole.table()[-1] == (
        "files that were left out: 1,200 .txt, 2 .docx, 2 .mod, 1 without suffix"
    )
