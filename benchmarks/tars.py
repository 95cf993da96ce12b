"""Tars taken apart and put together, whole or not."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_pipeline.shards.tar import BLOCK


@dataclass(frozen=True)
class Part:
    """A member of a tar, as its bytes.

    Attributes:
        name: of the member.
        header: one block or more.
        content: what it holds.
    """

    name: str
    header: bytes
    content: bytes = b""

    @property
    def raw(self) -> bytes:
        """All that it takes in the tar."""
        return self.header + self.content + bytes(-len(self.content) % BLOCK)


def split_tar(tar: bytes) -> list[Part]:
    """The members of a whole tar."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return [
            Part(
                one.name,
                tar[one.offset : one.offset_data],
                tar[one.offset_data : one.offset_data + one.size],
            )
            for one in opened
        ]


def join_tar(parts: Sequence[Part]) -> bytes:
    """A tar of these members."""
    return b"".join(part.raw for part in parts) + bytes(2 * BLOCK)


def member(
    name: str,
    content: bytes = b"",
    *,
    size: int | None = None,
    kind: bytes = tarfile.REGTYPE,
    pax: Mapping[str, str] | None = None,
    form: Literal[0, 1, 2] = tarfile.PAX_FORMAT,
) -> Part:
    """A member with any header.

    Args:
        name: its path.
        content: what it really holds.
        size: what the header says instead of the content's size.
        kind: type of the member.
        pax: records of a PAX header before it.
        form: of the header.
    """
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content) if size is None else size, kind
    info.linkname = "/etc/passwd" if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
    info.pax_headers = dict(pax or {})
    return Part(name, info.tobuf(form), content)


def npy(rows: NDArray[np.generic]) -> bytes:
    """The rows as numpy saves them."""
    file = io.BytesIO()
    np.save(file, rows, allow_pickle=True)
    return file.getvalue()


def npy_header(rows: int, columns: int) -> bytes:
    """The header of float16 rows, without the rows."""
    file = io.BytesIO()
    form = {"descr": "<f2", "fortran_order": False, "shape": (rows, columns)}
    np.lib.format.write_array_header_1_0(file, form)
    return file.getvalue()
