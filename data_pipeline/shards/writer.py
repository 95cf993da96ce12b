"""Writing a dataset: clips -> tars, indexes, `dataset.json`. All of it, or nothing."""

import io
import os
import re
import shutil
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import MOST_BYTES, TOO_LARGE, Clip, clip_members, is_key
from data_pipeline.errors import UserError
from data_pipeline.shards.dataset import (
    FILE,
    NAME,
    DatasetInfo,
    FeatureSchema,
    RowSchema,
    ShardInfo,
    TranscriberInfo,
)
from data_pipeline.shards.index import file_sha256, write_index
from data_pipeline.whole_file import naming

STATISTICS_SPLIT = "train"


class RowStatistics:
    """Mean and standard deviation of each column over rows seen one block at a time."""

    def __init__(self, dim: int) -> None:
        self._count = 0
        self._sum = np.zeros(dim)
        self._squares = np.zeros(dim)

    def add(self, rows: NDArray[np.float16]) -> None:
        """Take rows (T, D) in; rows of zeros (no face was seen) are left out."""
        seen = rows[rows.any(axis=1)].astype(np.float64)
        self._count += len(seen)
        self._sum += seen.sum(axis=0)
        self._squares += (seen**2).sum(axis=0)

    @property
    def mean(self) -> NDArray[np.float64]:
        """(D,); zeros before the first row."""
        return self._sum / max(self._count, 1)

    @property
    def std(self) -> NDArray[np.float64]:
        """(D,), of the population; ones before the first row."""
        if not self._count:
            return np.ones_like(self._sum)
        variance = self._squares / self._count - self.mean**2
        return np.sqrt(np.maximum(variance, 0))


class _OpenShard:
    """A tar being written."""

    def __init__(self, path: Path, split: str) -> None:
        self.path = path
        self.split = split
        self.samples = 0
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def write(self, key: str, members: Sequence[tuple[str, bytes]]) -> None:
        """Append a sample; owner and time are left zero: same clips, same bytes."""
        for suffix, content in members:
            member = tarfile.TarInfo(f"{key}.{suffix}")
            member.size = len(content)
            self._tar.addfile(member, io.BytesIO(content))
        self.samples += 1

    def abandon(self) -> None:
        """Close the file of a tar that is not wanted any more."""
        with suppress(OSError):
            self._tar.close()

    def close(self) -> ShardInfo:
        """Finish the tar, write its index and describe it."""
        self._tar.close()
        sha256 = file_sha256(self.path)
        write_index(self.path, sha256)
        return ShardInfo(
            name=self.path.name,
            split=self.split,
            samples=self.samples,
            bytes=self.path.stat().st_size,
            sha256=sha256,
        )


class ShardWriter:
    """Context manager that writes a dataset.

    Everything is written to `<out>.writing` and renamed at the end, so `out` exists only when it is
    whole; after an error nothing is left.

    Args:
        out: folder to make.
        name, corpus, licence, features: for `dataset.json`; the features' statistics are computed
            over the clips of split `train` and filled in; a modality that no clip has is left out.
        transcribers: the same; what texts and words are from, beside the corpus.
        samples_per_shard: clips of one tar.

    Raises:
        UserError: `out` exists already.
    """

    def __init__(
        self,
        out: Path,
        *,
        name: str,
        corpus: str,
        licence: str,
        features: FeatureSchema,
        transcribers: tuple[TranscriberInfo, ...] = (),
        samples_per_shard: int = 100,
    ) -> None:
        if out.exists():
            raise UserError(f"{out} exists already; give a new folder or remove it")
        self._out = out
        self._folder = out.with_name(f"{out.name}.writing")
        self._info = DatasetInfo(
            name=name,
            corpus=corpus,
            licence=licence,
            features=features,
            transcribers=transcribers,
            shards=(),
        )
        self._samples_per_shard = samples_per_shard
        self._open: dict[str, _OpenShard] = {}
        self._done: dict[str, list[ShardInfo]] = {}
        self._keys: set[str] = set()
        self._files: dict[str, bytes] = {}
        self._face = RowStatistics(features.face.dim) if features.face else None
        self._speech = RowStatistics(features.speech.dim) if features.speech else None
        self._has_face = self._has_speech = False

    def __enter__(self) -> Self:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            try:
                with naming(self._folder):
                    self._finish()
            except BaseException:
                self._discard()
                raise
        else:
            self._discard()

    def _discard(self) -> None:
        for shard in self._open.values():
            shard.abandon()
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, split: str, clip: Clip) -> None:
        """Append a clip to a split.

        Raises:
            ValueError: see `write_members`.
        """
        self._check(split, clip)
        self._append(split, clip, clip_members(clip))

    def write_members(self, split: str, clip: Clip, members: Sequence[tuple[str, bytes]]) -> None:
        """Append a clip to a split as it stands elsewhere, bit for bit.

        Args:
            split: its name.
            clip: what the members hold.
            members: suffix and content, in the order of `MEMBERS`.

        Raises:
            ValueError: a split's name or a key that is unfit, a key that is not new, rows that do
                not fit the schema or are not finite in float16, or more than `MOST_BYTES`.
        """
        self._check(split, clip)
        self._append(split, clip, members)

    def _append(self, split: str, clip: Clip, members: Sequence[tuple[str, bytes]]) -> None:
        if sum(len(content) for _, content in members) > MOST_BYTES:
            raise ValueError(f"clip {clip.key!r} {TOO_LARGE}")
        self._keys.add(clip.key)
        self._has_face |= clip.face is not None
        self._has_speech |= clip.speech is not None
        if split not in self._open:
            number = len(self._done.setdefault(split, []))
            path = self._folder / f"{split}-{number:06d}.tar"
            self._open[split] = _OpenShard(path, split)
        shard = self._open[split]
        with naming(shard.path):
            shard.write(clip.key, members)
            if shard.samples == self._samples_per_shard:
                self._done[split].append(self._open.pop(split).close())
        if split == STATISTICS_SPLIT:
            self._count(clip)

    def add_file(self, name: str, content: bytes) -> None:
        """Put a file beside the shards; its name may begin with a folder."""
        self._files[name] = content

    def _check(self, split: str, clip: Clip) -> None:
        if not re.fullmatch(NAME, split):
            raise ValueError(f"{split!r} cannot be the name of a split")
        if not is_key(clip.key):
            raise ValueError(
                f"{clip.key!r:.300} cannot be a key: it is empty or too long, has a dot or slash, "
                "or cannot be shown"
            )
        if clip.key in self._keys:
            raise ValueError(f"two clips have the key {clip.key!r}")
        features = self._info.features
        _check_rows("face", clip.face, features.face.dim if features.face else None)
        _check_rows("speech", clip.speech, features.speech.dim if features.speech else None)
        _check_rows(
            "expression", clip.expression, len(features.face.classes) if features.face else None
        )

    def _count(self, clip: Clip) -> None:
        if self._face is not None and clip.face is not None:
            self._face.add(clip.face)
        if self._speech is not None and clip.speech is not None:
            self._speech.add(clip.speech)

    def _finish(self) -> None:
        """Close the tars, write `dataset.json` last and put the folder in its place."""
        for split, shard in self._open.items():
            self._done[split].append(shard.close())
        shards = tuple(shard for split in self._done.values() for shard in split)
        info = self._info.model_copy(update={"shards": shards, "features": self._features()})
        for name, content in self._files.items():
            (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self._folder / name).write_bytes(content)
        path = self._folder / FILE
        path.write_text(info.model_dump_json(indent=1) + "\n", encoding="utf8")
        _sync_files(self._folder)
        self._folder.rename(self._out)

    def _features(self) -> FeatureSchema:
        """The schema of what the clips have, with the statistics filled in."""
        features = self._info.features
        return FeatureSchema(
            face=_with_statistics(features.face, self._face) if self._has_face else None,
            speech=_with_statistics(features.speech, self._speech) if self._has_speech else None,
        )


RowSchemaT = TypeVar("RowSchemaT", bound=RowSchema)


def _with_statistics(
    schema: RowSchemaT | None, statistics: RowStatistics | None
) -> RowSchemaT | None:
    """The schema with mean and std, to seven digits: more would be noise."""
    if schema is None or statistics is None:
        return None
    mean, std = (
        tuple(float(f"{value:.7g}") for value in column)
        for column in (statistics.mean, statistics.std)
    )
    return schema.model_copy(update={"mean": mean, "std": std})


def _check_rows(name: str, rows: NDArray[np.float16] | None, dim: int | None) -> None:
    if rows is None:
        return
    if rows.shape[1:] != (dim,):
        raise ValueError(f"{name} rows are {rows.shape}, the schema says {dim} columns")
    with np.errstate(over="ignore"):
        if not np.isfinite(rows.astype(np.float16)).all():
            raise ValueError(f"{name} rows are not finite in float16")


def _sync_files(folder: Path) -> None:
    """Make sure that all files are on disk before the folder gets its name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
