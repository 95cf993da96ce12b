"""`memo data check` and `memo data info`: is a dataset whole, and what does it hold."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import EXPRESSION, FACE, SPEECH, BadSampleError, Clip
from data_pipeline.errors import UserError
from data_pipeline.shards.dataset import DatasetInfo, FeatureSchema, ShardInfo
from data_pipeline.shards.index import ShardIndex, build_index, file_sha256, index_path
from data_pipeline.shards.place import Place
from data_pipeline.shards.reader import Dataset, Split
from data_pipeline.shards.shard import MappedShard, Shard
from data_pipeline.shards.store import open_store
from data_pipeline.shards.tar import TarProblem

POSTERIOR_TOLERANCE = 0.01
"""How far the float16 posteriors of a row may be from a sum of 1."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a dataset.

    Attributes:
        shard: name of the tar, "" if it concerns them all.
        key: of the sample, "" if it concerns the shard.
        member: suffix of the member, "" if it concerns the sample.
        offset: of the member's header in the tar where it is what is wrong, else None.
        reason: what is wrong.
    """

    shard: str
    key: str
    member: str
    offset: int | None
    reason: str

    def __str__(self) -> str:
        place = [part for part in (self.shard, self.key, self.member) if part]
        if self.offset is not None:
            place.append(f"byte {self.offset:,}")
        return f"{', '.join(place)}: {self.reason}"


def check_dataset(place: Place) -> list[Problem]:
    """Look for everything that could go wrong in a run: all of it is read.

    Sizes, hashes, the tars' structure, the indexes, and of every sample: that its members decode,
    that its rows have the schema's dimensions and are finite, that its posteriors are posteriors,
    and that no other has its key. Of a local folder also that there are no other tars in it.

    Raises:
        UserError: `dataset.json` is missing or not of the format.
    """
    store = open_store(place)
    info = store.info()
    shard_of: dict[str, str] = {}
    problems: list[Problem] = []
    for shard in info.shards:
        try:
            with store.tar(shard) as path:
                beside = store.index(shard)
                problems += _check_shard(path, beside, shard, info.features, shard_of)
        except UserError as error:
            problems.append(Problem(shard.name, "", "", None, str(error)))
    listed = {shard.name for shard in info.shards}
    tars = place.glob("*.tar") if isinstance(place, Path) else ()
    strays = sorted(path.name for path in tars if path.name not in listed)
    return problems + [Problem(name, "", "", None, "dataset.json lacks it") for name in strays]


def _check_shard(
    path: Path,
    beside: ShardIndex | None,
    shard: ShardInfo,
    features: FeatureSchema,
    shard_of: dict[str, str],
) -> Iterator[Problem]:
    """Check one tar, with the index beside it, and enter its keys into `shard_of`."""
    if not path.is_file() or not path.stat().st_size:
        yield Problem(shard.name, "", "", None, "is missing or empty")
        return
    found: list[TarProblem] = []
    mapped = MappedShard(path, build_index(path, found.append))
    for one in found:
        yield Problem(shard.name, one.key, one.member, one.offset, one.reason)
    for reason in _shard_reasons(path, beside, shard, len(mapped.index)):
        yield Problem(shard.name, "", "", None, reason)
    for row, key in enumerate(mapped.index.keys):
        if key in shard_of:
            yield Problem(shard.name, key, "", None, f"{shard_of[key]} has this key, too")
        shard_of.setdefault(key, shard.name)
        for member, reason in _sample_reasons(mapped, row, features):
            yield Problem(shard.name, key, member, None, reason)


def _shard_reasons(
    path: Path, beside: ShardIndex | None, shard: ShardInfo, samples: int
) -> Iterator[str]:
    """What differs from `dataset.json`, and a bad index."""
    size, sha256 = path.stat().st_size, file_sha256(path)
    if size != shard.bytes:
        yield f"has {size:,} bytes, dataset.json says {shard.bytes:,}"
    elif sha256 != shard.sha256:
        yield f"was changed: its sha256 is {sha256}, dataset.json says {shard.sha256}"
    if samples != shard.samples:
        yield f"has {samples:,} samples, dataset.json says {shard.samples:,}"
    name = index_path(Path(shard.name))
    if beside is None:
        yield f"its index {name} is missing, damaged or of another tar"
    elif sha256 == shard.sha256 and beside.to_bytes(sha256) != build_index(path).to_bytes(sha256):
        yield f"its index {name} does not say what is in the tar"


def _sample_reasons(shard: Shard, row: int, features: FeatureSchema) -> Iterator[tuple[str, str]]:
    """(member, reason) of everything that is wrong with a sample."""
    try:
        clip = shard.read(row)
    except BadSampleError as error:
        yield error.member, error.reason
        return
    face, speech = features.face, features.speech
    for member, rows, dim in (
        (FACE, clip.face, face.dim if face else 0),
        (EXPRESSION, clip.expression, len(face.classes) if face else 0),
        (SPEECH, clip.speech, speech.dim if speech else 0),
    ):
        if rows is not None and rows.shape[1] != dim:
            yield member, f"has rows of {rows.shape[1]}, dataset.json says {dim}"
    if clip.expression is not None and not _are_posteriors(clip.expression):
        yield EXPRESSION, "has rows that are neither probabilities that sum to 1 nor zero"


def _are_posteriors(rows: NDArray[np.float16]) -> bool:
    """Whether each row (T, K) is a distribution, or all zero."""
    sums = rows.sum(axis=1, dtype=np.float64)
    fine = (np.abs(sums - 1) < POSTERIOR_TOLERANCE) | ~rows.any(axis=1)
    return bool((fine & (rows >= 0).all(axis=1)).all())


@dataclass
class _Totals:
    """Sums over the samples of a split."""

    samples: int = 0
    broken: int = 0
    seconds: float = 0.0
    words: int = 0
    speakers: set[str] = field(default_factory=set)
    languages: Counter[str] = field(default_factory=Counter)

    def add(self, clip: Clip) -> None:
        self.seconds += clip.duration_s
        self.words += len((clip.text or "").split())
        self.speakers |= {clip.speaker} - {""}
        self.languages[clip.language or "unknown"] += 1


def describe(dataset: Dataset) -> dict[str, str]:
    """What a dataset holds, as lines of a table: name -> value.

    Only indexes and JSON members are read.

    Raises:
        UserError: a shard is missing or cut off.
    """
    info = dataset.info
    lines = {
        "name": info.name,
        "corpus": info.corpus,
        "licence": info.licence,
        "shards": f"{len(info.shards)}, {sum(shard.bytes for shard in info.shards) / 1e6:,.1f} MB",
        **_describe_features(info),
    }
    for name in info.splits:
        lines |= _describe_split(dataset.split(name))
    return lines


def _describe_features(info: DatasetInfo) -> dict[str, str]:
    lines = {}
    if face := info.features.face:
        lines["face"] = f"{face.dim} numbers, {face.fps:g} a second, {face.encoder}"
        lines["expression"] = ", ".join(face.classes)
    if speech := info.features.speech:
        lines["speech"] = (
            f"{speech.dim} numbers, {speech.rows_per_s:.4g} a second, {speech.encoder}"
        )
    return lines


def _describe_split(split: Split) -> dict[str, str]:
    totals = _Totals(len(split))
    for sample in range(len(split)):
        try:
            totals.add(split.read_record(sample))
        except BadSampleError:
            totals.broken += 1
    parts = [split.lengths(shard) for shard in range(len(split.shards))]
    languages = ", ".join(f"{name} {count:,}" for name, count in totals.languages.most_common())
    lines = {
        "clips": f"{totals.samples:,}" + (f", {totals.broken:,} broken" if totals.broken else ""),
        "hours": f"{totals.seconds / 3600:.2f}",
        "words": f"{totals.words:,}",
        "speakers": f"{len(totals.speakers):,}",
        "languages": languages,
        "text characters": _spread(np.concatenate([part.text_chars for part in parts])),
        "face rows": _spread(np.concatenate([part.face for part in parts])),
        "speech rows": _spread(np.concatenate([part.speech for part in parts])),
    }
    return {f"{split.name}: {name}": value for name, value in lines.items()}


def _spread(lengths: NDArray[np.int32]) -> str:
    """How many samples have something, and how much of it."""
    some = lengths[lengths > 0]
    if not len(some):
        return "none"
    share = len(some) / len(lengths)
    return f"in {share:.0%} of the clips, mean {some.mean():.1f}, longest {some.max()}"
