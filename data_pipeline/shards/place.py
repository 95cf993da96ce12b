"""Where a dataset lies: in a local folder, or at a URL that stands before its files' names."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from data_pipeline.errors import UserError

SCHEMES = ("http", "https", "s3")
"""What is read beside local files."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_ADDRESS = re.compile(r"//[^/?#@\s]+(/[^?#\s]*)?")
"""Host or bucket, and path: a file's name can be put behind it."""


@dataclass(frozen=True)
class Url:
    """The address of a file, or of the folder that holds it.

    Attributes:
        address: with its scheme, without a slash at its end.
    """

    address: str

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> "Url":
        return Url(f"{self.address}/{name if self.scheme == 's3' else quote(name)}")

    @property
    def scheme(self) -> str:
        """One of `SCHEMES`."""
        return self.address.partition(":")[0]


Place: TypeAlias = Path | Url


def parse_place(text: str) -> Place:
    """What a user calls the place of a dataset.

    Raises:
        UserError: a URL of another kind, or a command.
    """
    scheme = _SCHEME.match(text)
    if scheme is None or (scheme[1] not in SCHEMES and Path(text).exists()):
        return Path(text)
    if scheme[1] not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise UserError(f"{text}: only local folders and {known} are read; no command is opened")
    if not _ADDRESS.fullmatch(text, scheme.end()):
        raise UserError(
            f"{text}: the URL of a dataset is {scheme[1]}://HOST/FOLDER, without user, query or "
            "spaces"
        )
    return Url(text.rstrip("/"))
