"""`build_report.json`: how many recordings became clips, and what became of the others."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from data_pipeline.clip import Clip
from data_pipeline.filters import Dropped, Filters
from data_pipeline.quarantine import count_reasons
from data_pipeline.shards.dataset import Record

BUILD_REPORT = "build_report.json"
MODALITIES = ("text", "face", "speech")
LONGEST_KIND = 80
"""Characters of a kind of fault; decoders say more than fits into a table."""


class BuildReport(Record):
    """The whole of `build_report.json`; every recording is written, filtered out or broken.

    No times are in it: the same corpus and settings give the same report, whatever the number of
    processes or interruptions.

    Attributes:
        corpus: its name.
        filters: thresholds, those that are off as null.
        recordings: utterances of the corpus, after long media were cut.
        samples: split -> clips that were written.
        seconds: split -> length of these clips.
        missing: modality -> clips that were written without it.
        filtered: each filter that is on -> clips that it dropped; `filtered.jsonl` names them.
        broken: kind of fault -> recordings that cannot be used; `quarantine.jsonl` names them.
    """

    format: Literal["memo-build/1"] = "memo-build/1"
    corpus: str
    filters: Filters
    recordings: int
    samples: dict[str, int]
    seconds: dict[str, float]
    missing: dict[str, int]
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

    def table(self) -> list[str]:
        """Lines for the terminal: counts, and their shares of all recordings or clips."""
        clips = sum(self.samples.values())
        rows = [("recordings", self.recordings, self.recordings)]
        rows += [(f"written: {split}", n, self.recordings) for split, n in self.samples.items()]
        rows += [(f"  without {name}", count, clips) for name, count in self.missing.items()]
        on = self.filters.thresholds
        for name, count in self.filtered.items():
            rows.append((f"filtered: {name} {on[name]:g}", count, self.recordings))
        rows += [(f"broken: {kind}", count, self.recordings) for kind, count in self.broken.items()]
        width = max(len(name) for name, _, _ in rows) + 2
        lines = [f"{name:<{width}}{count:>10,}{_percent(count, of)}" for name, count, of in rows]
        return [*lines, f"{'hours of media':<{width}}{sum(self.seconds.values()) / 3600:>10,.2f}"]


class BuildTally:
    """Counts the clips of a build while they are written."""

    def __init__(self) -> None:
        self._samples: Counter[str] = Counter()
        self._milliseconds: Counter[str] = Counter()  # whole numbers: sums do not depend on order
        self._missing = dict.fromkeys(MODALITIES, 0)

    def add(self, split: str, clip: Clip) -> None:
        """Count a clip that is written."""
        self._samples[split] += 1
        self._milliseconds[split] += round(1000 * clip.duration_s)
        has = ((clip.text or "").strip(), clip.face is not None, clip.speech is not None)
        for name, there in zip(MODALITIES, has, strict=True):
            self._missing[name] += not there

    def report(
        self,
        corpus: str,
        filters: Filters,
        filtered: Iterable[tuple[str, Dropped]],
        quarantine: str,
    ) -> BuildReport:
        """What came out.

        Args:
            corpus: its name.
            filters: their thresholds.
            filtered: keys of the clips that were dropped, and why.
            quarantine: the lines that name the broken recordings.
        """
        broken = count_kinds(quarantine.splitlines())
        dropped = Counter(one.filter for _, one in filtered)
        return BuildReport(
            corpus=corpus,
            filters=filters,
            recordings=self._samples.total() + dropped.total() + sum(broken.values()),
            samples=dict(self._samples),
            seconds={split: number / 1000 for split, number in self._milliseconds.items()},
            missing=self._missing,
            filtered={name: dropped[name] for name in filters.thresholds},
            broken=broken,
        )


def count_kinds(quarantine: Iterable[str]) -> dict[str, int]:
    """How many recordings are broken in which way: reasons without what is of one file alone."""
    kinds: Counter[str] = Counter()
    for reason, count in count_reasons(quarantine).items():
        kind = re.sub(r" \(.*\)", "", reason)  # what the decoder said
        kinds[re.sub(r"\d+(\.\d+)?", "N", kind)[:LONGEST_KIND]] += count
    return dict(sorted(kinds.items()))


def _percent(count: int, of: int) -> str:
    return f"{count / of:>9.1%}" if of else ""
