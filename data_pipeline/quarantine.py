"""`quarantine.jsonl`: every sample that was skipped, with the reason."""

import fcntl
import json
from pathlib import Path
from typing import TextIO

from data_pipeline.errors import UserError


class Quarantine:
    """Counts and names bad samples; stops the run when there are too many.

    Ranks share the file, and so do the parts of a run that was stopped and continued: each sample
    stands in it once, and all of them count.

    Args:
        path: file to append to; made when the first sample is named.
        cap: most samples that may be skipped.
    """

    def __init__(self, path: Path, cap: int) -> None:
        self._path = path
        self._cap = cap

    def __len__(self) -> int:
        if not self._path.exists():
            return 0
        with self._path.open(encoding="utf8") as file:
            return len(_named(file))

    def add(self, shard: str, key: str, member: str, reason: str) -> None:
        """Name a bad sample, once.

        Raises:
            UserError: there are more than the cap.
        """
        with self._path.open("a+", encoding="utf8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            named = _named(file)
            if (shard, key) not in named:
                named.add((shard, key))
                line = {"shard": shard, "key": key, "member": member, "reason": reason}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if len(named) > self._cap:
            raise UserError(
                f"more than {self._cap} bad samples; the last is {key} of {shard or 'the source'}: "
                f"{reason}; all are named in {self._path}"
            )


def _named(file: TextIO) -> set[tuple[str, str]]:
    """Shard and key of every sample in the file."""
    file.seek(0)
    records = map(json.loads, file)
    return {(record["shard"], record["key"]) for record in records}
