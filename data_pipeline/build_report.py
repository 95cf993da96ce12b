"""`build_report.json`: how many recordings became clips, and what became of the others."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Self

import pydantic
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from data_pipeline.build_part import BuildPart
from data_pipeline.clip import Clip
from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError
from data_pipeline.filters import MODALITIES, Dropped, Filters
from data_pipeline.quarantine import count_reasons
from data_pipeline.shards.dataset import Record, without
from data_pipeline.shards.reader import Dataset

BUILD_REPORT = "build_report.json"
MOST_REPORT = 1 << 26
"""Bytes that are read of one."""
LONGEST_KIND = 80
"""Characters of a kind of fault; decoders say more than fits into a table."""


class BuildOrigin(Record):
    """What the parts of one build have in common, beside the encoders in `dataset.json`.

    Attributes:
        corpus: its name.
        corpus_sha256: hash of all that the corpus says of its recordings.
        filters: thresholds, those that are off as null.
        samples_per_shard: clips of one tar.
        device: that the encoders ran on; rows of a GPU differ from a CPU's in their last bits.
        left_out: suffix, or why -> files that the corpus does not take.
        speakers: how many the corpus names.
    """

    format: Literal["memo-build/1"] = "memo-build/1"
    corpus: str
    corpus_sha256: str
    filters: Filters
    samples_per_shard: int = Field(gt=0)
    device: str = "cpu"
    left_out: dict[str, int] = Field(default_factory=dict)
    speakers: int = 0

    @property
    def agreed(self) -> dict[str, object]:
        """What is the same whenever a build, or a part of it, is begun: a file may have come since.

        What is left out is counted in the whole source, where jobs may write their logs.
        """
        names = (name for name in BuildOrigin.model_fields if name != "left_out")
        return {name: getattr(self, name) for name in names}


class PartOrder(Record):
    """Where the recordings of a part stand in the corpus's list, if not all after one another.

    Attributes:
        written: split -> the number of each of its clips, in their order; those that were cut out
            of one file have one number.
        filtered, broken: the same of the lines of `filtered.jsonl` and `quarantine.jsonl`.
    """

    written: dict[str, list[int]] = Field(default_factory=dict)
    filtered: list[int] = Field(default_factory=list)
    broken: list[int] = Field(default_factory=list)


class BuildReport(BuildOrigin):
    """The whole of `build_report.json`; every recording is written, filtered out or broken.

    No times are in it: the same corpus and settings give the same report, whatever the number of
    processes or interruptions.

    Attributes:
        part: of the corpus; None is all of it.
        order: by which the part is merged, if its recordings stand between those of others.
        recordings: utterances of the corpus, after long media were cut.
        samples: split -> clips that were written.
        seconds: split -> length of these clips.
        missing: modality -> clips that were written without it.
        transcribed: where the text, and the words' times, of the clips that were written with media
            or an image are from, or why they have none; empty without --recognise and --align.
        subtitles: what came of the subtitles inside media that have no transcript -> files with
            some, where the corpus has them looked for.
        filtered: each filter that is on -> clips that it dropped; `filtered.jsonl` names them.
        broken: kind of fault -> recordings that cannot be used; `quarantine.jsonl` names them.
    """

    part: BuildPart | None
    order: PartOrder | None = None
    recordings: int
    samples: dict[str, int]
    seconds: dict[str, float]
    missing: dict[str, int]
    transcribed: dict[str, int] = Field(default_factory=dict)
    subtitles: dict[str, int] = Field(default_factory=dict)
    filtered: dict[str, int]
    broken: dict[str, int]

    @property
    def quarantined(self) -> int:
        """Recordings that cannot be used."""
        return sum(self.broken.values())

    @property
    def content(self) -> bytes:
        """The file."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of what there is nothing, as of speakers that nobody names, a report is silent."""
        fields: dict[str, Any] = handler(self)
        optional = ("transcribed", "subtitles", "left_out", "speakers", "order")
        return without(fields, *(name for name in optional if not fields[name]))

    @model_validator(mode="after")
    def _order_of_all(self) -> Self:
        """There must be a place for each recording."""
        if self.order is not None:
            places = {split: len(numbers) for split, numbers in self.order.written.items()}
            left = len(self.order.filtered), len(self.order.broken)
            if places != self.samples or left != (sum(self.filtered.values()), self.quarantined):
                raise ValueError("its order is not that of as many clips")
        return self

    def table(self) -> list[str]:
        """Lines for the terminal: counts, and their shares of all recordings or clips."""
        clips = sum(self.samples.values())
        rows = [("recordings", self.recordings, self.recordings)]
        rows += [("speakers of the corpus", self.speakers, 0)] * (self.speakers > 0)
        rows += [(f"subtitles inside: {what}", n, 0) for what, n in self.subtitles.items()]
        rows += [(f"written: {split}", n, self.recordings) for split, n in self.samples.items()]
        rows += [(f"  without {name}", count, clips) for name, count in self.missing.items()]
        rows += [(f"  {outcome}", count, clips) for outcome, count in self.transcribed.items()]
        for name, threshold in self.filters.thresholds.items():
            count = self.filtered.get(name, 0)
            rows.append((f"filtered: {name} {threshold:g}", count, self.recordings))
        rows += [(f"broken: {kind}", count, self.recordings) for kind, count in self.broken.items()]
        width = max(len(name) for name, _, _ in rows) + 2
        lines = [f"{name:<{width}}{count:>10,}{_percent(count, of)}" for name, count, of in rows]
        hours = sum(self.seconds.values()) / 3600
        return [*lines, f"{'hours of media':<{width}}{hours:>10,.2f}", *self._files_left_out()]

    def _files_left_out(self) -> list[str]:
        """A line of what the corpus can do nothing with, if there is something."""
        most = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        kinds = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in most]
        return [f"files that were left out: {', '.join(kinds)}"] if kinds else []


class BuildTally:
    """Counts the clips of a build while they are written."""

    def __init__(self) -> None:
        self._samples: Counter[str] = Counter()
        self._milliseconds: Counter[str] = Counter()  # whole numbers: sums do not depend on order
        self._missing = dict.fromkeys(MODALITIES, 0)
        self._transcribed: Counter[str] = Counter()

    def add(self, split: str, clip: Clip, transcribed: Iterable[str] = ()) -> None:
        """Count a clip that is written, and what came of its text and words."""
        self._transcribed.update(transcribed)
        self._samples[split] += 1
        self._milliseconds[split] += round(1000 * clip.duration_s)
        has = ((clip.text or "").strip(), clip.face is not None, clip.speech is not None)
        for name, there in zip(MODALITIES, has, strict=True):
            self._missing[name] += not there

    def report(
        self,
        origin: BuildOrigin,
        part: BuildPart | None,
        filtered: Iterable[tuple[str, Dropped]],
        quarantine: str,
        order: PartOrder | None = None,
        subtitles: Mapping[str, int] = MappingProxyType({}),
    ) -> BuildReport:
        """What came out.

        Args:
            origin: of the clips.
            part: of the corpus.
            filtered: keys of the clips that were dropped, and why.
            quarantine: the lines that name the broken recordings.
            order: of the part, if it does not follow the one before.
            subtitles: what came of those inside media -> files.
        """
        broken = count_kinds(quarantine.splitlines())
        dropped = Counter(one.filter for _, one in filtered)
        return BuildReport(
            **dict(origin),
            part=part,
            order=order,
            recordings=self._samples.total() + dropped.total() + sum(broken.values()),
            samples=dict(self._samples),
            seconds=_seconds(self._milliseconds),
            missing=self._missing,
            transcribed=dict(sorted(self._transcribed.items())),
            subtitles=dict(subtitles),
            filtered={name: dropped[name] for name in origin.filters.thresholds},
            broken=broken,
        )


def sum_reports(parts: Sequence[BuildReport]) -> BuildReport:
    """The report of one build that has made what its parts have.

    Args:
        parts: all of them, in order.
    """
    milliseconds: Counter[str] = Counter()
    for part in parts:
        milliseconds.update({name: round(1000 * one) for name, one in part.seconds.items()})
    counts: dict[str, Counter[str]] = {}
    for name in ("samples", "missing", "transcribed", "subtitles", "filtered", "broken"):
        counts[name] = Counter()
        for part in parts:
            counts[name].update(getattr(part, name))
    return BuildReport(
        **{name: getattr(parts[0], name) for name in BuildOrigin.model_fields},
        part=None,
        recordings=sum(part.recordings for part in parts),
        samples=counts["samples"],
        seconds=_seconds(milliseconds),
        missing=counts["missing"],
        transcribed=dict(sorted(counts["transcribed"].items())),
        subtitles=dict(sorted(counts["subtitles"].items())),
        filtered=counts["filtered"],
        broken=dict(sorted(counts["broken"].items())),
    )


def read_report(dataset: Dataset) -> BuildReport | None:
    """The report beside a dataset; None if there is none.

    Raises:
        UserError: it is not of the format.
    """
    content = dataset.beside(BUILD_REPORT, MOST_REPORT)
    if content is None:
        return None
    try:
        return BuildReport.model_validate_json(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        place = dataset.place / BUILD_REPORT
        raise UserError(f"{place} is no memo-build/1: {where}: {first['msg']}") from None


def hash_recordings(recordings: Iterable[Recording]) -> str:
    """Hash of all that a corpus says of its recordings."""
    digest = hashlib.sha256()
    for one in recordings:
        digest.update(repr(one).encode("utf8", "backslashreplace"))
    return digest.hexdigest()


def _seconds(milliseconds: Mapping[str, int]) -> dict[str, float]:
    return {split: number / 1000 for split, number in milliseconds.items()}


def count_kinds(quarantine: Iterable[str]) -> dict[str, int]:
    """How many recordings are broken in which way: reasons without what is of one file alone."""
    kinds: Counter[str] = Counter()
    for reason, count in count_reasons(quarantine).items():
        kind = re.sub(r" \(.*\)", "", reason)  # what the decoder said
        kinds[re.sub(r"\d+(\.\d+)?", "N", kind)[:LONGEST_KIND]] += count
    return dict(sorted(kinds.items()))


def _percent(count: int, of: int) -> str:
    return f"{count / of:>9.1%}" if of else ""
