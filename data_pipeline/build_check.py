"""What must be right with a corpus's recordings before hours are spent on them."""

import re
from collections.abc import Sequence

from data_pipeline.clip import LONGEST_KEY, is_key
from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError
from data_pipeline.shards.dataset import NAME


def check_recordings(recordings: Sequence[Recording]) -> None:
    """Every recording must be able to become a clip, and be told apart.

    Raises:
        UserError: a key or a split that no clip can have, or two recordings with one key; names
            the files.
    """
    of: dict[str, str] = {}
    for recording in recordings:
        if not is_key(recording.key):
            raise UserError(
                f"{_whose(recording)}: {recording.key!r:.300} cannot be a clip's key: it is empty, "
                f"longer than {LONGEST_KEY} characters, has a dot or slash, or cannot be shown; "
                "rename it"
            )
        if recording.key in of:
            raise UserError(
                f"{of[recording.key]} and {_whose(recording)} would both be clip "
                f"{recording.key!r}; rename one"
            )
        if not re.fullmatch(NAME, recording.split):
            raise UserError(
                f"{recording.key}: {recording.split!r} cannot be a split; its name has letters, "
                "digits, - and _ only"
            )
        of[recording.key] = _whose(recording)


def _whose(recording: Recording) -> str:
    """Whose key it is, for messages."""
    return recording.media or recording.image or "a text"
