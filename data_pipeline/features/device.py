"""Where encoders run: chosen once for a build, and the same rows each time."""

import torch

from data_pipeline.errors import UserError

CPU = torch.device("cpu")
DEVICES = ("auto", "cpu", "cuda")


def choose_device(asked: str) -> str:
    """The device for what was asked: `auto` is the GPU if there is one, else the CPU.

    Raises:
        UserError: a device that is unknown, or not there.
    """
    if asked not in DEVICES:
        raise UserError(f"--device: there is no {asked!r}; give {', '.join(DEVICES)}")
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise UserError("--device cuda: torch sees no GPU here; give cpu")
    if asked == "auto":
        return "cuda" if there else "cpu"
    return asked


def open_device(name: str) -> torch.device:
    """The device of this name, `cpu` or `cuda`.

    A GPU is kept from what makes its rows differ from time to time, or more than they must from
    those of a CPU: convolutions that are picked by a race, or computed in TF32.
    """
    if name == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)
