"""The one exception that means: the user can mend this; and how others are said."""

from collections.abc import Sequence
from pathlib import Path

MOST_NAMED = 5


class UserError(Exception):
    """A user's mistake, said in one line: what is wrong, where, and what would be right.

    Commands print the line on stderr and exit with status 2; no traceback is shown.
    """


class AgreedError(UserError):
    """A user's mistake that every rank of a run knows of; the first rank says it."""


def say_without_path(error: Exception) -> str:
    """What an error says of a file, without its path, which is of one machine alone."""
    return getattr(error, "strerror", None) or str(error)


def in_one_line(error: Exception) -> str:
    """What an error says, without a path, in one line; its kind if it says nothing."""
    return " ".join(say_without_path(error).split()) or type(error).__name__


def some(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def check_place(option: str, path: Path | None) -> None:
    """What is asked for can be written, which is told before hours are spent on it.

    Raises:
        UserError: the path is a folder, or is in none.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UserError(f"{option}: {path}; give a file in a folder that there is")
