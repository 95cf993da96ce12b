"""A folder over HTTP on loopback, with byte ranges and with faults to order."""

import gzip
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from data_pipeline.shards.place import Url

STATUSES = ("403", "404", "416", "429", "500", "503")


class FileServer(ThreadingHTTPServer):
    """Serves until it is closed; a context manager.

    Attributes:
        faults: name of a file -> what goes wrong with the next requests for it, in turn: a status,
            `refuse` (no answer), `drop` (the connection, in the middle), `short` (a body that ends
            early and says so), `wrong` (a byte is flipped), `stall` (nothing comes), `trickle`
            (little comes, and slowly), `late` (nothing for half a second), `meet` (no answer
            before another request of this kind), `whole` (the range is ignored), `endless` (the
            content comes again and again), `more` (so does it, twice as much as is announced),
            `gzip` (it comes compressed, though nobody asked for it), `noise` (no HTTP).
        asked: (name, range or "") of every request.
        done: ends what stalls.
        meeting: where requests meet.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.asked: list[tuple[str, str]] = []
        self.done = threading.Event()
        self.meeting = threading.Barrier(2)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> Url:
        """Of the folder."""
        return Url(f"http://127.0.0.1:{self.server_address[1]}")

    def count(self, name: str) -> int:
        """How often a file was asked for."""
        return sum(one == name for one, _ in self.asked)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        name, wanted = self.path.lstrip("/"), self.headers.get("Range", "")
        self.server.asked.append((name, wanted))
        faults = self.server.faults[name]
        fault = faults.pop(0) if faults else ""
        path = self.server.folder / name
        if fault in ("refuse", "noise"):
            self.close_connection = True
            self.wfile.write(bytes(range(256)) * (20 if fault == "noise" else 0))
        elif fault in STATUSES or not path.is_file():
            self._answer(int(fault or 404), b"no", "")
        else:
            self._send_file(path.read_bytes(), "" if fault == "whole" else wanted, fault)

    def _send_file(self, content: bytes, wanted: str, fault: str) -> None:
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        begin = int(first or 0)
        body = content[begin : int(last) + 1 if last else None]
        if fault == "short":
            body = body[: len(body) // 2]
        if fault == "wrong":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if wanted and not body:
            self._answer(416, b"", "")
        else:
            self._answer(206 if wanted else 200, body, fault)

    def _answer(self, status: int, body: bytes, fault: str) -> None:
        if fault == "gzip":
            body = gzip.compress(body)
        self.send_response(status)
        if fault == "gzip":
            self.send_header("Content-Encoding", "gzip")
        if fault != "endless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._send(body, fault)

    def _send(self, body: bytes, fault: str) -> None:
        half = len(body) // 2
        if fault == "late":
            self.server.done.wait(0.5)
        if fault == "meet":
            self.server.meeting.wait(60)
        if fault == "drop":
            self.wfile.write(body[:half])
            self.close_connection = True
        elif fault == "stall":
            self.wfile.write(body[:half])
            self.server.done.wait(60)
        elif fault == "trickle":
            for at in range(len(body)):
                self.wfile.write(body[at : at + 1])
                if self.server.done.wait(0.02):
                    break
        elif fault == "endless":
            self.close_connection = True
            while not self.server.done.is_set():
                self.wfile.write(body)
        else:
            self.wfile.write(body * (2 if fault == "more" else 1))
