"""`memo data check` and `memo data info`: is a dataset whole, and what does it hold."""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from data_pipeline.clip import (
    EXPRESSION,
    FACE,
    JSON,
    MEMBERS,
    NOTHING,
    BadSampleError,
    Clip,
    Fault,
    clip_from_members,
)
from data_pipeline.errors import UserError
from data_pipeline.shards.dataset import DatasetInfo, FeatureSchema, ShardInfo
from data_pipeline.shards.index import (
    BadIndexError,
    ShardIndex,
    file_sha256,
    index_of,
    index_path,
    with_checksums,
)
from data_pipeline.shards.place import Place
from data_pipeline.shards.reader import Dataset, Split
from data_pipeline.shards.shard import CHANGED
from data_pipeline.shards.store import Store, open_store
from data_pipeline.shards.tar import BLOCK, Content, TarProblem, TarSample, map_tar, tar_samples

POSTERIOR_TOLERANCE = 0.01
"""How far the float16 posteriors of a row may be from a sum of 1."""

Members: TypeAlias = Mapping[str, memoryview]
"""Suffix -> content."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a dataset.

    Attributes:
        shard: name of the tar, "" if it concerns them all.
        key: of the sample, "" if it concerns the shard.
        member: suffix of the member, "" if it concerns the sample.
        offset: of the member's header in the tar, or of the sample's first one; None of a shard.
        reason: what is wrong.
        fault: the kind of it.
    """

    shard: str
    key: str
    member: str
    offset: int | None
    reason: str
    fault: Fault

    def __str__(self) -> str:
        place = [part for part in (self.shard, self.key, self.member) if part]
        if self.offset is not None:
            place.append(f"byte {self.offset:,}")
        return f"{', '.join(place)}: {self.reason}"


def check_dataset(place: Place) -> Iterator[Problem]:
    """Look for everything that could go wrong in a run: all of it is read.

    Sizes, hashes, the tars' structure, the indexes, and of every sample: that its members are what
    they were when the index was written and decode, that its rows have the schema's dimensions and
    are finite, that its posteriors are posteriors, and that no other has its key. Of a local folder
    also that there are no other tars in it.

    Raises:
        UserError: `dataset.json` is missing or not of the format.
    """
    store = open_store(place)
    return _check_shards(store, store.info())


def _check_shards(store: Store, info: DatasetInfo) -> Iterator[Problem]:
    shard_of: dict[str, str] = {}
    for shard in info.shards:
        try:
            with store.tar(shard) as path:
                yield from _check_shard(path, store, shard, info.features, shard_of)
        except UserError as error:
            yield Problem(shard.name, "", "", None, str(error), Fault.LOST)
    listed = {shard.name for shard in info.shards}
    tars = store.place.glob("*.tar") if isinstance(store.place, Path) else ()
    for name in sorted(path.name for path in tars if path.name not in listed):
        yield Problem(name, "", "", None, "dataset.json lacks it", Fault.UNLISTED)


def _check_shard(
    path: Path,
    store: Store,
    shard: ShardInfo,
    features: FeatureSchema,
    shard_of: dict[str, str],
) -> Iterator[Problem]:
    """Check one tar, with the index beside it, and enter its keys into `shard_of`."""
    if not path.is_file() or not path.stat().st_size:
        yield Problem(shard.name, "", "", None, "is missing or empty", Fault.LOST)
        return
    content = map_tar(path)
    known = yield from _known_index(store, shard)
    samples = yield from _step_through(shard.name, content)
    yield from _compare(path, shard, known, index_of(samples, content), content)
    rows = {key: row for row, key in enumerate(known.keys)} if known is not None else {}
    for sample in samples:
        key = sample.key
        if key in shard_of:
            reason = f"{shard_of[key]} has this key, too"
            yield Problem(shard.name, key, "", sample.offset, reason, Fault.TWICE)
        shard_of.setdefault(key, shard.name)
        crcs = _crcs(known, rows.pop(key)) if known is not None and key in rows else {}
        for error in _sample_faults(sample, content, features, crcs):
            at = sample.offsets[error.member] - BLOCK if error.member in sample.offsets else None
            offset = sample.offset if at is None else at
            yield Problem(shard.name, key, error.member, offset, error.reason, error.fault)
    for key, row in rows.items():
        stood = [at - BLOCK for at in known.offsets[row].tolist() if at >= 0] if known else []
        yield Problem(shard.name, key, "", min(stood, default=None), "is lost", Fault.LOST)


def _known_index(store: Store, shard: ShardInfo) -> Generator[Problem, None, ShardIndex | None]:
    """The index beside a tar; what is wrong with it, if it cannot be used."""
    try:
        return store.index(shard)
    except BadIndexError as error:
        reason = f"its index {index_path(Path(shard.name)).name} {error}"
        yield Problem(shard.name, "", "", None, reason, Fault.INDEX)
        return None


def _step_through(shard: str, content: Content) -> Generator[Problem, None, list[TarSample]]:
    """The samples of a tar; all that is wrong with its structure on the way."""
    scan = tar_samples(content)
    while True:
        try:
            one: TarProblem = next(scan)
        except StopIteration as end:
            samples: list[TarSample] = end.value
            return samples
        yield Problem(shard, one.key, one.member, one.offset, one.reason, one.fault)


def _compare(
    path: Path, shard: ShardInfo, known: ShardIndex | None, found: ShardIndex, content: Content
) -> Iterator[Problem]:
    """What differs from `dataset.json`, and an index that says something else."""

    def problem(reason: str, fault: Fault) -> Problem:
        return Problem(shard.name, "", "", None, reason, fault)

    size, sha256 = path.stat().st_size, file_sha256(path)
    if size != shard.bytes:
        reason = f"has {size:,} bytes, dataset.json says {shard.bytes:,}"
        yield problem(reason, Fault.LOST if size < shard.bytes else Fault.CHANGED)
    elif sha256 != shard.sha256:
        reason = f"was changed: its sha256 is {sha256}, dataset.json says {shard.sha256}"
        yield problem(reason, Fault.CHANGED)
    if len(found) != shard.samples:
        reason = f"has {len(found):,} samples, dataset.json says {shard.samples:,}"
        yield problem(reason, Fault.LOST if len(found) < shard.samples else Fault.FOREIGN)
    if known is not None and sha256 == shard.sha256:
        found = with_checksums(found, content)
        if known.to_bytes(sha256) != found.to_bytes(sha256):
            name = index_path(Path(shard.name)).name
            yield problem(f"its index {name} does not say what is in the tar", Fault.INDEX)


def _crcs(known: ShardIndex, row: int) -> dict[str, int]:
    """Suffix -> CRC-32 of a sample's members."""
    return dict(zip(MEMBERS, known.crcs[row].tolist(), strict=True))


def _sample_faults(
    sample: TarSample, content: Content, features: FeatureSchema, crcs: Mapping[str, int]
) -> Iterator[BadSampleError]:
    """Everything that is wrong with what a sample's members hold."""
    members = sample.members(memoryview(content))
    for suffix, one in members.items():
        if crcs.get(suffix) and crc32(one) != crcs[suffix]:
            yield BadSampleError(suffix, CHANGED, Fault.CHANGED)
    if not sample.flaws:
        for suffix, crc in crcs.items():
            if crc and suffix not in members:
                yield BadSampleError(suffix, "is lost: its index has it", Fault.LOST)
    if members:
        yield from examine(members, features)[1]


def examine(
    members: Members, features: FeatureSchema
) -> tuple[dict[str, memoryview], list[BadSampleError]]:
    """The members of a sample that can be used, together, and what is wrong with the others.

    Args:
        members: of one sample.
        features: what its rows must be.
    """
    sound, faults = {}, []
    for suffix in MEMBERS:
        if suffix in members:
            try:
                _read_alone(suffix, members[suffix], features)
                sound[suffix] = members[suffix]
            except BadSampleError as error:
                faults.append(error)
    if JSON not in members:
        faults.append(BadSampleError(JSON, "is missing", Fault.LOST))
    try:
        clip = clip_from_members("", {JSON: b"{}", **sound})
        features.check(clip)
        if clip.is_empty and not faults:
            faults.append(BadSampleError("", NOTHING, Fault.EMPTY))
    except BadSampleError as error:  # face and expression do not belong together
        if error.member not in {one.member for one in faults}:
            faults.append(error)
        sound = {suffix: one for suffix, one in sound.items() if suffix not in (FACE, EXPRESSION)}
    return sound, faults


def _read_alone(suffix: str, content: memoryview, features: FeatureSchema) -> None:
    """Read a single member.

    Raises:
        BadSampleError: it is not of the right form, or its posteriors are none.
    """
    clip = clip_from_members("", {JSON: b"{}", suffix: content})
    features.check_columns(clip)
    if clip.expression is not None and not _are_posteriors(clip.expression):
        reason = "has rows that are neither probabilities that sum to 1 nor zero"
        raise BadSampleError(EXPRESSION, reason, Fault.VALUES)


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
        found = f", found by {face.detector}" if face.detector else ""
        lines["face"] = f"{face.dim} numbers, {face.fps:g} a second, {face.encoder}{found}"
        lines["expression"] = ", ".join(face.classes) or "none"
    if speech := info.features.speech:
        lines["speech"] = (
            f"{speech.dim} numbers, {speech.rows_per_s:.4g} a second, {speech.encoder}"
        )
    for task, made in (("recognise", "texts"), ("align", "word times")):
        if names := [one.name for one in info.transcribers if one.task == task]:
            lines[made] = f"of {' and '.join(names)}"
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
