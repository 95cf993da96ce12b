"""Figures that no test looks at are left undrawn: a run has a dozen, each a third of a second."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO
from unittest.mock import patch

from matplotlib.figure import Figure


def leave_undrawn(self: Figure, image: BinaryIO, **_: object) -> None:
    """In place of `Figure.savefig`: an empty picture."""
    image.write(b'<svg xmlns="http://www.w3.org/2000/svg"/>')


@contextmanager
def undrawn() -> Iterator[None]:
    """No figure is drawn in this context."""
    with patch.object(Figure, "savefig", leave_undrawn):
        yield
