"""An encoder of one's own: a class in some module that Python finds, named `package.module:Class`.

It is called with the weights that the command line names (None if none) and the device, and must
then have what `SpeechEncoder` or `FaceEncoder` asks for, but for a name, which is that of the
class. Its code is run: it is imported because the user has named it, never because a file has.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.errors import UserError


class Wanted(NamedTuple):
    """What an attribute must be: in words, and a test."""

    what: str
    fits: Callable[[Any], bool]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


COMMON: Mapping[str, Wanted] = {
    "dim": Wanted("how many numbers a row has", _is_count),
    "sha256": Wanted(
        "64 hexadecimal digits, the hash of what its rows depend on",
        lambda one: isinstance(one, str) and re.fullmatch("[0-9a-f]{64}", one) is not None,
    ),
    "encode": Wanted("the method that makes rows", callable),
}
"""What encoders of all modalities have."""


class OwnEncoder:
    """What encoders of one's own have in common, whatever their modality.

    Args:
        name: `package.module:Class`.
        weights: handed to the class.
        device: likewise.

    Raises:
        UserError: the class cannot be imported or called so, or lacks an attribute.
    """

    option: ClassVar[str]
    """`--<option>` names it."""
    wanted: ClassVar[Mapping[str, Wanted]]
    """What the class must have, beyond `COMMON`."""

    def __init__(self, name: str, weights: Path | None, device: torch.device) -> None:
        where = self._where = f"--{self.option} {name}"
        made_by = _find(where, name)
        try:
            inspect.signature(made_by).bind(weights, device)
        except TypeError as error:
            raise UserError(f"{where}: it is called with (weights, device), but {error}") from None
        self._own = made_by(weights, device)
        for attribute, one in {**COMMON, **self.wanted}.items():
            if not hasattr(self._own, attribute):
                raise UserError(f"{where}: it lacks the attribute {attribute}, {one.what}")
            value = getattr(self._own, attribute)
            if not one.fits(value):
                raise UserError(f"{where}: {attribute} is {value!r:.80}, not {one.what}")
        self.name = name
        self.dim: int = self._own.dim
        self.sha256: str = self._own.sha256


def _find(where: str, name: str) -> Callable[..., Any]:
    """Import the class; see `OwnEncoder`."""
    place, _, called = name.partition(":")
    try:
        module = importlib.import_module(place)
    except (ImportError, SyntaxError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{where}: {place} cannot be imported ({reason}); PYTHONPATH names the folders "
            "that are looked at"
        ) from None
    found = getattr(module, called, None)
    if not callable(found):
        raise UserError(f"{where}: there is no class {called} in {module.__file__}")
    return found  # type: ignore[no-any-return]


def checked_rows(where: str, rows: object, count: int | None, dim: int) -> NDArray[np.float32]:
    """What `encode` gave, as float32 rows (T, dim) of its own.

    Args:
        where: what is at fault if they are none.
        rows: what it gave.
        count: T; None: any.
        dim: numbers in a row.

    Raises:
        UserError: they are no such rows.
    """
    if isinstance(rows, np.ndarray):
        wanted = (*rows.shape[:1], dim) if count is None else (count, dim)
        if rows.dtype.kind == "f" and rows.shape == wanted:
            return np.array(rows, dtype=np.float32)
        shown = f"{rows.dtype} {rows.shape}"
    else:
        shown = " ".join(repr(rows).split())[:80]
    shape = f"({'T' if count is None else count}, {dim})"
    raise UserError(f"{where}: encode gave {shown}, not an array of floats {shape}")
