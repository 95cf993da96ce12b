"""A corpus is built by one process, by several, and by several that are killed at random moments.

    python -m benchmarks.killed_build grid grid_s1.tar --kills 10 --out runs/builds

The command and its workers are killed together, with SIGKILL, and the same command is given again.
Every file of the finished datasets must be the same, byte by byte. Where clips have faces, the
share of their rows in which one was found is told.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from data_pipeline.build_report import BUILD_REPORT
from data_pipeline.shards.reader import open_dataset

COMMAND = (sys.executable, "-c", "from memo.cli import main; main()", "data", "build")
LONGEST_SHARE = 0.18
"""A kill comes after so much of an undisturbed build at the latest, so that ten fit into one."""


class Build:
    """One build, started again and again.

    Args:
        given: the command line.
        name: of its folder.
        workers: processes.
    """

    def __init__(self, given: argparse.Namespace, name: str, workers: int) -> None:
        self.out: Path = given.out / name
        corpus, options = [given.corpus, f"--source={given.source}"], list(given.options)
        self._command = [*COMMAND, *corpus, f"--out={self.out}", f"--workers={workers}", *options]

    def run(self, killed_after_s: float | None = None) -> bool:
        """Build, or build on; whether it was killed before it was done.

        Raises:
            SystemExit: it has ended with an error of its own.
        """
        log = self.out.with_suffix(".log")
        with log.open("ab") as file:
            build = subprocess.Popen(
                self._command, stdout=file, stderr=file, start_new_session=True
            )
        try:
            status = build.wait(killed_after_s)
        except subprocess.TimeoutExpired:
            os.killpg(build.pid, signal.SIGKILL)
            build.wait()
            return True
        if status:
            raise SystemExit(f"the build ended with status {status}: see {log}")
        return False

    def files(self) -> dict[str, str]:
        """Hash of each file of the dataset, by its name."""
        return {
            path.relative_to(self.out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.out.rglob("*"))
            if path.is_file()
        }


def disturb(build: Build, kills: int, seconds: float, seed: int) -> list[float]:
    """Kill a build so often, and let it end; after how many seconds each kill came."""
    draw = np.random.default_rng(seed)
    waits: list[float] = []
    while len(waits) < kills:
        wait_s = float(draw.uniform(0, LONGEST_SHARE * seconds))
        if not build.run(wait_s):
            return waits
        waits.append(round(wait_s, 2))
    build.run()
    return waits


def faces(folder: Path) -> dict[str, float]:
    """How many clips have face rows, and in which share of all of them a face was found."""
    clips = open_dataset(folder).whole()
    rows = [clips.read(at).face for at in range(len(clips))]
    found = [one.any(axis=1) for one in rows if one is not None]
    share = float(np.concatenate(found).mean()) if found else 0.0
    return {"clips": len(rows), "clips with a face": len(found), "share of rows": round(share, 5)}


def main() -> None:
    """Build, disturb, compare, and print the result; exit status 1 if anything differs."""
    parser = argparse.ArgumentParser(description="Kill a build at random moments.")
    parser.add_argument("corpus")
    parser.add_argument("source", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/builds"))
    parser.add_argument("options", nargs="*", help="more of `memo data build`, after --")
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    one, several, killed = (
        Build(given, name, workers)
        for name, workers in (("one", 1), ("several", given.workers), ("killed", given.workers))
    )
    seconds: dict[str, float] = {}
    for build in (one, several):
        begin = perf_counter()
        build.run()
        seconds[build.out.name] = round(perf_counter() - begin, 1)
    waits = disturb(killed, given.kills, seconds["several"], given.seed)
    wanted = one.files()
    differing = {
        build.out.name: sorted(set(wanted.items()) ^ set(build.files().items()))
        for build in (several, killed)
    }
    result: dict[str, Any] = {
        "seconds": seconds,
        "kills": waits,
        "files": len(wanted),
        "differing": {name: [file for file, _ in files] for name, files in differing.items()},
        "report": json.loads((one.out / BUILD_REPORT).read_text("utf8")),
        "faces": faces(one.out),
    }
    print("RESULT", json.dumps(result))
    sys.exit(any(differing.values()))


if __name__ == "__main__":
    main()
