"""Where a dataset's files come from: a local folder, or a URL by way of a cache or of ranges."""

import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from data_pipeline.cache_folder import cache_folder
from data_pipeline.errors import UserError
from data_pipeline.order import WINDOW_SAMPLES
from data_pipeline.shards.cache import ShardCache
from data_pipeline.shards.dataset import (
    FILE,
    MOST_INFO,
    DatasetInfo,
    FeatureSchema,
    ShardInfo,
    parse_info,
    read_info,
)
from data_pipeline.shards.index import (
    BadIndexError,
    ShardIndex,
    build_index,
    index_path,
    load_index,
    most_index_bytes,
    parse_index,
    read_index,
    with_checksums,
)
from data_pipeline.shards.place import Place, Url
from data_pipeline.shards.remote import (
    FETCH,
    LONGEST_PAUSE_S,
    Remote,
    RemoteSettings,
    Traffic,
    UnavailableError,
)
from data_pipeline.shards.shard import CONNECTIONS, MappedShard, RangedShard, Shard
from data_pipeline.shards.tar import map_tar
from data_pipeline.shards.tokenizer import (
    MOST_TOKENIZER,
    TOKENIZER,
    TOKENIZER_FILES,
    keep_tokenizer,
)

GIB = 2**30

_log = logging.getLogger(__name__)


class Store(ABC):
    """The files of one dataset.

    Args:
        place: where they lie.
        most_mapped: bytes of tars that may be mapped at the same time.
        readers: how many threads read best.

    Attributes:
        traffic: what reading them has cost.
        is_remote: whether they lie on a server.
    """

    is_remote: ClassVar[bool]

    def __init__(self, place: Place, most_mapped: int, readers: int) -> None:
        self.place = place
        self.most_mapped = most_mapped
        self.readers = readers
        self.traffic = Traffic()

    @abstractmethod
    def info(self) -> DatasetInfo:
        """Read `dataset.json`.

        Raises:
            UserError: there is none, or it is not of the format.
        """

    @abstractmethod
    def check(self, shards: Sequence[ShardInfo]) -> None:
        """What can be seen of a split's shards without reading them.

        Raises:
            UserError: one is missing.
        """

    @abstractmethod
    def open(self, shard: ShardInfo, features: FeatureSchema) -> Shard:
        """Open a shard.

        Args:
            shard: what `dataset.json` says of it.
            features: what its rows must be.

        Raises:
            UserError: it cannot be had.
        """

    @abstractmethod
    def fetch(self, shard: ShardInfo) -> None:
        """Bring near what opening a shard needs.

        Raises:
            UserError: it cannot be had.
        """

    @abstractmethod
    def tar(self, shard: ShardInfo) -> AbstractContextManager[Path]:
        """A shard as a local file, as long as the context lasts.

        Raises:
            UserError: it cannot be had.
        """

    @abstractmethod
    def index(self, shard: ShardInfo) -> ShardIndex:
        """The index beside a shard.

        Raises:
            BadIndexError: it is missing, or cannot be used.
            UserError: its server does not answer.
        """

    @abstractmethod
    def tokenizer(self) -> Path | None:
        """The folder with the tokenizer beside `dataset.json`, on this machine; None without one.

        Raises:
            UserError: it cannot be had, or a file of it is too large.
        """

    @abstractmethod
    def beside(self, name: str, most: int) -> bytes | None:
        """A small file beside `dataset.json`; None if there is none.

        Args:
            name: of the file.
            most: bytes of it that are read at most.

        Raises:
            UserError: its server does not answer.
        """


class LocalStore(Store):
    """A dataset in a local folder.

    Args:
        folder: where `dataset.json` lies.
    """

    is_remote = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, sys.maxsize, readers=1)
        self._folder = folder

    def info(self) -> DatasetInfo:
        """See `Store`."""
        return read_info(self._folder)

    def check(self, shards: Sequence[ShardInfo]) -> None:
        """See `Store`."""
        for shard in shards:
            path = self._folder / shard.name
            if not path.is_file():
                raise UserError(f"{path} is missing, though dataset.json lists it")

    def open(self, shard: ShardInfo, features: FeatureSchema) -> Shard:
        """See `Store`."""
        path = self._folder / shard.name
        try:
            return MappedShard(path, load_index(path, shard), features)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None

    def fetch(self, shard: ShardInfo) -> None:
        """Nothing is nearer than it is."""

    @contextmanager
    def tar(self, shard: ShardInfo) -> Iterator[Path]:
        """See `Store`."""
        yield self._folder / shard.name

    def index(self, shard: ShardInfo) -> ShardIndex:
        """See `Store`."""
        return read_index(self._folder / shard.name, shard)

    def tokenizer(self) -> Path | None:
        """See `Store`."""
        folder = self._folder / TOKENIZER
        return folder if folder.exists() else None

    def beside(self, name: str, most: int) -> bytes | None:
        """See `Store`."""
        path = self._folder / name
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(most)


class RemoteStore(Store):
    """A dataset at a URL.

    Args:
        url: before the names of its files.
        settings: how it is read.
        wait: called with the seconds of each pause.

    Raises:
        UserError: the packages for this scheme are not installed.
    """

    is_remote = True

    def __init__(
        self, url: Url, settings: RemoteSettings, wait: Callable[[float], None] = time.sleep
    ) -> None:
        most_bytes = int(settings.cache_gib * GIB)
        self._by_ranges = settings.read == "ranges"
        super().__init__(url, most_bytes, CONNECTIONS if self._by_ranges else 1)
        self._url = url
        self._fetched: set[str] = set()
        self._remote = Remote(url.scheme, settings, self.traffic, wait)
        patience_s = settings.attempts * (settings.request_s + LONGEST_PAUSE_S)
        self._cache = ShardCache(cache_folder() / "shards", most_bytes, patience_s, wait)

    def info(self) -> DatasetInfo:
        """See `Store`."""
        url = self._url / FILE
        return parse_info(self._remote.read(url, MOST_INFO), url)

    def check(self, shards: Sequence[ShardInfo]) -> None:
        """Warn of a cache that is too small; the shards are checked when they come."""
        samples = sum(shard.samples for shard in shards)
        # A window is trained on while the next one is fetched.
        mixed = sum(shard.bytes for shard in shards) * min(1, 2 * WINDOW_SAMPLES / samples)
        if mixed > self.most_mapped and not self._by_ranges:
            _log.warning(
                "%s: training shuffles about %.1f GiB, the cache holds %.1f: shards are fetched "
                "again and again; raise remote.cache_gib, or set remote.read=ranges",
                self.place,
                mixed / GIB,
                self.most_mapped / GIB,
            )

    def open(self, shard: ShardInfo, features: FeatureSchema) -> Shard:
        """See `Store`."""
        index = self._cached_index(shard) if self._by_ranges else None
        if index is not None:
            url = self._url / shard.name
            self._remote.check_size(url, shard.bytes)
            return RangedShard(url, index, features, self._remote)
        with self.tar(shard) as path:
            return MappedShard(path, load_index(path, shard), features)

    def fetch(self, shard: ShardInfo) -> None:
        """A shard, or its index if it is read by ranges, comes into the cache."""
        if not self._by_ranges or self._cached_index(shard) is None:
            with self.tar(shard):
                pass
        self._fetched.add(shard.sha256)

    @contextmanager
    def tar(self, shard: ShardInfo) -> Iterator[Path]:
        """A shard in the cache, fetched if it is not there."""
        path = self._cache.path(shard.sha256)
        with self._locked(shard):
            if path.is_file() and path.stat().st_size == shard.bytes:
                self._count_hit(shard)
            else:
                self.traffic.count(misses=1)
                self._fetch(shard, path)
            self._cache.touch(shard.sha256)
            yield path

    def index(self, shard: ShardInfo) -> ShardIndex:
        """See `Store`."""
        url = self._url / index_path(Path(shard.name)).name
        try:
            content = self._remote.read(url, most_index_bytes(shard))
        except UnavailableError:
            raise BadIndexError("is missing") from None
        return parse_index(content, shard)

    def tokenizer(self) -> Path | None:
        """See `Store`; what it can consist of is fetched into the cache."""
        files = {}
        for name in TOKENIZER_FILES:
            url = self._url / TOKENIZER / name
            with suppress(UnavailableError):
                files[name] = self._remote.read(url, MOST_TOKENIZER)
                if len(files[name]) > MOST_TOKENIZER:
                    raise UserError(
                        f"{url} has more than {MOST_TOKENIZER:,} bytes, the most that a file of a "
                        "tokenizer may have; put a smaller one there"
                    )
        return keep_tokenizer(files) if files else None

    def beside(self, name: str, most: int) -> bytes | None:
        """See `Store`."""
        try:
            return self._remote.read(self._url / name, most)[:most]
        except UnavailableError:
            return None

    def _fetch(self, shard: ShardInfo, path: Path) -> None:
        """Bring a shard into the cache, with an index made from it."""
        url = self._url / shard.name
        self._remote.persist(
            url,
            lambda: self._cache.write(path, self._remote.pieces(url, shard), shard.bytes),
        )
        index = with_checksums(build_index(path, shard.samples), map_tar(path))
        content = index.to_bytes(shard.sha256)
        self._cache.write(index_path(path), [content], len(content))

    def _cached_index(self, shard: ShardInfo) -> ShardIndex | None:
        """The index from the cache or from beside the shard; None if it has no good one."""
        path = self._cache.path(shard.sha256)
        with self._locked(shard):
            with suppress(BadIndexError):
                index = read_index(path, shard)
                self._count_hit(shard)
                self._cache.touch(shard.sha256)
                return index
            self.traffic.count(misses=1)
            try:
                index = self.index(shard)
            except BadIndexError as error:
                url = self._url / shard.name
                _log.warning("%s: its index %s; the shard is fetched whole", url, error)
                return None
            content = index.to_bytes(shard.sha256)
            self._cache.write(index_path(path), [content], len(content))
            return index

    def _count_hit(self, shard: ShardInfo) -> None:
        """What was fetched ahead was counted then."""
        if shard.sha256 in self._fetched:
            self._fetched.discard(shard.sha256)
        else:
            self.traffic.count(hits=1)

    @contextmanager
    def _locked(self, shard: ShardInfo) -> Iterator[None]:
        """The shard's lock, and how long it was waited for."""
        start = time.perf_counter()
        with self._cache.locked(shard.sha256):
            self.traffic.count(waited_s=time.perf_counter() - start)
            yield


def open_store(place: Place, remote: RemoteSettings = FETCH) -> Store:
    """The files of a dataset.

    Args:
        place: a local folder, or a URL.
        remote: how a URL is read.

    Raises:
        UserError: the packages for the URL's scheme are not installed.
    """
    return LocalStore(place) if isinstance(place, Path) else RemoteStore(place, remote)
