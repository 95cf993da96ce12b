"""Reading over HTTP from a server that does everything wrong."""

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from time import perf_counter

import pytest

from benchmarks.http_server import FileServer
from data_pipeline.errors import UserError
from data_pipeline.shards import remote as remote_module
from data_pipeline.shards.dataset import ShardInfo
from data_pipeline.shards.index import file_sha256
from data_pipeline.shards.remote import Remote, RemoteSettings, Traffic, UnavailableError

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install 'memo[remote]'")

NAME = "x.tar"
CONTENT = bytes(range(256)) * 4
SETTINGS = RemoteSettings(attempts=4, pause_s=16, silence_s=30, request_s=60)
HASTY = {
    "stall": SETTINGS.model_copy(update={"silence_s": 0.2}),
    "trickle": SETTINGS.model_copy(update={"request_s": 0.4}),
}
"""For faults that time alone ends; a busy machine may be too slow for them even without a fault."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    (tmp_path / NAME).write_bytes(CONTENT)
    with FileServer(tmp_path) as one:
        yield one


class Reader:
    """A `Remote`, what it counts and how long it pauses."""

    def __init__(self, server: FileServer, settings: RemoteSettings = SETTINGS) -> None:
        self.url = server.url / NAME
        self.traffic = Traffic()
        self.pauses: list[float] = []
        self.remote = Remote("http", settings, self.traffic, self.pauses.append)
        sha256 = file_sha256(server.folder / NAME)
        self.shard = ShardInfo(name=NAME, split="s", samples=1, bytes=len(CONTENT), sha256=sha256)

    def whole(self) -> bytes:
        """As a shard is fetched."""
        return self.remote.persist(
            self.url, lambda: b"".join(self.remote.pieces(self.url, self.shard))
        )

    def part(self) -> bytes:
        """As a clip is read, with what stands around it."""
        begin, end = 300, 800
        return CONTENT[:begin] + self.remote.read_range(self.url, begin, end) + CONTENT[end:]

    def small(self) -> bytes:
        """As `dataset.json` is read."""
        return self.remote.read(self.url, len(CONTENT))


Way = Callable[[Reader], bytes]
WAYS = [Reader.whole, Reader.part, Reader.small]


@pytest.mark.parametrize(
    ("way", "fault"),
    [
        *product(WAYS, ["500", "503", "429", "drop", "stall", "trickle", "refuse", "noise"]),
        (Reader.part, "short"),
        (Reader.whole, "short"),
        (Reader.whole, "wrong"),
    ],
)
def test_what_passes_is_tried_again(server: FileServer, way: Way, fault: str) -> None:
    reader = Reader(server, HASTY.get(fault, SETTINGS).model_copy(update={"attempts": 20}))
    server.faults[NAME] = ["", fault, fault]
    assert way(reader) == CONTENT
    assert way(reader) == CONTENT
    requests = server.count(NAME)
    assert requests >= 4 if fault in HASTY else requests == 4
    if fault != "refuse":  # then aiohttp itself has asked again
        assert reader.traffic.retries == len(reader.pauses) == reader.traffic.requests - 2
        assert reader.traffic.requests == requests or fault in HASTY


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("500", "500"),
        ("drop", "(received 512 of 1024 bytes)"),
        ("short", "512 bytes came of 1024"),
        ("wrong", "wrong bytes: their sha256 is"),
        ("stall", "imeout "),  # on reading; of connecting, where that was slow, too
        ("trickle", "it took too long"),
        ("refuse", "disconnected"),
        ("noise", "Bad status line"),
    ],
)
def test_after_the_last_attempt_it_is_said_once(
    server: FileServer, fault: str, reason: str
) -> None:
    reader = Reader(server, HASTY.get(fault, SETTINGS))
    server.faults[NAME] = [fault] * 10
    with pytest.raises(UserError, match="given up after 4 attempts; the last one: ") as caught:
        reader.whole()
    text = str(caught.value)
    assert text.startswith(f"{server.url}/{NAME}: ")
    assert reason in text
    assert "\n" not in text
    assert len(text) < 500
    assert reader.traffic.requests == 4


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ("404", UnavailableError, "there is no such file"),
        ("403", UnavailableError, "Forbidden"),
        ("416", UserError, "was changed since dataset.json was written: it is shorter"),
    ],
)
def test_what_stays_is_not_tried_again(
    server: FileServer, fault: str, kind: type[UserError], reason: str, way: Way
) -> None:
    reader = Reader(server)
    server.faults[NAME] = [fault]
    with pytest.raises(kind, match=reason):
        way(reader)
    assert (server.count(NAME), reader.pauses) == (1, [])


def test_nobody_there_is_a_passing_error(server: FileServer) -> None:
    reader = Reader(server)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"given up after 4 attempts; .*Cannot connect"):
        reader.small()


@pytest.mark.parametrize(("change", "reason"), [(b"more", "it has more than 1024"), (b"", "came")])
def test_another_length_is_a_changed_file(server: FileServer, change: bytes, reason: str) -> None:
    reader = Reader(server)
    (server.folder / NAME).write_bytes(CONTENT + change if change else CONTENT[:-1])
    with pytest.raises(UserError, match=reason):
        reader.whole()
    with pytest.raises(UserError, match=r"was changed since dataset\.json was written"):
        reader.remote.check_size(reader.url, len(CONTENT))


def test_a_server_without_ranges_serves_whole_shards_alone(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "PIECE", 100)
    reader = Reader(server)
    server.faults[NAME] = ["whole"] * 3
    assert reader.whole() == CONTENT
    assert server.count(NAME) == 1
    for read in (reader.part, lambda: reader.remote.check_size(reader.url, len(CONTENT))):
        with pytest.raises(UserError, match=r"ignores byte ranges; set remote\.read=fetch"):
            read()


def test_a_piece_that_is_lost_loses_no_other(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "PIECE", 400)
    reader = Reader(server)
    server.faults[NAME] = ["", "drop", "500"]
    assert reader.whole() == CONTENT
    asked = [wanted for _, wanted in server.asked]
    assert asked == ["bytes=0-399", *["bytes=400-799"] * 3, "bytes=800-1024"]
    assert reader.traffic.bytes_read == len(CONTENT)


def test_no_more_is_read_than_can_be_used(server: FileServer) -> None:
    """Of a file that never ends, whatever was asked for."""
    block = bytes(1 << 20)
    (server.folder / NAME).write_bytes(block)
    server.faults[NAME] = ["endless"] * 5
    reader = Reader(server)
    shard = replace(reader.shard, bytes=len(CONTENT))
    tracemalloc.start()
    assert reader.remote.read(reader.url, 5000) == block[:5001]
    with pytest.raises(UserError, match="ignores byte ranges"):
        reader.remote.read_range(reader.url, 0, 100)
    with pytest.raises(UserError, match="ignores byte ranges"):
        reader.remote.check_size(reader.url, 100)
    with pytest.raises(UserError, match="it has more than 1024 bytes"):
        list(reader.remote.pieces(reader.url, shard))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(block), "most of it is the server's"
    assert reader.traffic.bytes_read == 5001 + 101 + 3 + 1025
    assert (reader.traffic.requests, reader.pauses) == (4, [])


@pytest.mark.parametrize("way", WAYS)
def test_what_is_sent_beyond_what_was_announced_is_not_taken(server: FileServer, way: Way) -> None:
    """Whether it comes so early that the answer is spoilt, or later."""
    reader = Reader(server)
    server.faults[NAME] = ["more"] * 2
    assert way(reader) == CONTENT


@pytest.mark.parametrize("way", WAYS)
def test_what_comes_compressed_is_refused(server: FileServer, way: Way) -> None:
    """A few bytes could become any number, and sizes and ranges mean other bytes."""
    reader = Reader(server)
    server.faults[NAME] = ["gzip"]
    with pytest.raises(UserError, match=rf"{reader.url} comes compressed \('gzip'\)") as caught:
        way(reader)
    assert "\n" not in str(caught.value)
    assert (server.count(NAME), reader.pauses) == (1, [])


def test_pauses_are_drawn_below_a_bound_that_doubles(server: FileServer) -> None:
    reader = Reader(server, SETTINGS.model_copy(update={"attempts": 40}))
    server.faults[NAME] = ["500"] * 39
    assert reader.small() == CONTENT
    bounds = [min(16 * 2**number, 60) for number in range(39)]
    assert all(0 <= pause <= bound for pause, bound in zip(reader.pauses, bounds, strict=True))
    late = reader.pauses[2:]
    assert min(late) < 20 < 40 < max(late), "full jitter: anything between"


@pytest.mark.parametrize(("fault", "limit_s"), [("stall", 0.2), ("trickle", 0.4)])
def test_a_silent_server_is_left_in_time(server: FileServer, fault: str, limit_s: float) -> None:
    reader = Reader(server, HASTY[fault].model_copy(update={"attempts": 20}))
    server.faults[NAME] = [fault]
    start = perf_counter()
    assert reader.small() == CONTENT
    assert limit_s <= perf_counter() - start < limit_s + 15, "it goes on for 20 s and more"
    assert reader.traffic.waited_s > limit_s


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: RemoteSettings) -> None:
        raise ImportError("no", name="s3fs")

    monkeypatch.setattr(remote_module, "_open_s3", missing)
    with pytest.raises(UserError, match=r"\(s3fs\): pip install 'memo\[remote\]'"):
        Remote("s3", SETTINGS, Traffic())
