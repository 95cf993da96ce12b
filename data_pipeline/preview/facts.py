"""What a whole dataset holds, in numbers: from its indexes, its JSON members and some whole clips.

Memory is bounded by `MOST_CLIPS` of a split and `MOST_NAMES` of anything that has names.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.build_report import BUILD_REPORT
from data_pipeline.clip import EXPRESSION, FACE, IMAGE, MEMBERS, SPEECH, BadSampleError, Clip, Label
from data_pipeline.quarantine import QUARANTINE, count_reasons
from data_pipeline.shards.dataset import DatasetInfo
from data_pipeline.shards.reader import Dataset, Split
from data_pipeline.shards.repair import REPORT

MOST_CLIPS = 20_000
"""Of a split that has more, those are counted that its order has first: about as many shards are
opened as hold 65,536 clips."""
MOST_WHOLE = 2_000
"""Clips of a split that are read whole, for their frames without a face and for broken rows."""
MOST_NAMES = 10_000
"""Classes of a label, speakers and so on that are told apart."""
MOST_LABELS = 50
"""Labels that are counted."""
LONGEST_NAME = 80
"""Characters of a name; what is longer is cut."""
OTHERS = "(others)"
"""What names are counted as, once there are `MOST_NAMES`."""

MOST_FILE = 1 << 26
"""Bytes that are read of a file beside `dataset.json`."""
MOST_COUNTS = 200
"""Numbers of a build's report that are taken."""

COVERAGE = (
    "text", "word times", "face", "expression", "speech", "image", "tags", "labels",
)  # fmt: skip
"""What a clip can have."""

_MEMBERS = {"face": FACE, "expression": EXPRESSION, "speech": SPEECH, "image": IMAGE}


class _Look(NamedTuple):
    """What is kept of a clip.

    Attributes:
        clip: without its rows and its image; None if it cannot be read.
        reason: why it cannot.
        frames: face rows, if it was read whole.
        seen: those in which a face was seen.
    """

    clip: Clip | None
    reason: str
    frames: int = 0
    seen: int = 0


@dataclass
class LabelFacts:
    """The values of one label in a split.

    Attributes:
        clips: that have it.
        classes: name -> clips; one of a multi-label task counts for each of its numbers.
        scores: of the clips whose label is a score.
    """

    clips: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    scores: list[float] = field(default_factory=list)

    def add(self, label: Label) -> None:
        """Count a clip's label."""
        self.clips += 1
        if isinstance(label, float):
            self.scores.append(label)
            return
        for one in islice(label, MOST_NAMES) if isinstance(label, list) else (label,):
            _count(self.classes, str(one))


@dataclass
class SplitFacts:
    """What one split holds.

    Attributes:
        name: of the split.
        samples: clips that it has, of which those named in the following were looked at.
        shards: that it has.
        opened: shards that were looked into.
        clips: that could be read.
        whole: of these, read with all their rows.
        broken: reason -> clips that could not be read.
        seconds: all together.
        coverage: of `COVERAGE` -> clips that have it.
        durations_s: of the clips that have one.
        words: of the clips with a text, how many words between spaces.
        face_rows, speech_rows: of the clips that have some.
        frames: of the clips that were read whole and have a face.
        frames_with_face: of these.
        labels: task -> its values.
        speakers, sessions, languages: name -> clips; those without a name are left out.
    """

    name: str
    samples: int
    shards: int
    opened: int = 0
    clips: int = 0
    whole: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    coverage: Counter[str] = field(default_factory=Counter)
    durations_s: list[float] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    face_rows: list[int] = field(default_factory=list)
    speech_rows: list[int] = field(default_factory=list)
    frames: int = 0
    frames_with_face: int = 0
    labels: dict[str, LabelFacts] = field(default_factory=dict)
    speakers: Counter[str] = field(default_factory=Counter)
    sessions: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)

    @property
    def looked_at(self) -> int:
        """Clips that were read, or could not be."""
        return self.clips + self.broken.total()

    def add(self, clip: Clip) -> None:
        """Count what its JSON member says."""
        self.clips += 1
        if clip.duration_s > 0:
            self.seconds += clip.duration_s
            self.durations_s.append(clip.duration_s)
        if clip.text:
            self.words.append(len(clip.text.split()))
        has = (clip.text, clip.words, clip.tags, clip.labels)
        said = zip(("text", "word times", "tags", "labels"), has, strict=True)
        self.coverage.update(name for name, value in said if value)
        for name, label in clip.labels.items():
            task = shorten(name)
            if task in self.labels or len(self.labels) < MOST_LABELS:
                self.labels.setdefault(task, LabelFacts()).add(label)
        for counts, name in (
            (self.speakers, clip.speaker),
            (self.sessions, clip.session),
            (self.languages, clip.language),
        ):
            if name:
                _count(counts, name)


@dataclass(frozen=True)
class DatasetFacts:
    """What a dataset holds.

    Attributes:
        info: its `dataset.json`.
        splits: in order.
        dropped: file beside `dataset.json` -> reason -> clips that were left out.
        report: the numbers of the build's report, with their place in it.
        notes: what could not be looked at.
    """

    info: DatasetInfo
    splits: tuple[SplitFacts, ...]
    dropped: dict[str, Counter[str]]
    report: tuple[tuple[str, float], ...]
    notes: tuple[str, ...]


def gather(dataset: Dataset, seed: int) -> DatasetFacts:
    """Look through a dataset.

    Args:
        dataset: anywhere.
        seed: which clips are looked at, where there are too many.

    Raises:
        UserError: a shard is missing, a split is empty, or a server does not answer.
    """
    notes: list[str] = []
    return DatasetFacts(
        info=dataset.info,
        splits=tuple(split_facts(dataset.split(name), seed) for name in dataset.info.splits),
        dropped=_dropped(dataset, notes),
        report=_report(dataset, notes),
        notes=tuple(notes),
    )


def split_facts(split: Split, seed: int) -> SplitFacts:
    """Look through a split; see `gather`."""
    order = split.order(seed).visits(np.arange(min(len(split), MOST_CLIPS))).samples
    whole = frozenset(order[:MOST_WHOLE].tolist())
    facts = SplitFacts(split.name, len(split), len(split.shards))
    ends = np.cumsum(split.shard_sizes)
    for shard, samples in _by_shard(np.sort(order), ends):
        facts.opened += 1
        first = int(ends[shard] - split.shard_sizes[shard])
        readable = _add_clips(facts, split, samples, whole)
        _add_rows(facts, split, shard, np.array(readable, dtype=np.int64) - first)
    return facts


def shorten(text: str, most: int = LONGEST_NAME) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _by_shard(
    samples: NDArray[np.int64], ends: NDArray[np.int64]
) -> Iterator[tuple[int, list[int]]]:
    """Number of each shard, and those of the samples that are in it; they ascend."""
    shards = np.searchsorted(ends, samples, side="right")
    for part in np.split(np.arange(len(samples)), np.flatnonzero(np.diff(shards)) + 1):
        yield int(shards[part[0]]), samples[part].tolist()


def _add_clips(
    facts: SplitFacts, split: Split, samples: list[int], whole: frozenset[int]
) -> list[int]:
    """Count some clips of a shard, of which some are read whole; those that could be read."""
    chosen = [sample for sample in samples if sample in whole]
    with ThreadPoolExecutor(split.readers) as pool:
        looks = dict(zip(chosen, pool.map(partial(_look, split.read), chosen), strict=True))
    readable = []
    for sample in samples:
        look = looks.get(sample) or _look(split.read_record, sample)
        if look.clip is None:
            _count(facts.broken, look.reason)
            continue
        facts.add(look.clip)
        facts.whole += sample in looks
        facts.frames += look.frames
        facts.frames_with_face += look.seen
        readable.append(sample)
    return readable


def _look(read: Callable[[int], Clip], sample: int) -> _Look:
    """Read a clip and keep what is counted."""
    try:
        clip = read(sample)
    except BadSampleError as error:
        return _Look(None, str(error))
    face = np.zeros((0, 1)) if clip.face is None else clip.face
    record = replace(clip, face=None, expression=None, speech=None, image=None)
    return _Look(record, "", len(face), int(face.any(axis=1).sum()))


def _add_rows(facts: SplitFacts, split: Split, shard: int, rows: NDArray[np.int64]) -> None:
    """Count what the index of a shard says of some of its samples."""
    members, lengths = split.members(shard)[rows], split.lengths(shard)
    for name, suffix in _MEMBERS.items():
        facts.coverage[name] += int(members[:, MEMBERS.index(suffix)].sum())
    facts.face_rows += [many for many in lengths.face[rows].tolist() if many]
    facts.speech_rows += [many for many in lengths.speech[rows].tolist() if many]


def _count(counts: Counter[str], name: str) -> None:
    """Count a name, or "others" once there are `MOST_NAMES`."""
    name = shorten(name)
    counts[name if name in counts or len(counts) < MOST_NAMES else OTHERS] += 1


def _dropped(dataset: Dataset, notes: list[str]) -> dict[str, Counter[str]]:
    """File -> reason -> samples that were left out when the dataset was made."""
    dropped = {}
    for name in (QUARANTINE, REPORT):
        content = _beside(dataset, name, notes)
        if content:
            dropped[name] = count_reasons(content.decode("utf8", "replace").splitlines())
    return dropped


def _report(dataset: Dataset, notes: list[str]) -> tuple[tuple[str, float], ...]:
    """The numbers of the build's report."""
    content = _beside(dataset, BUILD_REPORT, notes)
    if not content:
        return ()
    try:
        return tuple(islice(_numbers(json.loads(content)), MOST_COUNTS))
    except (ValueError, RecursionError):
        notes.append(f"{BUILD_REPORT} is no JSON")
        return ()


def _beside(dataset: Dataset, name: str, notes: list[str]) -> bytes | None:
    """A file beside `dataset.json`, or as much of it as is read."""
    content = dataset.beside(name, MOST_FILE)
    if content is not None and len(content) == MOST_FILE:
        notes.append(f"of {name} the first {MOST_FILE >> 20} MiB were read")
    return content


def _numbers(report: object) -> Iterator[tuple[str, float]]:
    """Every number in nested objects with its place; of a list, how long it is."""
    left = [("", report)]
    while left:
        place, value = left.pop()
        if isinstance(value, Mapping):
            inner = [(f"{place}, {name}" if place else str(name), value[name]) for name in value]
            left += [(shorten(name), one) for name, one in reversed(inner)]
        elif isinstance(value, list):
            yield f"{place}, entries", len(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield place, value
