"""`--part i/n`: the share of a corpus that one task of an array builds."""

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic.dataclasses import dataclass

from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError


@dataclass(frozen=True)
class BuildPart:
    """Part `number`, from 1, of a corpus that is built in `of` parts."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def folder(self, out: Path) -> Path:
        """Where this part of the dataset `out` is written.

        Raises:
            UserError: `out` has no name, as `.` and `/`.
        """
        if not out.name:
            raise UserError(f"--out: {out} exists already; give a new folder")
        return out.with_name(f"{out.name}.parts") / f"{self.number}-of-{self.of}"

    def share(self, recordings: Sequence[Recording]) -> list[Recording]:
        """Its recordings, which follow one another.

        Those of one file are decoded together, so that they are of one part, and with them what
        stands between them, for the parts together have the order of the whole. Where files have
        many, or stand mixed, a part may have none.
        """
        files = ((one.media, at) for at, one in enumerate(recordings) if one.media is not None)
        last: dict[str | None, int] = dict(files)
        chosen, begin, end = [], 0, 0
        for at, one in enumerate(recordings):
            if at == end:  # no file is on both sides
                begin = at
            end = max(end, last.get(one.media, at) + 1)
            if begin * self.of // len(recordings) == self.number - 1:
                chosen.append(one)
        return chosen


def parse_part(text: str) -> BuildPart:
    """Read `i/n`.

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--part {text}: give i/n with i from 1 to n, e.g. 3/8")
    return BuildPart(int(found[1]), int(found[2]))
