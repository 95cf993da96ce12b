"""The contract of a speech encoder, and the registry: one file of this package an encoder."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

import data_pipeline.features
from data_pipeline.errors import UserError


class SpeechEncoder(Protocol):
    """A frozen network that turns sound into rows.

    Attributes:
        name: its name on the command line and in `dataset.json`.
        dim: numbers in a row.
        rows_per_s: rows a second.
        sha256: hash of the weights' file.
    """

    name: str
    dim: int
    rows_per_s: float
    sha256: str

    def encode(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sound (samples,) at 16 kHz in [-1, 1] -> rows (T, dim)."""
        ...


Loader: TypeAlias = Callable[[Path], SpeechEncoder]
_AnyLoader = TypeVar("_AnyLoader", bound=Loader)


@dataclass(frozen=True)
class _Entry:
    load: Loader
    folder: str


_REGISTRY: dict[str, _Entry] = {}


def register(name: str, folder: str) -> Callable[[_AnyLoader], _AnyLoader]:
    """Decorator: make a class or function that loads weights known under an encoder's name.

    Args:
        name: of the encoder.
        folder: name of the folder in which its weights are looked for.
    """

    def enter(load: _AnyLoader) -> _AnyLoader:
        if name in _REGISTRY:
            raise ValueError(f"two speech encoders are called {name!r}")
        _REGISTRY[name] = _Entry(load, folder)
        return load

    return enter


def speech_encoders() -> dict[str, str]:
    """Name -> folder name of the weights, of all encoders; imports every module of the package."""
    for module in pkgutil.iter_modules(data_pipeline.features.__path__, "data_pipeline.features."):
        importlib.import_module(module.name)
    return {name: _REGISTRY[name].folder for name in sorted(_REGISTRY)}


def load_speech_encoder(name: str, weights: Path) -> SpeechEncoder:
    """Load an encoder by name.

    Raises:
        UserError: there is none of this name (lists those there are), or its weights do not load.
    """
    known = speech_encoders()
    if name not in known:
        raise UserError(f"there is no speech encoder {name!r}; known are: {', '.join(known)}")
    if not weights.exists():
        raise UserError(f"no weights of {name} at {weights}; name them with --speech-weights")
    return _REGISTRY[name].load(weights)


def average_rows(rows: NDArray[np.float32], group: int) -> NDArray[np.float32]:
    """Mean of each `group` neighbouring rows.

    Args:
        rows: (T, D).
        group: rows averaged into one; the last group may be shorter.

    Returns:
        (ceil(T / group), D).
    """
    starts = np.arange(0, len(rows), group)
    sizes = np.diff(np.append(starts, len(rows)))
    return (np.add.reduceat(rows, starts) / sizes[:, None]).astype(np.float32)
