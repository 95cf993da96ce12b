"""Tables and histograms against counting."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.clip import Label
from data_pipeline.preview.facts import DatasetFacts, LabelFacts, SplitFacts
from data_pipeline.shards.dataset import DatasetInfo, FeatureSchema
from memo.preview.tables import (
    BINS,
    MOST_CLASSES,
    Histogram,
    Table,
    coverage_table,
    dropped_tables,
    label_tables,
    length_histograms,
    score_histograms,
    split_table,
)

INFO = DatasetInfo(name="n", corpus="c", licence="l", features=FeatureSchema(), shards=())


def facts_of(*splits: SplitFacts) -> DatasetFacts:
    return DatasetFacts(INFO, splits, {}, (), ())


def labelled(name: str, labels: list[Label], clips: int) -> SplitFacts:
    facts = LabelFacts()
    for label in labels:
        facts.add(label)
    return SplitFacts(name, clips, 1, clips=clips, labels={"task": facts})


def texts(table: Table) -> dict[str, list[str]]:
    return {row.name: [" ".join(cell[:2]).strip() for cell in row.cells] for row in table.rows}


def heights(figure: Histogram, line: int) -> list[float]:
    """Of the bars of a line, the highest of all lines being 1."""
    return [1 - float(one) for one in re.findall(r"V([\d.]+)H", figure.lines[line].path)]


def test_classes_are_ordered_by_how_many_they_are_of_all_splits() -> None:
    train, valid = ["sad"] * 3 + ["glad"] * 5, ["calm", "sad", "sad", "sad"]
    facts = facts_of(labelled("train", list(train), 10), labelled("valid", list(valid), 4))
    (table,) = label_tables(facts)
    assert (table.title, table.head, table.note) == ("task", ("train", "valid"), "")
    assert list(texts(table).items()) == [
        ("sad", ["3 37.5%", "3 75.0%"]),
        ("glad", ["5 62.5%", "0 0.0%"]),
        ("calm", ["0 0.0%", "1 25.0%"]),
        ("(no label)", ["2", "0"]),
    ]
    assert [cell.bar for cell in table.rows[0].cells] == [50, 100]


def test_numbers_are_ordered_as_numbers_and_several_may_be_of_one_clip() -> None:
    labels: list[Label] = [[10, 2], [2], [-1, 2, 10]]
    (table,) = label_tables(facts_of(labelled("train", labels, 3)))
    assert texts(table) == {"-1": ["1 33.3%"], "2": ["3 100.0%"], "10": ["2 66.7%"]}
    assert list(texts(table)) == ["-1", "2", "10"]
    assert table.note == "A clip may be in several."


def test_rare_classes_are_one_row() -> None:
    many: list[Label] = [f"c{number}" for number in range(MOST_CLASSES + 5)]
    (table,) = label_tables(facts_of(labelled("train", [*many, "c0"], len(many) + 1)))
    assert len(table.rows) == MOST_CLASSES + 1
    assert (table.rows[0].name, table.rows[0].cells[0].text) == ("c0", "2")
    assert (table.rows[-1].name, table.rows[-1].cells[0].text) == ("(5 more)", "5")


def test_speakers_in_several_splits_are_named() -> None:
    train = SplitFacts("train", 4, 1, clips=4, speakers=Counter({"a": 3, "b": 1}))
    valid = SplitFacts("valid", 2, 1, clips=2, speakers=Counter({"c": 2}))
    table = split_table(facts_of(train, valid))
    assert table.note == "No speaker is in more than one split."
    assert texts(table)["clips of a speaker"] == ["2 (1 to 3)", "2 (2 to 2)"]
    shared = replace(valid, speakers=Counter({"b": 1, "c": 1}))
    note = split_table(facts_of(train, shared)).note
    assert note == "In more than one split: 1 of 3 speakers (b)."
    unknown = replace(train, speakers=Counter())
    assert split_table(facts_of(unknown, unknown)).note == ""


def test_hours_of_a_sample_are_those_of_the_whole_split() -> None:
    whole = SplitFacts("a", 10, 1, clips=10, seconds=7200)
    part = SplitFacts("b", 1000, 9, clips=8, broken=Counter({"x": 2}), seconds=3600)
    assert texts(split_table(facts_of(whole, part)))["hours"] == ["2.00", "about 100"]


def test_coverage_is_of_the_clips_that_could_be_read() -> None:
    split = SplitFacts("a", 10, 1, clips=8, frames=50, frames_with_face=20)
    split.coverage.update({"text": 8, "face": 2})
    table = texts(coverage_table(facts_of(split)))
    assert (table["text"], table["face"], table["image"]) == (["8 100.0%"], ["2 25.0%"], ["0 0.0%"])
    assert table["frames with a face"] == ["20 40.0%"]
    empty = texts(coverage_table(facts_of(SplitFacts("a", 1, 1))))
    assert empty["text"] == empty["frames with a face"] == ["–"]


@pytest.mark.parametrize("scale", [0.01, 1, 1e300])
def test_bars_are_the_shares_of_the_values_between_their_edges(scale: float) -> None:
    rng = np.random.default_rng(0)
    splits = [
        SplitFacts(name, 1, 1, durations_s=(scale * rng.gamma(shape, size=count)).tolist())
        for name, shape, count in (("a", 2, 900), ("b", 5, 300))
    ]
    (figure,) = length_histograms(facts_of(*splits))
    (left, first), (right, last) = figure.ticks[0], figure.ticks[-1]
    assert left == 0
    width = (float(last) - float(first)) / (right / 100)
    begin = float(first)
    bars = [heights(figure, line) for line in (0, 1)]
    assert len(bars[0]) == len(bars[1]) <= BINS + 1
    top = float(figure.top.rstrip("%")) / 100
    for split, shown in zip(splits, bars, strict=True):
        values = np.array(split.durations_s)
        places = np.floor((values - begin) / (width / len(shown))).clip(0, len(shown) - 1)
        expected = np.bincount(places.astype(int), minlength=len(shown)) / len(values)
        np.testing.assert_allclose(np.array(shown) * top, expected, atol=2e-3)
        assert sum(shown) * top == pytest.approx(1, abs=0.02)
    assert max(max(one) for one in bars) == 1
    assert [line.name for line in figure.lines] == ["a", "b"]


def test_whole_numbers_have_a_bar_each() -> None:
    (figure,) = length_histograms(facts_of(SplitFacts("a", 1, 1, words=[3, 3, 3, 4, 6])))
    assert figure.title == "words of the text"
    assert figure.lines[0].summary == "3 (3 to 6)"
    np.testing.assert_allclose(heights(figure, 0), [1, 1 / 3, 0, 1 / 3], atol=1e-3)
    assert figure.ticks == ((12.5, "3"), (37.5, "4"), (62.5, "5"), (87.5, "6"))
    (single,) = length_histograms(facts_of(SplitFacts("a", 1, 1, words=[7, 7])))
    assert heights(single, 0) == [0, 1, 0]


def test_scores_may_be_negative() -> None:
    split = labelled("a", [-0.5, 0.25, 0.5, 0.5], 4)
    (figure,) = score_histograms(facts_of(split, SplitFacts("b", 1, 1)))
    assert figure.title == "task"
    assert float(figure.ticks[0][1]) == -0.5
    assert heights(figure, 0)[0] == pytest.approx(0.5)
    assert [line.name for line in figure.lines] == ["a"]
    assert list(label_tables(facts_of(split))) == []
    assert list(length_histograms(facts_of(split))) == []


def test_reasons_are_counted_with_the_most_frequent_first() -> None:
    dropped = {"quarantine.jsonl": Counter({"dark": 1, "short": 3})}
    split = SplitFacts("a", 9, 1, broken=Counter({"speech.npy: holds NaN": 2}))
    facts = DatasetFacts(INFO, (split,), dropped, (("kept", 12345),), ())
    first, broken, report = dropped_tables(facts)
    assert (first.title, first.head) == ("quarantine.jsonl", ("4 in all",))
    assert list(texts(first).items()) == [("short", ["3 75.0%"]), ("dark", ["1 25.0%"])]
    assert texts(broken) == {"speech.npy: holds NaN": ["2 100.0%"]}
    assert texts(report) == {"kept": ["12,345"]}
    assert list(dropped_tables(facts_of(SplitFacts("a", 1, 1)))) == []


def test_many_reasons_are_cut(tmp_path: Path) -> None:
    reasons = Counter({f"{'x' * 300}{number}": 1 for number in range(MOST_CLASSES + 3)})
    (table,) = dropped_tables(DatasetFacts(INFO, (), {"f": reasons}, (), ()))
    assert len(table.rows) == MOST_CLASSES + 1
    assert table.rows[-1].name == "(3 more reasons)"
    assert max(len(row.name) for row in table.rows) == 200
