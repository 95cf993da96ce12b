"""Damaged datasets, as many as fit into some minutes: reading, checking and repairing them.

    python -m benchmarks.fuzz_reader --minutes 10

Each case damages a small dataset in a few places, from a seed. Every sample is then read by number
and through a training stream that transforms nothing. Nothing but BadSampleError and UserError may
be raised; what is read must be as it was written, where the index is of before, and finite and of
the right shape in any case. Some cases are checked and repaired as well: the repaired dataset must
check clean. No case may take long or leave memory behind; nothing may be written outside the case's
folder, no pickle loaded, no command run. A case that fails is printed with its seed.
"""

import argparse
import faulthandler
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mutations import mutate
from benchmarks.small_data import FEATURES, run_evaluation, run_stream, write_small
from data_pipeline.clip import BadSampleError, Clip, is_key
from data_pipeline.errors import UserError
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.check import check_dataset
from data_pipeline.shards.reader import open_dataset
from data_pipeline.shards.repair import repair_dataset

WARM_UP = 300
"""Cases before memory is measured: torch and numpy take theirs when they are first used."""
MOST_SECONDS = 10.0
"""Of the CPU, for one case."""
MOST_GROWTH_MB = 64.0
REPAIR_EVERY = 5
CAP = 100
FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "subprocess.Popen", "socket.connect")


@dataclass
class Tally:
    """What came of the cases.

    Attributes:
        cases, samples, repairs: tried, read and made.
        raised: kind of fault, or "UserError" -> how often.
        failures: seeds of the cases that failed.
        slowest: CPU seconds of the longest case.
    """

    cases: int = 0
    samples: int = 0
    repairs: int = 0
    raised: Counter[str] = field(default_factory=Counter)
    failures: list[int] = field(default_factory=list)
    slowest: float = 0.0


class Watch:
    """Notes what must not happen, as an audit hook of the interpreter, which cannot be taken off.

    Args:
        inside: the only folder in which files may be written.

    Attributes:
        seen: what has happened.
        awake: whether it is noted.
    """

    def __init__(self, inside: Path) -> None:
        self.seen: list[str] = []
        self.awake = True
        self._inside = str(inside)
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.awake:
            return
        if event in FORBIDDEN:
            self.seen.append(f"{event} {arguments}")
        elif event == "open" and isinstance(arguments[0], str):
            path, _, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not os.path.abspath(path).startswith(self._inside):
                self.seen.append(f"open {path!r} to write")


def try_case(seed: int, whole: Path, original: Mapping[str, bytes], tally: Tally) -> None:
    """Damage a copy of a dataset and read it.

    Args:
        seed: of the damage.
        whole: the dataset.
        original: what its samples hold.
        tally: of what happens.
    """
    place = whole.parent / "case"
    folder = shutil.copytree(whole, place / "data")
    done = mutate(folder, random.Random(seed))
    names = {path.name for path in folder.iterdir()}
    try:
        _read_all(folder, tally)
        run = run_evaluation if seed % REPAIR_EVERY else run_stream
        read = run(folder, Quarantine(place / "quarantine.jsonl", CAP))
        if done.endswith("index_of_before"):
            assert all(original.get(key) == value for key, value in read.items()), "wrong content"
    except UserError:
        tally.raised["UserError"] += 1
    assert {path.name for path in folder.iterdir()} == names, "something was written"
    if seed % REPAIR_EVERY == 0:
        _repair(folder, place / "repaired", tally)


def _read_all(folder: Path, tally: Tally) -> None:
    """Read every sample by its number."""
    split = open_dataset(folder).split("train")
    for sample in range(len(split)):
        try:
            _look_at(split.read(sample), split.location(sample)[1])
            tally.samples += 1
        except BadSampleError as error:
            if not error.reason.isprintable():
                raise ValueError(f"a line that cannot be shown: {error.reason!r}") from None
            tally.raised[error.fault] += 1


def _look_at(clip: Clip, key: str) -> None:
    """A clip that was read must be one of this dataset."""
    assert clip.key == key
    assert is_key(key)
    assert not clip.is_empty
    face, speech = FEATURES.face, FEATURES.speech
    assert face is not None
    assert speech is not None
    for rows, columns in (
        (clip.face, face.dim),
        (clip.expression, len(face.classes)),
        (clip.speech, speech.dim),
    ):
        assert rows is None or rows.shape[1] == columns, "wrong columns"
        assert rows is None or np.isfinite(rows).all(), "not finite"


def _repair(folder: Path, out: Path, tally: Tally) -> None:
    """Check and repair; what was repaired must be whole."""
    try:
        for problem in check_dataset(folder):
            assert str(problem).isprintable(), problem
        report = repair_dataset(folder, out)
    except UserError:
        assert not out.exists()
        return
    left = [str(problem) for problem in check_dataset(out)]
    assert not left, left
    read = run_evaluation(out, Quarantine(out.parent / "none.jsonl", 0))
    assert len(read) == report.kept
    tally.repairs += 1


def run_cases(seconds: float, first_seed: int, place: Path) -> tuple[Tally, float]:
    """Try case after case; what came of them, and how many megabytes of memory were left behind."""
    whole = write_small(place / "whole")
    os.environ["MEMO_CACHE"] = str(place / "case" / "cache")
    original = run_stream(whole, Quarantine(place / "none.jsonl", 0))
    tally, watch, at_first = Tally(), Watch(place), 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end or tally.cases <= WARM_UP:
        shutil.rmtree(place / "case", ignore_errors=True)
        seed, begin = first_seed + tally.cases, time.process_time()
        faulthandler.dump_traceback_later(12 * MOST_SECONDS, exit=True)
        try:
            try_case(seed, whole, original, tally)
            assert not watch.seen, watch.seen
            assert time.process_time() - begin < MOST_SECONDS, "took too long"
        except Exception:  # each is a defect; the next case may show another
            print(f"case {seed} failed:\n{traceback.format_exc()}", flush=True)
            tally.failures.append(seed)
            watch.seen.clear()
        tally.slowest = max(tally.slowest, time.process_time() - begin)
        tally.cases += 1
        if tally.cases == WARM_UP:
            at_first = resident_mb()
    faulthandler.cancel_dump_traceback_later()
    watch.awake = False
    return tally, resident_mb() - at_first


def resident_mb() -> float:
    """Megabytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Run for some minutes; exit status 1 if a case failed or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    arguments = parser.parse_args()
    warnings.simplefilter("error", RuntimeWarning)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        tally, growth = run_cases(60 * arguments.minutes, arguments.seed, Path(place))
    result = {
        "cases": tally.cases,
        "failures": tally.failures,
        "samples": tally.samples,
        "repairs": tally.repairs,
        "raised": dict(tally.raised.most_common()),
        "slowest_s": round(tally.slowest, 2),
        "rss_growth_mb": round(growth, 1),
        "seconds": round(time.monotonic() - begin, 1),
    }
    print("RESULT", json.dumps(result))
    sys.exit(1 if tally.failures or growth > MOST_GROWTH_MB else 0)


if __name__ == "__main__":
    main()
