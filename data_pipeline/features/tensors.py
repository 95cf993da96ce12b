"""Files of tensors that a user hands in; nothing in them is ever executed."""

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from data_pipeline.errors import UserError

DAMAGED = (
    OSError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError, struct.error,
    LookupError, ValueError, TypeError, AttributeError, AssertionError,
)  # fmt: skip
"""What reading a file that is cut off, altered or none raises."""


def read_tensors(file: Path) -> Mapping[str, Tensor]:
    """The state dict in a safetensors or torch file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        reason = str(error).partition("\n")[0] or "it ends too early"
        raise UserError(f"{file} cannot be read as weights ({reason})") from None
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in content.items()
    ):
        raise UserError(f"{file} holds no state dict (names and tensors)")
    return content
