"""The parts of one build -> the dataset, and the report, that one build would have made."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from data_pipeline.build_part import BuildPart
from data_pipeline.build_report import (
    BUILD_REPORT,
    BuildOrigin,
    BuildReport,
    read_report,
    sum_reports,
)
from data_pipeline.errors import UserError
from data_pipeline.filters import FILTERED
from data_pipeline.quarantine import QUARANTINE
from data_pipeline.shards.merge import common_features, read_sound
from data_pipeline.shards.place import Place
from data_pipeline.shards.reader import Dataset, open_dataset
from data_pipeline.shards.writer import ShardWriter

MOST_LINES = 1 << 30
"""Bytes of a part's `quarantine.jsonl` and `filtered.jsonl`."""


class Part(NamedTuple):
    """One part, and what its build has said."""

    dataset: Dataset
    report: BuildReport
    part: BuildPart


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
            if lines := b"".join(_lines(one, name, reasons) for one in parts):
                writer.add_file(name, lines)
        writer.add_file(BUILD_REPORT, report.content)
    return report


def _write_clips(parts: Sequence[Part], writer: ShardWriter) -> None:
    keys: set[str] = set()
    for dataset, _, part in parts:
        for name in dataset.info.splits:
            split = dataset.split(name)
            for sample in range(len(split)):
                clip = read_sound(dataset.place, split, sample)
                if clip.key in keys:  # utterances are numbered after the parts were divided
                    raise UserError(f"part {part}: another part has a clip {clip.key!r}, too")
                keys.add(clip.key)
                writer.write(name, clip)
    if not keys:
        raise UserError(f"no recording of the {len(parts)} parts can be used")


def _lines(one: Part, name: str, reasons: str) -> bytes:
    """A file of lines beside a part's shards, of which its report has counted the reasons."""
    content = one.dataset.beside(name, MOST_LINES) or b""
    found, counted = len(content.splitlines()), sum(getattr(one.report, reasons).values())
    if found != counted:
        raise UserError(
            f"{one.dataset.place / name} names {found:,} recordings, {BUILD_REPORT} counts "
            f"{counted:,}; build part {one.part} again"
        )
    return content


def _check_together(one: Part, other: Part) -> None:
    """Two parts must be of one build."""
    values = (
        ("the number of parts", one.part.of, other.part.of),
        ("name", one.dataset.info.name, other.dataset.info.name),
        ("--recognise and --align", _models(one), _models(other)),
        *_other_rows(one, other),
        *((f, getattr(one.report, f), getattr(other.report, f)) for f in BuildOrigin.model_fields),
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
