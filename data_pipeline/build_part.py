"""`--part i/n`: the share of a corpus that one task of an array builds."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
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
        """Its recordings, in the order of the whole.

        Those of one file are decoded together, so that they are of one part: the files, in the
        order of their first recordings, are divided by how many recordings those before them have.
        Where files have many, a part may have none. Where files stand mixed, so that parts do not
        follow one another, each recording says where it stands (`at`).
        """
        files = [at if one.media is None else one.media for at, one in enumerate(recordings)]
        sizes = Counter(files)
        begins = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
        parts = [begins[file] * self.of // len(files) + 1 for file in files]
        mixed = any(one > following for one, following in pairwise(parts))
        return [
            replace(one, at=at) if mixed else one
            for at, (one, part) in enumerate(zip(recordings, parts, strict=True), start=1)
            if part == self.number
        ]


def parse_part(text: str) -> BuildPart:
    """Read `i/n`.

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--part {text}: give i/n with i from 1 to n, e.g. 3/8")
    return BuildPart(int(found[1]), int(found[2]))
