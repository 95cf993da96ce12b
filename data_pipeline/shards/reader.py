"""Reading clips by number, wherever their shards lie."""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import MEMBERS, BadSampleError, Clip
from data_pipeline.errors import UserError
from data_pipeline.order import WINDOW_SAMPLES, Order
from data_pipeline.shards.dataset import DatasetInfo, ShardInfo
from data_pipeline.shards.index import file_sha256
from data_pipeline.shards.place import Place
from data_pipeline.shards.remote import FETCH, RemoteSettings
from data_pipeline.shards.shard import Shard
from data_pipeline.shards.store import Store, open_store
from data_pipeline.watch import Task, Work

MOST_OPEN = 256
"""Tars of a split that are kept open; each holds a file descriptor, of which 1,024 is usual."""

FETCHES = 4
"""Shards that are fetched at the same time."""

MOST_INDEXED = 4 * WINDOW_SAMPLES
"""About as many samples are in the open tars, whose indexes take some 200 bytes a sample."""


@dataclass(frozen=True)
class Lengths:
    """Lengths of the samples of a shard, in its order; 0 where something is missing.

    Attributes:
        text_chars: int32 (n,), characters of the text.
        face: int32 (n,), face rows.
        speech: int32 (n,), speech rows.
    """

    text_chars: NDArray[np.int32]
    face: NDArray[np.int32]
    speech: NDArray[np.int32]


class Split:
    """The samples of one split, numbered from 0 through its shards in order.

    Reading is safe from several threads. Shards are opened when first needed; reading one that
    lies on a server then raises UserError if it cannot be had.

    Args:
        store: the dataset's files.
        info: its `dataset.json`.
        name: of the split; None takes the samples of all splits, in the order of the shards.

    Attributes:
        readers: how many threads read best.
        is_remote: whether the shards lie on a server.
        traffic: what reading the dataset has cost so far.
        work: what its threads are at that may take long.
        most_open: tars that are kept open.

    Raises:
        UserError: there is no such split, it is empty, or a shard is missing.
    """

    def __init__(self, store: Store, info: DatasetInfo, name: str | None) -> None:
        self.name = name or "all"
        self.shards = tuple(shard for shard in info.shards if name in (None, shard.split))
        self.shard_sizes = np.array([shard.samples for shard in self.shards], dtype=np.int64)
        if not self.shard_sizes.sum():
            known = ", ".join(info.splits) or "none"
            raise UserError(
                f"{store.place} has no samples in split {name!r}; its splits are: {known}"
            )
        self.fingerprint = info.fingerprint(name)
        self.readers = store.readers
        self.is_remote = store.is_remote
        self.traffic = store.traffic
        self.work = Work()
        self.most_open = MOST_OPEN
        self._store = store
        self._features = info.features
        self._ends: list[int] = np.cumsum(self.shard_sizes).tolist()
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._fetched: set[int] = set()
        self._lock = threading.Lock()
        store.check(self.shards)

    @property
    def oldest_work(self) -> Task | None:
        """Which of its work has gone on for longest."""
        return self.work.oldest()

    def __len__(self) -> int:
        return self._ends[-1]

    def order(self, seed: int) -> Order:
        """The order of a seed."""
        return Order(seed, self.shard_sizes)

    def fetch(self, samples: NDArray[np.int64]) -> None:
        """Have the shards of some samples in the cache; of those read by ranges, their indexes.

        Raises:
            UserError: one cannot be had.
        """
        numbers = np.unique(np.searchsorted(self._ends, samples, side="right")).tolist()
        missing = [one for one in numbers if one not in self._fetched and one not in self._open]
        with ThreadPoolExecutor(FETCHES) as pool:
            list(pool.map(self._fetch, missing))
        self._fetched.update(missing)

    def _fetch(self, number: int) -> None:
        shard = self.shards[number]
        with self.work.on(f"fetching {shard.name}"):
            self._store.fetch(shard)

    def read(self, sample: int) -> Clip:
        """The clip of this number; its arrays are views of the tar.

        Raises:
            BadSampleError: it is not whole or not of the right form.
        """
        shard, row = self._find(sample)
        return shard.read(row)

    def read_record(self, sample: int) -> Clip:
        """The clip without its rows and its image: what its JSON member says.

        Raises:
            BadSampleError: that member is missing or broken.
        """
        shard, row = self._find(sample)
        return shard.read_record(row)

    def read_text(self, sample: int) -> str | None:
        """Its transcript alone.

        Raises:
            BadSampleError: its JSON member is missing or broken.
        """
        return self.read_record(sample).text

    def texts(self) -> Iterator[str]:
        """All transcripts; clips without one, and broken ones, are passed over."""
        for sample in range(len(self)):
            with suppress(BadSampleError):
                text = self.read_text(sample)
                if text:
                    yield text

    def shard_of(self, sample: int) -> str:
        """Name of the shard of a sample; nothing is read for it."""
        return self.shards[self._place(sample)[0]].name

    def location(self, sample: int) -> tuple[str, str]:
        """Name of the shard and key of a sample, for messages."""
        number, row = self._place(sample)
        index = self._shard(number).index
        return self.shards[number].name, index.keys[row] if row < len(index) else f"#{row}"

    def lengths(self, shard: int) -> Lengths:
        """Lengths of the samples of one shard, by row; a sample that its tar lacks has none."""
        opened = self._shard(shard)
        table = np.zeros((self.shards[shard].samples, 3), dtype=np.int32)
        known = opened.index.lengths[: len(table)]
        table[: len(known)] = known
        return Lengths(*table.T)

    def members(self, shard: int) -> NDArray[np.bool_]:
        """Which of `MEMBERS` the samples of one shard have, (n, 5), by row."""
        opened = self._shard(shard)
        table = np.zeros((self.shards[shard].samples, len(MEMBERS)), dtype=bool)
        known = opened.index.offsets[: len(table)] >= 0
        table[: len(known)] = known
        return table

    def verify(self) -> None:
        """Compare every shard with its sha256 in `dataset.json`.

        Raises:
            UserError: one differs; names it with both hashes.
        """
        for shard in self.shards:
            with self._store.tar(shard) as path:
                found = file_sha256(path)
            if found != shard.sha256:
                raise UserError(
                    f"{path} was changed: its sha256 is {found}, dataset.json says {shard.sha256}"
                )

    def _place(self, sample: int) -> tuple[int, int]:
        """Number of the shard, and row in it."""
        assert 0 <= sample < len(self), f"sample {sample} of {len(self)}"
        number = bisect_right(self._ends, sample)
        return number, sample - (self._ends[number - 1] if number else 0)

    def _find(self, sample: int) -> tuple[Shard, int]:
        number, row = self._place(sample)
        return self._shard(number), row

    def _shard(self, number: int) -> Shard:
        with self._lock:
            if number not in self._open:
                info = self.shards[number]
                self._close_for(info)
                with self.work.on(f"opening {info.name}"):
                    self._open[number] = self._store.open(info, self._features)
                self._fetched.discard(number)  # now: who fetches looks without the lock
            self._open.move_to_end(number)  # the last one is the one used last
            return self._open[number]

    def _close_for(self, new: ShardInfo) -> None:
        """Close the shards used longest ago, so that another one may be opened."""
        mapped = new.bytes + sum(self.shards[number].bytes for number in self._open)
        indexed = new.samples + sum(self.shards[number].samples for number in self._open)
        while self._open and (
            len(self._open) >= self.most_open
            or mapped > self._store.most_mapped
            or indexed > MOST_INDEXED
        ):
            oldest = next(iter(self._open))
            mapped -= self.shards[oldest].bytes
            indexed -= self.shards[oldest].samples
            del self._open[oldest]


class Dataset:
    """Shards and what they hold.

    Args:
        store: their files.

    Attributes:
        place: where they lie.
        info: `dataset.json`.

    Raises:
        UserError: there is no dataset, or `dataset.json` is not of the format.
    """

    def __init__(self, store: Store) -> None:
        self.place = store.place
        self.info = store.info()
        self._store = store

    def split(self, name: str) -> Split:
        """The samples of one split.

        Raises:
            UserError: see `Split`.
        """
        return Split(self._store, self.info, name)

    def whole(self) -> Split:
        """The samples of all splits.

        Raises:
            UserError: see `Split`.
        """
        return Split(self._store, self.info, None)

    def tokenizer(self) -> Path | None:
        """The folder with the tokenizer beside `dataset.json`, on this machine; None without one.

        Raises:
            UserError: it cannot be had, or a file of it is too large.
        """
        return self._store.tokenizer()

    def beside(self, name: str, most: int) -> bytes | None:
        """The beginning of a small file beside `dataset.json`; None if there is none.

        Raises:
            UserError: see `Store.beside`.
        """
        return self._store.beside(name, most)


def open_dataset(place: Place, remote: RemoteSettings = FETCH) -> Dataset:
    """Open a dataset.

    Args:
        place: a local folder, or a URL.
        remote: how a URL is read.

    Raises:
        UserError: see `Dataset`; or the packages for the URL's scheme are not installed.
    """
    return Dataset(open_store(place, remote))
