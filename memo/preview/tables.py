"""The facts of a dataset as tables and histograms, a column or a line a split."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.preview.facts import COVERAGE, DatasetFacts, SplitFacts, shorten
from memo.inference.timeline import COLOURS
from memo.preview.tracks import round_step

MOST_CLASSES = 24
"""Rows of a table; what is rarer is one more row."""
MOST_SHARED = 10
"""Speakers that are named, of those in several splits."""
LONGEST_REASON = 200
BINS = 24
MOST_TICKS = 6
CUT = 0.995
"""A histogram ends where so many of a split's values are smaller; what lies beyond is in its last
bin."""
NOTHING = "–"


class Cell(NamedTuple):
    """A number in a table.

    Attributes:
        text: as it is shown.
        share: "" or the share it is of its column, in words.
        bar: length of its bar, in percent.
    """

    text: str
    share: str = ""
    bar: float = 0.0


class Row(NamedTuple):
    """A name and what each column has of it."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table with bars.

    Attributes:
        title: what it is about.
        head: names of the columns.
        rows: in order.
        note: said below it.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A split in a histogram.

    Attributes:
        name: of the split.
        colour: of its area.
        path: of the area, in a square of 1 by 1.
        summary: its values in words.
    """

    name: str
    colour: str
    path: str
    summary: str


@dataclass(frozen=True)
class Histogram:
    """How often values are how large.

    Attributes:
        title: what they are.
        top: the share of the highest bin, in words.
        ticks: place in percent, and value.
        lines: one a split that has values.
    """

    title: str
    top: str
    ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]


def split_table(facts: DatasetFacts) -> Table:
    """How much there is of each split."""
    splits = facts.splits
    lines: list[tuple[str, Callable[[SplitFacts], str]]] = [
        ("clips", lambda one: f"{one.samples:,}"),
        ("hours", _hours),
        ("clips looked at", lambda one: f"{one.looked_at:,}"),
        ("shards looked into", lambda one: f"{one.opened:,} of {one.shards:,}"),
        ("broken clips found", lambda one: f"{one.broken.total():,}"),
        ("speakers", lambda one: f"{len(one.speakers):,}"),
        ("clips of a speaker", lambda one: _spread(list(one.speakers.values()))),
        ("sessions", lambda one: f"{len(one.sessions):,}"),
        ("languages", lambda one: _most_common(one.languages)),
    ]
    rows = (Row(name, tuple(Cell(say(one)) for one in splits)) for name, say in lines)
    return Table("Splits", _names(facts), tuple(rows), _shared_speakers(splits))


def coverage_table(facts: DatasetFacts) -> Table:
    """What the clips have, and in how many of the frames a face was seen."""
    rows = [
        Row(name, tuple(_cell(one.coverage[name], one.clips) for one in facts.splits))
        for name in COVERAGE
    ]
    frames = (_cell(one.frames_with_face, one.frames) for one in facts.splits)
    whole = " and ".join(f"{one.whole:,} of {one.name}" for one in facts.splits)
    return Table(
        "What the clips have",
        _names(facts),
        (*rows, Row("frames with a face", tuple(frames))),
        f"Frames were counted in the clips that were read whole, {whole}.",
    )


def label_tables(facts: DatasetFacts) -> Iterator[Table]:
    """The classes of every label that has some."""
    for task in dict.fromkeys(task for split in facts.splits for task in split.labels):
        labels = [split.labels.get(task) for split in facts.splits]
        counts = [Counter[str]() if one is None else one.classes for one in labels]
        if any(counts):
            clips = [0 if one is None else one.clips for one in labels]
            several = any(one.total() > of for one, of in zip(counts, clips, strict=True))
            note = "A clip may be in several." if several else ""
            rows = (*_class_rows(counts, clips), *_unlabelled(facts.splits, clips))
            yield Table(task, _names(facts), rows, note)


def score_histograms(facts: DatasetFacts) -> Iterator[Histogram]:
    """The scores of every label that has some."""
    for task in dict.fromkeys(task for split in facts.splits for task in split.labels):
        scores = {one.name: one.labels[task].scores for one in facts.splits if task in one.labels}
        yield from _histogram(task, scores, whole=False)


def length_histograms(facts: DatasetFacts) -> Iterator[Histogram]:
    """How long the clips are."""
    splits = facts.splits
    yield from _histogram("seconds", {one.name: one.durations_s for one in splits}, whole=False)
    yield from _histogram("words of the text", {one.name: one.words for one in splits})
    yield from _histogram("face rows", {one.name: one.face_rows for one in splits})
    yield from _histogram("speech rows", {one.name: one.speech_rows for one in splits})


def dropped_tables(facts: DatasetFacts) -> Iterator[Table]:
    """Why recordings and clips were left out, and which clips are broken."""
    for name, reasons in facts.dropped.items():
        yield _reasons(name, reasons)
    broken = sum((one.broken for one in facts.splits), Counter[str]())
    if broken:
        yield _reasons("Broken clips found for this page", broken)
    if facts.report:
        rows = (Row(name, (Cell(f"{value:,g}"),)) for name, value in facts.report)
        yield Table("build_report.json", ("",), tuple(rows))


def _names(facts: DatasetFacts) -> tuple[str, ...]:
    return tuple(one.name for one in facts.splits)


def _hours(split: SplitFacts) -> str:
    """Of a split that was not looked at as a whole an estimate."""
    hours = split.seconds / 3600
    if split.looked_at < split.samples:
        return f"about {hours * split.samples / split.looked_at:,.0f}"
    return f"{hours:,.2f}" if hours >= 0.1 else f"{hours:.2g}"


def _spread(values: Sequence[float]) -> str:
    """Median, and the range in brackets."""
    if not values:
        return NOTHING
    return f"{np.median(values):,.4g} ({min(values):,.4g} to {max(values):,.4g})"


def _most_common(names: Counter[str]) -> str:
    shown = [name for name, _ in _ordered(names)[:3]]
    return ", ".join(shown + ["…"] * (len(names) > 3)) or NOTHING


def _shared_speakers(splits: Sequence[SplitFacts]) -> str:
    """Speakers whom a model would know before it is tested on them."""
    splits_of = Counter(name for split in splits for name in split.speakers)
    if len(splits) < 2 or not splits_of:
        return ""
    shared = sorted(name for name, many in splits_of.items() if many > 1)
    if not shared:
        return "No speaker is in more than one split."
    named = ", ".join(shared[:MOST_SHARED]) + ", …" * (len(shared) > MOST_SHARED)
    return f"In more than one split: {len(shared):,} of {len(splits_of):,} speakers ({named})."


def _cell(count: int, of: int, scale: float = 1.0) -> Cell:
    """A count, its share of another, and a bar that is full at the share `scale`."""
    if not of:
        return Cell(NOTHING)
    return Cell(f"{count:,}", f"{count / of:.1%}", round(min(100, 100 * count / of / scale), 1))


def _class_rows(counts: Sequence[Counter[str]], clips: Sequence[int]) -> Iterator[Row]:
    """A row for each of the largest classes, and one for the others."""
    total = sum(counts, Counter[str]())
    shown = [name for name, _ in _ordered(total)[:MOST_CLASSES]]
    most = max(
        one[name] / of for one, of in zip(counts, clips, strict=True) if of for name in shown
    )

    def row(name: str, values: Sequence[int]) -> Row:
        cells = (_cell(value, of, most) for value, of in zip(values, clips, strict=True))
        return Row(name, tuple(cells))

    for name in sorted(shown, key=int) if all(map(_is_number, shown)) else shown:
        yield row(name, [one[name] for one in counts])
    if len(total) > len(shown):
        rest = [one.total() - sum(one[name] for name in shown) for one in counts]
        yield row(f"({len(total) - len(shown):,} more)", rest)


def _unlabelled(splits: Sequence[SplitFacts], clips: Sequence[int]) -> Iterator[Row]:
    """Clips without the label, if there are any."""
    without = [split.clips - labelled for split, labelled in zip(splits, clips, strict=True)]
    if any(without):
        yield Row("(no label)", tuple(Cell(f"{many:,}") for many in without))


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    """The largest first; equal ones by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _reasons(title: str, reasons: Counter[str]) -> Table:
    """How often something was left out for which reason."""
    ordered = _ordered(reasons)
    total, most = reasons.total(), ordered[0][1] / reasons.total()
    rows = [
        Row(shorten(reason, LONGEST_REASON), (_cell(many, total, most),))
        for reason, many in ordered[:MOST_CLASSES]
    ]
    rest = ordered[MOST_CLASSES:]
    if rest:
        many = sum(count for _, count in rest)
        rows.append(Row(f"({len(rest):,} more reasons)", (_cell(many, total, most),)))
    return Table(title, (f"{total:,} in all",), tuple(rows))


def _histogram(
    title: str, values: Mapping[str, Sequence[float]], whole: bool = True
) -> Iterator[Histogram]:
    """Of each split that has values; nothing if none has.

    Args:
        title: what they are.
        values: of each split.
        whole: whether they are whole numbers.
    """
    some = {name: np.array(one, dtype=np.float64) for name, one in values.items() if one}
    if not some:
        return
    edges = _edges(list(some.values()), whole)
    shares = {name: _shares(one, edges) for name, one in some.items()}
    top = max(float(one.max()) for one in shares.values())
    colours = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(values)}
    lines = (
        Line(name, colours[name], _steps(one / top), _spread(some[name].tolist()))
        for name, one in shares.items()
    )
    yield Histogram(title, f"{top:.1%}", tuple(_ticks(edges, whole)), tuple(lines))


def _edges(values: Sequence[NDArray[np.float64]], whole: bool) -> NDArray[np.float64]:
    """Round edges of at most `BINS` + 1 bins; (bins + 1,)."""
    low = min(float(np.quantile(one, 1 - CUT, method="lower")) for one in values)
    high = max(float(np.quantile(one, CUT, method="higher")) for one in values)
    width = round_step((high - low) / BINS or 1)
    if whole:
        width = max(width, 1)
    first, last = math.floor(low / width), math.floor(high / width) + 1
    if last - first == 1:  # a single bar with nothing beside it looks like no figure
        first, last = first - 1, last + 1
    return np.arange(first, last + 1, dtype=np.float64) * width


def _ticks(edges: NDArray[np.float64], whole: bool) -> Iterator[tuple[float, str]]:
    """Places in percent and values of some edges; of bins of one whole number, their middles."""
    bins = len(edges) - 1
    single = whole and edges[1] - edges[0] == 1
    for at in range(0, bins if single else bins + 1, max(1, math.ceil(bins / MOST_TICKS))):
        yield round(100 * (at + 0.5 * single) / bins, 3), f"{edges[at]:g}"


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the values in each bin; the first and last hold what is beyond."""
    inside = np.clip(values, edges[0], edges[-1])
    counts, _ = np.histogram(inside, edges)
    shares: NDArray[np.float64] = counts / len(values)
    return shares


def _steps(heights: NDArray[np.float64]) -> str:
    """A path of steps in a square of 1 by 1."""
    edges = np.arange(len(heights) + 1) / len(heights)
    steps = " ".join(
        f"V{1 - height:.4f}H{edge:.4f}" for height, edge in zip(heights, edges[1:], strict=True)
    )
    return f"M0,1{steps}V1Z"
