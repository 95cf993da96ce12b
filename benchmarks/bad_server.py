"""What a run does about every fault of a server and of the cache.

    python -m benchmarks.bad_server

A small dataset of eight clips in two shards is read over HTTP as in training, each shard as a whole
into the cache (`fetch`) and clip by clip (`ranges`), while the server does something wrong with the
first shard: twice, or whenever it is asked. What comes must be what was written. Prints a Markdown
table of what really happened. A request is tried four times. As root, a cache on a file system
without room is tried as well.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.faults import SHARD
from benchmarks.http_server import FileServer
from benchmarks.small_data import KEYS, run_stream, write_small
from data_pipeline.errors import UserError
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.place import parse_place
from data_pipeline.shards.remote import RemoteSettings

FAULTS = {
    "500": "answers 500",
    "503": "answers 503",
    "429": "answers 429",
    "416": "answers 416",
    "404": "answers 404",
    "403": "answers 403",
    "refuse": "closes the connection without an answer",
    "drop": "closes the connection in the middle",
    "short": "sends half, and says that this is all",
    "wrong": "flips a bit",
    "stall": "sends half and then nothing",
    "trickle": "sends a byte every 20 ms",
    "endless": "sends without end",
    "gzip": "sends what is compressed",
    "noise": "does not speak HTTP",
}
WAYS = ("fetch", "ranges")
ONCE, ALWAYS = 2, 1000
"""Requests that a fault that passes, and one that stays, is met by."""


def main() -> None:
    """Print the table; or, with a URL and a way, read as one of two processes."""
    if len(sys.argv) > 1:
        read(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
        return
    outcomes = Counter[str]()
    with tempfile.TemporaryDirectory() as place, FileServer(write_small(Path(place) / "d")) as one:
        print(f"| the server, asked for a shard, | how often | {' | '.join(WAYS)} |")
        print("|---|---|---|---|")
        for fault, what in FAULTS.items():
            for often in (ONCE, ALWAYS):
                one.faults.clear()
                told = []
                for way in WAYS:
                    one.faults[SHARD] = [fault] * often
                    told.append(attempt(one, way, Path(place)))
                    outcomes[told[-1].partition(" ")[0]] += 1
                name = "twice" if often == ONCE else "always"
                print(f"| {what} | {name} | {' | '.join(told)} |", flush=True)
        one.faults.clear()
        print(f"| is asked by two processes at once | | {' | '.join(beside(one, Path(place)))} |")
        print(f"| the cache's file system is full | | {full_disk(one, Path(place))} | |")
    print("RESULT", json.dumps({"bad_server": dict(outcomes)}))


def read(url: str, way: str, scratch: Path) -> dict[str, bytes]:
    """All samples, as training reads them."""
    settings = RemoteSettings(
        read=way,
        attempts=4,
        pause_s=0.02,
        silence_s=0.5,
        request_s=2.0,
    )
    return run_stream(parse_place(url), Quarantine(scratch / "quarantine.jsonl", 100), settings)


def attempt(server: FileServer, way: str, place: Path) -> str:
    """Read with an empty cache; how many samples came, or what the run said when it ended."""
    scratch = Path(tempfile.mkdtemp(dir=place))
    os.environ["MEMO_CACHE"] = str(scratch / "cache")
    server.asked.clear()
    try:
        found = read(str(server.url), way, scratch)
    except UserError as error:
        return f"ends: `{shortened(str(error), server)}`"
    truth = run_stream(server.folder, Quarantine(scratch / "local.jsonl", 0))
    assert found.items() <= truth.items(), "what came is what was written"
    said = ""
    if (scratch / "quarantine.jsonl").exists():
        first = json.loads((scratch / "quarantine.jsonl").read_text("utf8").splitlines()[0])
        said = f"; `{first['key']}: {shortened(first['reason'], server)}`"
    return f"{len(found)} of {len(KEYS)}, {server.count(SHARD)} requests{said}"


def shortened(text: str, server: FileServer) -> str:
    """Without the address, and with what a table can hold."""
    return text.replace(str(server.url), "URL").replace("|", "\\|")[:180]


def beside(server: FileServer, place: Path) -> list[str]:
    """Two processes read at once with one cache."""
    told = []
    for way in WAYS:
        scratch = Path(tempfile.mkdtemp(dir=place))
        server.asked.clear()
        command = [sys.executable, "-m", "benchmarks.bad_server", str(server.url), way]
        environment = os.environ | {"MEMO_CACHE": str(scratch / "cache")}
        folders = [scratch / name for name in ("one", "other")]
        for folder in folders:
            folder.mkdir()
        both = [subprocess.Popen([*command, str(one)], env=environment) for one in folders]
        well = [process.wait(120) == 0 for process in both]
        told.append(f"{sum(well)} of 2 end well, {server.count(SHARD)} requests")
    return told


def full_disk(server: FileServer, place: Path) -> str:
    """A file system of 16 KiB for the cache; a shard has more."""
    scratch = Path(tempfile.mkdtemp(dir=place))
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(scratch)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        return "not tried, for only root may mount"
    os.environ["MEMO_CACHE"] = str(scratch)
    try:
        read(str(server.url), "fetch", place)
    except UserError as error:
        return f"ends: `{shortened(str(error), server).replace(str(scratch), 'CACHE')}`"
    finally:
        subprocess.run(["umount", str(scratch)], check=True)
    return "goes on"


if __name__ == "__main__":
    main()
