"""What a build cannot use: each recording is named with its reason, and the files are counted."""

import sys
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.corpora.base import DOUBLE, Recording
from data_pipeline.errors import UserError
from data_pipeline.features.extract import show_name
from data_pipeline.quarantine import Quarantine


class BrokenFiles:
    """Names the recordings that cannot be used; stops the build once they are of too many files.

    A film that ends too early has hundreds of cues behind its end, and is one file. A `DOUBLE` is
    named, but nothing is broken.

    Args:
        path: `quarantine.jsonl`; what is in it is of a build before, whose files are tried again.
        most: files.
    """

    def __init__(self, path: Path, most: int) -> None:
        path.unlink(missing_ok=True)
        self._path = path
        self._most = most
        self._files: set[str] = set()
        self._named = Quarantine(path, sys.maxsize)  # whose cap would be one of recordings

    def add(self, recording: Recording, reason: str) -> None:
        """Name a recording.

        Raises:
            UserError: it is of one file too many, or cannot be written down.
        """
        file = show_name(recording.media or "")
        self._named.add("", recording.key, file, reason)
        if reason == DOUBLE:
            return
        self._files.add(recording.media or f"key {recording.key}")
        if len(self._files) > self._most:
            raise UserError(
                f"more than {self._most} files cannot be used, or not all of them; the last is "
                f"{file or recording.key}: {reason}; all are named in {self._path}"
            )

    def lines(self, keys: Sequence[str]) -> str:
        """The lines that name these recordings, in this order."""
        return self._named.lines(keys) if keys else ""
