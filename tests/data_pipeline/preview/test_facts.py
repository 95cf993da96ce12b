"""The facts of a dataset against counting over its clips."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.http_server import FileServer
from data_pipeline.clip import Clip, Label
from data_pipeline.preview import facts as facts_module
from data_pipeline.preview.facts import COVERAGE, OTHERS, SplitFacts, gather, split_facts
from data_pipeline.shards.place import parse_place
from data_pipeline.shards.reader import open_dataset
from data_pipeline.shards.remote import RANGES
from tests.data_pipeline.shards.samples import make_clips, write_clips
from tests.data_pipeline.small_dataset import write_split

LABELS: list[dict[str, Label]] = [
    {"emotion": "glad", "level": 2}, {"emotion": "sad"}, {}, {"score": 0.25, "kinds": [1, 3]},
]  # fmt: skip
JPEG = b"\xff\xd8 not looked at"


def varied(count: int) -> list[Clip]:
    """Clips with all kinds of labels; some frames without a face, some clips without a length."""
    clips = []
    for number, clip in enumerate(make_clips(count)):
        face = None if clip.face is None else clip.face.copy()
        expression = None if clip.expression is None else clip.expression.copy()
        if face is not None and expression is not None:
            face[: number % 3], expression[: number % 3] = 0, 0
        clips.append(
            replace(
                clip,
                labels=LABELS[number % 4],
                session="" if number % 3 else "one",
                language="en" if number % 2 else "",
                words=clip.words if number % 2 else (),
                duration_s=0.0 if number == 5 else 1.0 + number,
                tags=("a",) * (number % 2),
                image=JPEG if number % 5 == 0 else None,
                face=face,
                expression=expression,
            )
        )
    return clips


def having(clips: list[Clip], name: str) -> int:
    return sum(bool(getattr(clip, name)) for clip in clips)


def rows_of(clips: list[Clip], name: str) -> list[int]:
    return [len(rows) for clip in clips if (rows := getattr(clip, name)) is not None]


def check(facts: SplitFacts, clips: list[Clip]) -> None:
    """What was gathered is what the clips have."""
    assert (facts.samples, facts.looked_at, facts.clips) == (len(clips),) * 3
    assert not facts.broken
    assert dict(facts.coverage) == {
        "text": having(clips, "text"),
        "word times": having(clips, "words"),
        "tags": having(clips, "tags"),
        "labels": having(clips, "labels"),
        "image": having(clips, "image"),
        "face": len(rows_of(clips, "face")),
        "expression": len(rows_of(clips, "expression")),
        "speech": len(rows_of(clips, "speech")),
    }
    assert set(COVERAGE) == set(facts.coverage)
    durations = [clip.duration_s for clip in clips if clip.duration_s]
    assert facts.durations_s == durations
    assert facts.seconds == pytest.approx(sum(durations))
    assert facts.words == [len(clip.text.split()) for clip in clips if clip.text]
    assert facts.face_rows == rows_of(clips, "face")
    assert facts.speech_rows == rows_of(clips, "speech")
    frames = [row.any() for clip in clips if clip.face is not None for row in clip.face]
    assert (facts.frames, facts.frames_with_face) == (len(frames), sum(frames))
    assert facts.frames_with_face < facts.frames
    assert facts.speakers == Counter(clip.speaker for clip in clips)
    assert facts.sessions == Counter(clip.session for clip in clips if clip.session)
    assert facts.languages == Counter(clip.language for clip in clips if clip.language)


def check_labels(facts: SplitFacts, clips: list[Clip]) -> None:
    emotions = Counter(str(clip.labels["emotion"]) for clip in clips if "emotion" in clip.labels)
    assert facts.labels["emotion"].classes == emotions
    assert facts.labels["level"].classes == Counter({"2": facts.labels["level"].clips})
    assert facts.labels["score"].scores == [0.25] * sum("score" in one.labels for one in clips)
    kinds = facts.labels["kinds"]
    assert kinds.classes == Counter({"1": kinds.clips, "3": kinds.clips})
    assert kinds.clips == facts.labels["score"].clips > 0


def test_facts_are_those_of_the_clips(tmp_path: Path) -> None:
    train, valid = varied(13), varied(7)
    valid = [replace(clip, key=f"v{number}") for number, clip in enumerate(valid)]
    facts = gather(open_dataset(write_clips(tmp_path / "d", train=train, valid=valid)), seed=0)
    assert [one.name for one in facts.splits] == ["train", "valid"]
    for split, clips in zip(facts.splits, (train, valid), strict=True):
        check(split, clips)
        check_labels(split, clips)
        assert split.whole == len(clips)
        assert split.opened == split.shards == -(-len(clips) // 4)
    assert (facts.dropped, facts.report, facts.notes) == ({}, (), ())


def test_facts_of_a_url_are_those_of_the_folder(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install 'memo[remote]'")
    folder = write_clips(tmp_path / "d", train=varied(9))
    (folder / "quarantine.jsonl").write_text(json.dumps({"reason": "too dark"}) + "\n")
    with FileServer(folder) as server:
        there = gather(open_dataset(parse_place(str(server.url)), RANGES), seed=0)
    here = gather(open_dataset(folder), seed=0)
    assert there == here
    assert there.dropped == {"quarantine.jsonl": Counter({"too dark": 1})}


def test_of_a_large_split_a_sample_by_the_seed_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts_module, "MOST_CLIPS", 6)
    monkeypatch.setattr(facts_module, "MOST_WHOLE", 2)
    clips = make_clips(40)
    split = open_dataset(write_clips(tmp_path / "d", train=clips)).split("train")
    some = [split_facts(split, seed) for seed in (0, 0, 1)]
    assert some[0] == some[1]
    assert some[0].words != some[2].words
    for facts, seed in zip(some[1:], (0, 1), strict=True):
        order = split.order(seed).visits(np.arange(6)).samples
        chosen = [clips[sample] for sample in sorted(order.tolist())]
        assert (facts.samples, facts.clips, facts.whole, facts.shards) == (40, 6, 2, 10)
        assert facts.opened == len({sample // 4 for sample in order.tolist()})
        assert facts.speech_rows == rows_of(chosen, "speech")
        assert facts.coverage["face"] == len(rows_of(chosen, "face"))
        assert facts.frames == sum(rows_of([clips[sample] for sample in order[:2]], "face"))


def test_broken_clips_are_counted_with_their_reason(tmp_path: Path) -> None:
    facts = split_facts(write_split(tmp_path / "d", 9, bad=(2, 5)), seed=0)
    assert (facts.samples, facts.clips, facts.looked_at, facts.broken.total()) == (9, 7, 9, 2)
    assert all(reason.startswith("speech.npy: ") for reason in facts.broken)


def test_names_beyond_the_most_are_counted_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts_module, "MOST_NAMES", 2)
    monkeypatch.setattr(facts_module, "MOST_LABELS", 1)
    clips = [
        replace(clip, speaker=name, labels={"x": 1, "y": 2})
        for clip, name in zip(make_clips(5), ("b", "a", "c", "b", "l" * 200), strict=True)
    ]
    facts = split_facts(open_dataset(write_clips(tmp_path / "d", t=clips)).split("t"), seed=0)
    assert facts.speakers == Counter({"b": 2, "a": 1, OTHERS: 2})
    assert list(facts.labels) == ["x"]
    monkeypatch.setattr(facts_module, "MOST_NAMES", 9)
    facts = split_facts(open_dataset(tmp_path / "d").split("t"), seed=0)
    assert max(map(len, facts.speakers)) == facts_module.LONGEST_NAME


def test_files_beside_the_dataset_say_what_was_left_out(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "d", train=make_clips(3))
    reasons = ["too dark", "no sound", "too dark"]
    lines = [json.dumps({"shard": "", "key": "k", "reason": reason}) for reason in reasons]
    (folder / "quarantine.jsonl").write_text("\n".join([*lines, '{"torn', "[]", ""]))
    report = {"kept": 3, "dropped": {"short": 2, "by": {"share": 0.5}}, "keys": ["a", "b"], "x": ""}
    (folder / "build_report.json").write_text(json.dumps(report))
    facts = gather(open_dataset(folder), seed=0)
    counts = facts.dropped["quarantine.jsonl"]
    assert (counts["too dark"], counts["no sound"], counts.total()) == (2, 1, 5)
    expected = {"kept": 3, "dropped, short": 2, "dropped, by, share": 0.5, "keys, entries": 2}
    assert dict(facts.report) == expected
    (folder / "build_report.json").write_text("{")
    facts = gather(open_dataset(folder), seed=0)
    assert (facts.report, facts.notes) == ((), ("build_report.json is no JSON",))


def test_a_huge_file_beside_the_dataset_is_read_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts_module, "MOST_FILE", 1 << 20)
    folder = write_clips(tmp_path / "d", train=make_clips(3))
    line = json.dumps({"reason": "x" * 1000}) + "\n"
    (folder / "quarantine.jsonl").write_text(line * 1100)
    facts = gather(open_dataset(folder), seed=0)
    assert facts.dropped["quarantine.jsonl"]["x" * 1000] == (1 << 20) // len(line)
    assert facts.notes == ("of quarantine.jsonl the first 1 MiB were read",)
