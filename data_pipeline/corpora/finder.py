"""Finds the media that a transcript, or a line of a table, speaks of."""

import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal

from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError

Reach = Literal["path", "no media", "any"]
"""Where the media of a path may be: only there; elsewhere, if no media are in the path's folder;
or elsewhere if the path has no folder, too."""


def composed(name: str) -> str:
    """The name with each letter as one, as macOS does not spell it."""
    return unicodedata.normalize("NFC", name)


class Finder:
    """Finds media by their path or name.

    Args:
        media: of the source, each as one recording.

    Attributes:
        media: by key.
    """

    def __init__(self, media: Sequence[Recording]) -> None:
        self.media = {one.key: one for one in media}
        self._by_path: dict[str, list[Recording]] = {}
        self._by_name: dict[str, list[Recording]] = {}
        self._folders = set()
        for one in media:
            path = PurePosixPath(composed(one.media or ""))
            self._folders.add(path.parent)
            for called in {path} if one.flaw else {path, path.with_suffix("")}:
                self._by_path.setdefault(str(called), []).append(one)
                self._by_name.setdefault(called.name, []).append(one)

    def find(self, name: str, where: str, reach: Reach) -> list[Recording]:
        """The media of a path, or of this name in another folder; with or without suffix.

        Args:
            name: the path or name.
            where: it is written, for messages.
            reach: how far from the path they may be.

        Raises:
            UserError: several folders have it.
        """
        path = PurePosixPath(composed(name))
        found = self._by_path.get(str(path), [])
        alone = path.parent not in self._folders or (reach == "any" and not path.parent.name)
        if not found and reach != "path" and alone:
            found = self._by_name.get(path.name, [])
        folders = {PurePosixPath(one.media or "").parent: one.media for one in found}
        if len(folders) > 1:
            first, second, *_ = folders.values()
            raise UserError(f"{where} could be of {first} or {second}; give its folder, too")
        return found
