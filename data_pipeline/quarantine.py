"""`quarantine.jsonl`: every sample that was skipped, with the reason."""

import fcntl
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO, NamedTuple

from data_pipeline.errors import UserError

QUARANTINE = "quarantine.jsonl"

_log = logging.getLogger(__name__)


class BadSample(NamedTuple):
    """A sample that was skipped: its shard and key, the member that is bad, and why."""

    shard: str
    key: str
    member: str
    reason: str


class _Named:
    """What a growing file names: of what others have written to it, too, each line is read once.

    Attributes:
        torn: the last line has no end.
    """

    def __init__(self) -> None:
        self._samples: set[tuple[str, str]] = set()
        self._read = 0
        self.torn = False

    def read(self, file: BinaryIO) -> set[tuple[str, str]]:
        """Shard and key of every sample in the file."""
        if file.seek(0, SEEK_END) < self._read:  # it was removed meanwhile
            self._samples, self._read = set(), 0
        file.seek(self._read)
        content = file.read()
        *lines, rest = content.split(b"\n")
        for line in (*lines, rest):
            with suppress(ValueError):  # a line that a power cut has torn
                record = json.loads(line)
                self._samples.add((record["shard"], record["key"]))
        self.torn = bool(rest)
        self._read += len(content) - len(rest)
        return self._samples


class Quarantine:
    """Counts and names bad samples.

    Ranks share the file, and so do the parts of a run that was stopped and continued: each sample
    stands in it once, and all of them count. Naming one too many is no error yet, because it
    happens on one rank alone: the ranks `check` together.

    Args:
        path: file to append to; made, with its folder, when the first sample is named.
        cap: most samples that may be skipped.

    Attributes:
        excess: why the run must stop, once there are more than the cap; else None.
    """

    def __init__(self, path: Path, cap: int) -> None:
        self.excess: str | None = None
        self._path = path
        self._cap = cap
        self._known = _Named()
        self._warned = False

    def __len__(self) -> int:
        if not self._path.exists():
            return 0
        with self._path.open("rb") as file:
            return len(_Named().read(file))

    def add(self, shard: str, key: str, member: str, reason: str) -> None:
        """Name a bad sample, once; once there are too many, no more are named.

        Raises:
            UserError: the file cannot be written.
        """
        if self.excess is not None:
            return
        try:
            named = self._append(BadSample(shard, key, member, reason))
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}") from None
        if named > self._cap:
            self.excess = (
                f"more than {self._cap} bad samples; the last is {key} of {shard or 'the source'}: "
                f"{reason}; all are named in {self._path}"
            )

    def _append(self, sample: BadSample) -> int:
        """Write its line if there is none; how many samples are named then."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+b") as file:
            self._lock(file)
            named = self._known.read(file)
            if (sample.shard, sample.key) in named:
                return len(named)
            line = json.dumps(sample._asdict(), ensure_ascii=False)
            file.write(b"\n" * self._known.torn + f"{line}\n".encode())
            return len(named) + 1

    def _lock(self, file: BinaryIO) -> None:
        """Until the file is closed; where the file system knows no locks there is a warning."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if not self._warned:
                _log.warning(
                    "%s cannot be locked (%s): several ranks may name a sample twice",
                    self._path,
                    error,
                )
            self._warned = True

    def lines(self, keys: Sequence[str]) -> str:
        """The lines that name these samples, in this order, whatever that of the file is."""
        lines: dict[str, str] = {}
        with self._path.open(encoding="utf8") as file:
            for line in file:
                with suppress(ValueError):  # a line that a power cut has torn
                    lines[json.loads(line)["key"]] = line
        return "".join(lines[key] for key in keys)

    def check(self) -> None:
        """Stop if there are too many.

        Raises:
            UserError: there are more than the cap.
        """
        if self.excess is not None:
            raise UserError(self.excess)


class Notes(Quarantine):
    """Bad samples that are noted for the quarantine of another process.

    Attributes:
        noted: all of them.
    """

    def __init__(self) -> None:
        self.excess = None
        self.noted: list[BadSample] = []

    def __len__(self) -> int:
        return len(self.noted)

    def add(self, shard: str, key: str, member: str, reason: str) -> None:
        """Note a bad sample."""
        self.noted.append(BadSample(shard, key, member, reason))


def count_reasons(lines: Iterable[str]) -> Counter[str]:
    """How many samples were skipped for each reason.

    Args:
        lines: of a quarantine, whoever wrote it; what is none is counted as such.
    """
    reasons: Counter[str] = Counter()
    for line in filter(str.strip, lines):
        try:
            reasons[str(json.loads(line)["reason"])] += 1
        except (ValueError, TypeError, KeyError, RecursionError):
            reasons["(a line that names no reason)"] += 1
    return reasons
