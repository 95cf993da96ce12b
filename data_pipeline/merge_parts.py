"""The parts of one build -> the dataset, and the report, that one build would have made."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise, repeat
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import NamedTuple

from data_pipeline.build_part import BuildPart
from data_pipeline.build_report import (
    BUILD_REPORT,
    BuildReport,
    read_report,
    sum_reports,
)
from data_pipeline.errors import UserError
from data_pipeline.filters import FILTERED
from data_pipeline.quarantine import QUARANTINE
from data_pipeline.shards.merge import common_features, read_sound
from data_pipeline.shards.place import Place
from data_pipeline.shards.reader import Dataset, Split, open_dataset
from data_pipeline.shards.writer import ShardWriter

MOST_LINES = 1 << 30
"""Bytes of a part's `quarantine.jsonl` and `filtered.jsonl`."""


class Part(NamedTuple):
    """One part, and what its build has said."""

    dataset: Dataset
    report: BuildReport
    part: BuildPart


class _Sample(NamedTuple):
    """A clip of a part, and where its recording stands in the corpus's list, if that is known."""

    at: int
    part: Part
    split: Split
    number: int


def find_parts(places: Sequence[Place]) -> list[Part]:
    """The parts of a build in their order; [] if these are whole datasets.

    Raises:
        UserError: only some are parts, they are not of one build, or one is missing or there twice.
    """
    datasets = [open_dataset(place) for place in places]
    reports = [read_report(dataset) for dataset in datasets]
    parts, whole = [], []
    for dataset, report in zip(datasets, reports, strict=True):
        if report is None or report.part is None:
            whole.append(dataset.place)
        else:
            parts.append(Part(dataset, report, report.part))
    if parts and whole:
        raise UserError(
            f"{parts[0].dataset.place} is part {parts[0].part} of a build, {whole[0]} is none; "
            "merge the parts first"
        )
    parts.sort(key=lambda one: one.part.number)
    for one in parts[1:]:
        _check_together(parts[0], one)
    _check_all_there(parts)
    _check_order(parts)
    return parts


def merge_parts(parts: Sequence[Part], out: Path) -> BuildReport:
    """Write the dataset of which these are all parts, in order.

    Raises:
        UserError: a clip is broken or in two parts, there is none, or a part's files disagree.
    """
    first, report = parts[0].dataset.info, sum_reports([one.report for one in parts])
    with ShardWriter(
        out,
        name=first.name,
        corpus=first.corpus,
        licence=first.licence,
        features=common_features([one.dataset.info for one in parts]),
        transcribers=first.transcribers,
        samples_per_shard=report.samples_per_shard,
    ) as writer:
        _write_clips(parts, writer)
        for name, reasons in ((QUARANTINE, "broken"), (FILTERED, "filtered")):
            if lines := _in_order(parts, name, reasons):
                writer.add_file(name, lines)
        writer.add_file(BUILD_REPORT, report.content)
    return report


def _write_clips(parts: Sequence[Part], writer: ShardWriter) -> None:
    keys: set[str] = set()
    for _, one, split, number in _samples(parts):
        clip = read_sound(one.dataset.place, split, number)
        if clip.key in keys:  # utterances are numbered after the parts were divided
            raise UserError(f"part {one.part}: another part has a clip {clip.key!r}, too")
        keys.add(clip.key)
        writer.write(split.name, clip)
    if not keys:
        raise UserError(f"no recording of the {len(parts)} parts can be used")


def _samples(parts: Sequence[Part]) -> Iterator[_Sample]:
    """All clips in the corpus's order: part after part, or in turn where their files stand mixed.

    One tar of each split is open then, for all parts are read at the same time.
    """
    splits = [_samples_of(one, split) for one in parts for split in one.dataset.info.splits]
    if any(one.report.order for one in parts):
        return heapq.merge(*splits, key=attrgetter("at"))
    return chain.from_iterable(splits)


def _samples_of(one: Part, name: str) -> Iterator[_Sample]:
    """The clips of a split of a part."""
    split, order = one.dataset.split(name), one.report.order
    if order is not None:
        split.most_open = 1
    for number in range(len(split)):
        yield _Sample(order.written[name][number] if order else 0, one, split, number)


def _in_order(parts: Sequence[Part], name: str, reasons: str) -> bytes:
    """A file of lines beside the shards of all parts, in the corpus's order."""
    lines: list[tuple[int, bytes]] = []
    for one in parts:
        order = getattr(one.report.order, reasons) if one.report.order else repeat(0)
        lines += zip(order, _lines(one, name, reasons), strict=False)
    return b"".join(line for _, line in sorted(lines, key=itemgetter(0)))


def _lines(one: Part, name: str, reasons: str) -> list[bytes]:
    """A file of lines beside a part's shards, of which its report has counted the reasons."""
    lines = (one.dataset.beside(name, MOST_LINES) or b"").splitlines(keepends=True)
    found, counted = len(lines), sum(getattr(one.report, reasons).values())
    if found != counted:
        raise UserError(
            f"{one.dataset.place / name} names {found:,} recordings, {BUILD_REPORT} counts "
            f"{counted:,}; build part {one.part} again"
        )
    return lines


def _check_together(one: Part, other: Part) -> None:
    """Two parts must be of one build."""
    values = (
        ("the number of parts", one.part.of, other.part.of),
        ("name", one.dataset.info.name, other.dataset.info.name),
        ("licence", one.dataset.info.licence, other.dataset.info.licence),
        ("--recognise and --align", _models(one), _models(other)),
        *_other_rows(one, other),
        *((name, value, other.report.agreed[name]) for name, value in one.report.agreed.items()),
    )
    for what, here, there in values:
        if here != there:
            raise UserError(
                f"{one.dataset.place} and {other.dataset.place} are not of one build: "
                f"{what} is {here} and {there}; build them from the same source with the same "
                "settings"
            )


def _other_rows(one: Part, other: Part) -> Iterator[tuple[str, object, object]]:
    """How the rows of two parts were made, if not in the same way."""
    for kind in ("face", "speech"):
        here, there = (getattr(part.dataset.info.features, kind) for part in (one, other))
        if here and there and (found := here.difference(there)):
            name, *values = found
            yield f"{name} of the {kind} rows", *values


def _models(part: Part) -> str:
    """What texts and words of a part are from, beside the corpus."""
    models = (f"{one.task} {one.name} {one.sha256}" for one in part.dataset.info.transcribers)
    return ", ".join(models) or "not given"


def _check_order(parts: Sequence[Part]) -> None:
    """If one part says where its recordings stand, all must, each of all its clips."""
    if all(one.report.order is None for one in parts):
        return
    for dataset, report, part in parts:
        clips = {name: len(dataset.split(name)) for name in dataset.info.splits}
        if clips != report.samples or (report.recordings and not report.order):
            raise UserError(
                f"{dataset.place / BUILD_REPORT} does not say where its clips stand among those of "
                f"the other parts; build part {part} again"
            )


def _check_all_there(parts: Sequence[Part]) -> None:
    """Every part must be there once."""
    for one, other in pairwise(parts):
        if one.part == other.part:
            raise UserError(
                f"{one.dataset.place} and {other.dataset.place} are both part {one.part}"
            )
    of = parts[0].part.of if parts else 0
    missing = sorted(set(range(1, of + 1)) - {one.part.number for one in parts})
    if missing:
        numbers = ", ".join(f"{number}/{of}" for number in missing)
        raise UserError(f"of the parts there is no {numbers}; build it with --part, or name it")
