"""Lets torchvision (which timm imports) and torchaudio load beside a CPU-only torch.

Their wheels hold extensions linked against CUDA. Beside a CPU build of torch these do not load, and
the import of the whole package fails, although its Python parts work. Call `install` before the
first import of timm, torchvision, torchaudio or the parts of transformers that use them. On a
complete installation it does nothing.
"""

import importlib.util
import sys
import types
from importlib.machinery import ModuleSpec

import torch


def install() -> None:
    """Make timm, torchvision and torchaudio importable beside a CPU-only torch."""
    if torch.version.cuda is None and torch.version.hip is None:
        _declare_torchvision_operators()
        _replace_torchaudio_extension()


def _declare_torchvision_operators() -> None:
    """Declare, without implementation, the operators that torchvision expects at import."""
    if hasattr(torch.ops.torchvision, "nms"):
        return
    # The fragment lives as long as the process: dropping it would take the declarations back.
    global _torchvision_schemas  # noqa: PLW0603
    _torchvision_schemas = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        _torchvision_schemas.define(schema)


_torchvision_schemas: torch.library.Library | None = None


def _replace_torchaudio_extension() -> None:
    """Replace the module with which torchaudio loads its CUDA-linked extension."""
    name = "torchaudio._extension"
    if name in sys.modules or importlib.util.find_spec("torchaudio") is None:
        return
    extension = types.ModuleType(name)
    extension.__spec__ = ModuleSpec(name, loader=None)
    extension.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        fail_if_no_align=_no_forced_alignment,
    )
    sys.modules[name] = extension


def _no_forced_alignment(function: object) -> object:
    """Replace a function that needs the compiled extension by one that says so when called."""
    name = getattr(function, "__name__", "this function")

    def unavailable(*_: object, **__: object) -> None:
        message = f"torchaudio's {name} needs its extension, which a CPU-only torch cannot load"
        raise RuntimeError(message)

    return unavailable
