"""Where this machine keeps what can be had again: fetched shards, counted tokens, word vectors."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$MEMO_CACHE`, or `~/.cache/memo`."""
    named = os.environ.get("MEMO_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "memo"
