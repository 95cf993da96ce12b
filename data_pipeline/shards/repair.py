"""`memo data repair`: what can be saved of a damaged dataset, as a new one."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from isal.isal_zlib import crc32

from data_pipeline.clip import (
    JSON,
    MEMBERS,
    NOTHING,
    BadSampleError,
    Clip,
    Fault,
    clip_from_members,
)
from data_pipeline.errors import UserError
from data_pipeline.shards.check import Members, examine
from data_pipeline.shards.dataset import FeatureSchema, ShardInfo
from data_pipeline.shards.index import BadIndexError, ShardIndex, file_sha256
from data_pipeline.shards.place import Place
from data_pipeline.shards.remote import UnavailableError
from data_pipeline.shards.shard import CHANGED, CUT_OFF
from data_pipeline.shards.store import Store, open_store
from data_pipeline.shards.tar import Content, TarSample, found_samples, map_tar
from data_pipeline.shards.tokenizer import MOST_TOKENIZER, TOKENIZER
from data_pipeline.shards.writer import ShardWriter

REPORT = "repair.jsonl"

Action: TypeAlias = Literal["joined", "cut", "dropped"]
"""Members that stood apart were brought together; members were left out; the sample was."""


@dataclass(frozen=True)
class Loss:
    """What was done to a sample that was not whole, and one reason; a line of `repair.jsonl`.

    Attributes:
        shard: name of the tar, "" of what lies beside them.
        key: of the sample; "" where not even that is known.
        member: suffix of the member, "" if it concerns the sample; a file beside the tars.
        action: what was done.
        fault: the kind of what was wrong.
        reason: what was wrong.
    """

    shard: str
    key: str
    member: str
    action: Action
    fault: Fault
    reason: str


@dataclass
class RepairReport:
    """What came of a repair.

    Attributes:
        whole: split -> samples that were kept bit for bit.
        joined, cut: split -> samples that this was done to.
        dropped: split -> samples of `dataset.json` that were not kept, found or not.
        losses: what was wrong with them, and with what was never a sample of the dataset.
    """

    whole: Counter[str] = field(default_factory=Counter)
    joined: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    losses: list[Loss] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """Samples of the new dataset."""
        return self.whole.total() + self.joined.total() + self.cut.total()

    def table(self) -> list[str]:
        """Lines for the terminal: what became of each split's samples."""
        columns = ("whole", "joined", "cut", "dropped")
        lines = [f"{'split':<16}" + "".join(f"{name:>10}" for name in columns)]
        for split in sorted({split for name in columns for split in getattr(self, name)}):
            counts = [getattr(self, name)[split] for name in columns]
            lines.append(f"{split:<16}" + "".join(f"{count:>10,}" for count in counts))
        reasons = Counter((loss.action, loss.fault) for loss in self.losses)
        for (action, fault), count in reasons.most_common():
            lines.append(f"{f'{action}: {fault}':<46}{count:>10,}")
        return lines


@dataclass(frozen=True)
class _Found:
    """A sample of a tar, before its members are looked into.

    Attributes:
        key: its name.
        members: what is there of it.
        flaws: what is not.
        listed: whether it stands for one of those that `dataset.json` counts, as far as is known.
    """

    key: str
    members: Members
    flaws: list[BadSampleError]
    listed: bool


def repair_dataset(place: Place, out: Path) -> RepairReport:
    """Write what can be saved of a dataset into a new one, which passes `memo data check`.

    Samples that are whole are kept bit for bit. One that has lost a modality is kept without it if
    its JSON member is whole; of one whose members stand apart they are brought together; the rest
    is dropped. `repair.jsonl` in the new folder says what was done to whom, and why. A tokenizer
    beside `dataset.json` is kept as it is.

    Raises:
        UserError: `dataset.json` is missing or not of the format, `out` exists, nothing can be
            saved, or a shard on a server does not come as `dataset.json` says.
    """
    store = open_store(place)
    info = store.info()
    _check_out(place, out)
    report = RepairReport()
    with ShardWriter(
        out,
        name=info.name,
        corpus=info.corpus,
        licence=info.licence,
        features=info.features,
        transcribers=info.transcribers,
        samples_per_shard=max((shard.samples for shard in info.shards), default=1) or 1,
    ) as writer:
        _keep_tokenizer(store, writer, report)
        keys: set[str] = set()
        for shard in info.shards:
            for clip, members in _saved(store, shard, info.features, keys, report):
                writer.write_members(shard.split, clip, members)
        if not report.kept:
            raise UserError(f"nothing of {place} can be saved; 'memo data check' says why")
        lines = [json.dumps(asdict(loss), ensure_ascii=False) + "\n" for loss in report.losses]
        writer.add_file(REPORT, "".join(lines).encode())
    return report


def _check_out(place: Place, out: Path) -> None:
    """The writer works in `<out>.writing`, which must not be what is to be repaired."""
    working = out.resolve().with_name(f"{out.name}.writing")
    if isinstance(place, Path) and working == place.resolve():
        raise UserError(f"--out: {out} would be written in {place}; give another name")


def _keep_tokenizer(store: Store, writer: ShardWriter, report: RepairReport) -> None:
    """Copy what lies in the tokenizer's folder; no link in it, or to it, is followed."""
    folder = store.tokenizer()
    if folder is None:
        return
    for path in [folder] if folder.is_symlink() else sorted(folder.rglob("*")):
        name = (TOKENIZER / path.relative_to(folder)).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            loss = Loss("", "", name, "dropped", Fault.FOREIGN, "not a regular file")
            report.losses.append(loss)
        elif path.is_file() and path.stat().st_size > MOST_TOKENIZER:
            reason = f"has more than {MOST_TOKENIZER >> 20} MiB, which no tokenizer's file has"
            report.losses.append(Loss("", "", name, "dropped", Fault.LARGE, reason))
        elif path.is_file():
            writer.add_file(name, path.read_bytes())


def _saved(
    store: Store, shard: ShardInfo, features: FeatureSchema, keys: set[str], report: RepairReport
) -> Iterator[tuple[Clip, list[tuple[str, bytes]]]]:
    """The samples of one tar that can be kept, with their members; the others are reported.

    Args:
        store: holds the tar.
        shard: what `dataset.json` says of it.
        features: what its rows must be.
        keys: that the new dataset has; those of this tar are entered.
        report: of what is done.
    """
    found = 0
    for one in _find(store, shard):
        found += one.listed
        members, faults = _judge(one, features, keys)
        clip = clip_from_members(one.key, members) if JSON in members else None
        if clip is not None and clip.is_empty:
            faults, clip = faults or [BadSampleError("", NOTHING, Fault.EMPTY)], None
        _account(report, shard, one, faults, kept=clip is not None)
        if clip is not None:
            keys.add(one.key)
            yield clip, [(name, bytes(members[name])) for name in MEMBERS if name in members]
    if found < shard.samples:
        reason = f"{shard.samples - found:,} samples are lost without a trace"
        report.losses.append(Loss(shard.name, "", "", "dropped", Fault.LOST, reason))
        report.dropped[shard.split] += shard.samples - found


def _judge(
    one: _Found, features: FeatureSchema, keys: set[str]
) -> tuple[Members, list[BadSampleError]]:
    """The members that can be used, and everything that is wrong with the others."""
    if one.key in keys:
        return {}, [BadSampleError("", "another sample has this key", Fault.TWICE)]
    if one.flaws and not one.members:
        return {}, one.flaws
    members, faults = examine(one.members, features)
    known = {flaw.member for flaw in one.flaws}
    faults = [*one.flaws, *(fault for fault in faults if fault.member not in known)]
    named = {fault.member for fault in faults}
    for suffix in one.members:
        if suffix not in members and suffix not in named:
            faults.append(BadSampleError(suffix, "belongs to rows that cannot be used", Fault.LOST))
    return members, faults


def _account(
    report: RepairReport, shard: ShardInfo, one: _Found, faults: list[BadSampleError], kept: bool
) -> None:
    """Enter what was done to a sample."""
    action: Action = "dropped"
    if kept:
        action = "joined" if all(fault.fault is Fault.APART for fault in faults) else "cut"
    counts = getattr(report, action) if faults else report.whole
    counts[shard.split] += kept or one.listed
    for fault in faults:
        loss = Loss(shard.name, one.key, fault.member, action, fault.fault, fault.reason)
        report.losses.append(loss)


def _find(store: Store, shard: ShardInfo) -> Iterator[_Found]:
    """The samples of a tar; if there is no such file, those that its index knows are lost."""
    known: ShardIndex | None = None
    with suppress(BadIndexError):
        known = store.index(shard)
    with suppress(UnavailableError), store.tar(shard) as path:
        if path.is_file():
            yield from _find_in(path, known, shard)
            return
    for key in known.keys[: shard.samples] if known is not None else ():
        yield _Found(key, {}, [BadSampleError("", "its tar is missing", Fault.LOST)], listed=True)


def _find_in(path: Path, known: ShardIndex | None, shard: ShardInfo) -> Iterator[_Found]:
    """The samples of a tar: by its headers or, if it was changed, by its index where it can."""
    content = map_tar(path)
    samples = found_samples(content)
    if known is None or file_sha256(path) == shard.sha256:
        for sample in samples:
            yield _Found(sample.key, *_find_stepped(sample, content), listed=not sample.is_stray)
        return
    by_key = {sample.key: sample for sample in samples}
    for row, key in enumerate(known.keys):
        members, flaws = _find_known(known, row, by_key.pop(key, TarSample(key, 0)), content)
        yield _Found(key, members, flaws, listed=row < shard.samples)  # strays come last
    for key in by_key:
        reason = "was not in the tar when its index was written"
        yield _Found(key, {}, [BadSampleError("", reason, Fault.FOREIGN)], listed=False)


def _find_stepped(sample: TarSample, content: Content) -> tuple[Members, list[BadSampleError]]:
    """The members of a sample that the tar's headers name, and what is wrong with them."""
    flaws = [BadSampleError(one.member, one.reason, one.fault) for one in sample.flaws.values()]
    return sample.members(memoryview(content)), flaws


def _find_known(
    known: ShardIndex, row: int, sample: TarSample, content: Content
) -> tuple[Members, list[BadSampleError]]:
    """The members of a sample that are what the index says, at its place or at the headers'."""
    if not known.crcs[row].any():
        return _find_stepped(sample, content)
    tar, members, flaws = memoryview(content), {}, []
    stepped = sample.members(tar)
    columns = (known.offsets[row], known.sizes[row], known.crcs[row])
    for name, at, size, crc in zip(MEMBERS, *(one.tolist() for one in columns), strict=True):
        if at < 0:
            continue
        right = [
            one for one in (tar[at : at + size], stepped.get(name)) if one and crc32(one) == crc
        ]
        if right:
            members[name] = right[0]
        else:
            cut = at + size > len(tar)
            fault, reason = (Fault.LOST, CUT_OFF) if cut else (Fault.CHANGED, CHANGED)
            flaws.append(BadSampleError(name, reason, fault))
    return members, flaws
