"""Bytes from HTTP servers and S3, however often it takes.

Every request asks for a bounded part of a file, takes no more bytes than it can use, whatever the
server says and sends, and has a bounded time. What may go better the next time (a lost connection,
a silent or busy server, an answer cut short, wrong bytes) is tried again, after pauses drawn at
random below a bound that doubles: "full jitter", so that many processes which failed together do
not come back together.
"""

import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, fields
from hashlib import sha256
from threading import Lock
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import fsspec
import numpy as np
from fsspec.asyn import sync
from pydantic import BaseModel, ConfigDict, Field

from data_pipeline.errors import UserError
from data_pipeline.shards.dataset import ShardInfo
from data_pipeline.shards.place import Url

PIECE = 32 * 2**20
"""Bytes of a shard that are asked for at once, and held in memory."""

LONGEST_PAUSE_S = 60.0
"""Where pauses stop doubling."""

MOST_SAID = 300
"""Characters of what a server says of an error, or sends instead of an answer, that are shown."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class RemoteSettings(BaseModel):
    """How a dataset at a URL is read.

    Attributes:
        read: `fetch` copies every shard that is needed into a cache on this machine; `ranges` asks
            for the bytes of each clip, and keeps nothing but the indexes.
        cache_gib: most that the cache holds; less than what is shuffled with each other
            (`data_pipeline.order.WINDOW_SAMPLES`), and shards are fetched again and again.
        attempts: tries of a request before the run stops.
        pause_s: longest pause before the second try; doubles with each, up to a minute.
        silence_s: how long a server may say nothing.
        request_s: how long a request may take, of 32 MiB at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    read: Literal["fetch", "ranges"] = "fetch"
    cache_gib: float = Field(64.0, gt=0)
    attempts: int = Field(8, ge=1)
    pause_s: float = Field(1.0, ge=0)
    silence_s: float = Field(30.0, gt=0)
    request_s: float = Field(300.0, gt=0)


FETCH = RemoteSettings()
"""The usual way."""

RANGES = RemoteSettings(read="ranges")
"""For those who read little more than records."""


@dataclass
class Traffic:
    """What reading a dataset has cost so far; counted by several threads.

    Attributes:
        bytes_read: that came over the network.
        requests, retries: how many were made, and how many of them again.
        hits, misses: shards, or indexes, that were in the cache, and that were not.
        waited_s: seconds that threads have waited for the network, or for another process that
            fetched what they wanted.
    """

    bytes_read: int = 0
    requests: int = 0
    retries: int = 0
    hits: int = 0
    misses: int = 0
    waited_s: float = 0.0
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def __add__(self, other: "Traffic") -> "Traffic":
        """What both have cost; the sum is counted no further."""
        theirs = other.amounts()
        return Traffic(**{name: one + theirs[name] for name, one in self.amounts().items()})

    def amounts(self) -> dict[str, Any]:
        """All numbers, by name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.compare}

    def count(self, **amounts: float) -> None:
        """Add to some of them, by name."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)


class UnavailableError(UserError):
    """The server says that there is no such file, or that it does not give it."""


class _PassingError(Exception):
    """What may go better the next time; says what it was."""


class Remote:
    """Reads files at URLs of one scheme. Safe to use from several threads.

    Args:
        scheme: of the URLs.
        settings: how often and how long.
        traffic: counts.
        wait: called with the seconds of a pause.

    Raises:
        UserError: the packages for this scheme are not installed.
    """

    def __init__(
        self,
        scheme: str,
        settings: RemoteSettings,
        traffic: Traffic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._traffic = traffic
        self._wait = wait
        self._name = scheme
        self._open()

    def _open(self) -> None:
        """Connections and random pauses of this process."""
        self._process = os.getpid()
        self._draw = np.random.default_rng()
        self._opened = _open_scheme(self._name, self._settings)

    def read(self, url: Url, most: int) -> bytes:
        """A small file.

        Args:
            url: of the file.
            most: bytes that it may have; of one that has more, so many and one more are read.

        Raises:
            UnavailableError: it is missing or not given.
            UserError: it did not come, after all attempts.
        """
        return self.persist(url, lambda: self._request(url, "", most + 1))

    def read_range(self, url: Url, begin: int, end: int) -> bytes:
        """The bytes [begin, end) of a file.

        Raises:
            UserError: they did not come, after all attempts; or the file has become shorter, or the
                server ignores ranges.
        """
        content = self._read_at_least(url, begin, end, end - begin + 1)
        if len(content) > end - begin:
            raise _ignored(url)
        return content

    def check_size(self, url: Url, size: int) -> None:
        """Make sure that a file has so many bytes, and that its server knows ranges.

        Raises:
            UserError: see `read_range`; or the file has become longer.
        """
        found = len(self._read_at_least(url, size - 1, size, 3, beyond=1))
        if found > 1:
            raise _longer(url, size) if found == 2 else _ignored(url)

    def pieces(self, url: Url, shard: ShardInfo) -> Iterator[bytes]:
        """A shard in order, piece by piece; whoever takes them calls this inside `persist`.

        Raises:
            UserError: see `read_range`, but the server may ignore ranges; or the file has more
                bytes than `dataset.json` says.
        """
        digest, at = sha256(), 0
        while at < shard.bytes:
            piece = self._piece(url, at, shard.bytes)
            digest.update(piece)
            at += len(piece)
            yield piece
        if digest.hexdigest() != shard.sha256:
            raise _PassingError(
                f"wrong bytes: their sha256 is {digest.hexdigest()}, dataset.json says "
                f"{shard.sha256}"
            )

    @property
    def _scheme(self) -> "_Scheme":
        """With connections of this very process, not of the one that it was forked from."""
        if self._process != os.getpid():
            self._open()
        return self._opened

    def persist(self, url: Url, attempt: Callable[[], T]) -> T:
        """Do something with a file again and again, until it is done.

        Raises:
            UserError: what `attempt` raised, or that all attempts failed, with the last reason.
        """
        attempts = self._settings.attempts
        for number in range(1, attempts + 1):
            try:
                return attempt()
            except _PassingError as error:
                reason = error
            if number < attempts:
                self._pause(url, number, reason)
        raise UserError(f"{url}: given up after {attempts} attempts; the last one: {reason}")

    def _pause(self, url: Url, number: int, reason: Exception) -> None:
        longest = min(self._settings.pause_s * 2 ** (number - 1), LONGEST_PAUSE_S)
        pause_s = self._draw.uniform(0, longest)
        nth = f"attempt {number + 1} of {self._settings.attempts}"
        _log.warning("%s: %s; %s follows in %.1f s", url, reason, nth, pause_s)
        self._traffic.count(retries=1, waited_s=pause_s)
        self._wait(pause_s)

    def _piece(self, url: Url, at: int, size: int) -> bytes:
        """Up to `PIECE` bytes from an offset on; all that are left if the server ignores ranges."""
        end = min(at + PIECE, size)
        # That the file has become longer shows at its end, and costs no request of its own.
        content = self._read_at_least(url, at, end, size + 1, beyond=int(end == size))
        if len(content) == size:
            return content[at:]
        if len(content) != end - at:
            raise _longer(url, size)
        return content

    def _read_at_least(self, url: Url, begin: int, end: int, most: int, beyond: int = 0) -> bytes:
        """The bytes [begin, end), and up to `beyond` after them; `most` if ranges are ignored."""

        def attempt() -> bytes:
            content = self._request(url, f"bytes={begin}-{end + beyond - 1}", most)
            if len(content) < end - begin:
                raise _PassingError(
                    f"{len(content)} bytes came of {end - begin}: the answer broke off, or the "
                    "file was changed since dataset.json was written"
                )
            return content

        return self.persist(url, attempt)

    def _request(self, url: Url, span: str, most: int) -> bytes:
        """The first `most` bytes of the answer to one request, for a range or ("") for all."""
        start = time.perf_counter()
        try:
            content: bytes = sync(
                self._scheme.system.loop,
                self._scheme.read,
                str(url),
                span,
                most,
                timeout=self._settings.request_s,
            )
        except self._scheme.errors as error:
            refused = isinstance(error, self._scheme.refusals)
            raise _judge(url, error, refused) from error
        finally:
            self._traffic.count(requests=1, waited_s=time.perf_counter() - start)
        self._traffic.count(bytes_read=len(content))
        return content


_Read: TypeAlias = Callable[[str, str, int], Awaitable[bytes]]
"""URL, range or "" and most bytes -> the first bytes of the answer to one request."""


class _Scheme(NamedTuple):
    """How files of one scheme are read, by the connections of fsspec.

    Attributes:
        system: has the connections.
        read: asks for a file, in one attempt.
        errors: what it raises when it cannot.
        refusals: those of them that the next attempt would not change.
    """

    system: Any
    read: _Read
    errors: tuple[type[Exception], ...]
    refusals: tuple[type[Exception], ...]


def _open_scheme(scheme: str, settings: RemoteSettings) -> _Scheme:
    try:
        return (_open_s3 if scheme == "s3" else _open_http)(settings)
    except ImportError as error:
        raise UserError(
            f"{scheme}:// needs packages that are not installed ({error.name}): "
            "pip install 'memo[remote]'"
        ) from None


def _open_http(settings: RemoteSettings) -> _Scheme:
    from aiohttp import ClientError, ClientTimeout  # noqa: PLC0415  (an optional dependency)

    silence_s = settings.silence_s
    client = {
        "timeout": ClientTimeout(total=None, sock_connect=silence_s, sock_read=silence_s),
        "headers": {"Accept-Encoding": "identity"},  # ranges are of the bytes as they are
        "auto_decompress": False,  # a few bytes may become any number
        "trust_env": True,  # proxies
    }
    system = fsspec.filesystem("http", skip_instance_cache=True, client_kwargs=client)

    async def read(url: str, span: str, most: int) -> bytes:
        session = await system.set_session()
        headers = {"Range": span} if span else {}
        async with session.get(system.encode_url(url), headers=headers) as answer:
            if answer.status == 404:
                raise FileNotFoundError(url)
            answer.raise_for_status()
            _refuse_compressed(url, answer.headers.get("Content-Encoding", ""))
            return await _read_most(answer.content, most)

    return _Scheme(system, read, (OSError, ClientError), (FileNotFoundError,))


def _open_s3(settings: RemoteSettings) -> _Scheme:
    from aiohttp import ClientError as HttpError  # noqa: PLC0415  (optional dependencies)
    from botocore.exceptions import (  # noqa: PLC0415
        BotoCoreError,
        ClientError,
        NoCredentialsError,
    )

    times = {"connect_timeout": settings.silence_s, "read_timeout": settings.silence_s}
    config = {**times, "retries": {"total_max_attempts": 1}}
    system = fsspec.filesystem("s3", skip_instance_cache=True, config_kwargs=config)
    system.retries = 1

    async def read(url: str, span: str, most: int) -> bytes:
        bucket, key, _ = system.split_path(url)
        wanted = {"Range": span} if span else {}
        answer = await system._call_s3("get_object", Bucket=bucket, Key=key, **wanted)
        try:
            return await _read_most(answer["Body"], most)
        finally:
            answer["Body"].close()

    return _Scheme(
        system,
        read,
        (OSError, HttpError, BotoCoreError, ClientError),
        (FileNotFoundError, PermissionError, NoCredentialsError),
    )


class _Body(Protocol):
    """What an answer brings, as it comes."""

    async def read(self, most: int, /) -> bytes:
        """Some of the next bytes; none at the end."""


async def _read_most(body: _Body, most: int) -> bytes:
    """The first bytes of an answer, up to so many."""
    parts, left = [], most
    while left and (part := await body.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _refuse_compressed(url: str, coding: str) -> None:
    """Sizes, ranges and hashes are of the bytes as they are."""
    if coding not in ("", "identity"):
        raise UserError(
            f"{url} comes compressed ({coding!r:.20}), though it was asked for as it is; have its "
            "server leave files as they are"
        )


def _judge(url: Url, error: Exception, is_refusal: bool) -> Exception:
    """What an error of fsspec means: the file is not to be had, or not now."""
    said = str(error)[:MOST_SAID] or str(error.__cause__ or "")[:MOST_SAID]
    reason = " ".join(said.split()) or "it took too long"
    status = _status(error)
    if is_refusal or status in (401, 403, 404, 410):
        missing = isinstance(error, FileNotFoundError)
        return UnavailableError(f"{url}: {'there is no such file' if missing else reason}")
    if status == 416:
        return UserError(f"{url} was changed since dataset.json was written: it is shorter")
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return UserError(f"{url}: {reason}")
    return _PassingError(reason)


def _status(error: Exception) -> int | None:
    """The HTTP status in an error of aiohttp, or in botocore's below one of s3fs.

    What aiohttp cannot read at all has a status, too, which no server has given; it has a cause.
    """
    response = getattr(error.__cause__, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = None if error.__cause__ else getattr(error, "status", None)
    return found if isinstance(found, int) else None


def _longer(url: Url, size: int) -> UserError:
    return UserError(
        f"{url} was changed since dataset.json was written: it has more than {size} bytes"
    )


def _ignored(url: Url) -> UserError:
    return UserError(
        f"{url}: the server ignores byte ranges; set remote.read=fetch, or take another server"
    )
