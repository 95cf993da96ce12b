"""Floating-point operations of a training step, and what the machine could do.

The model FLOPs utilisation (MFU) is operations that the arithmetic needs, per second, over the rate
of a plain matrix product on the same machine. One multiply-add is two operations; element-wise work
(softmax, GELU, LayerNorm, dropout, optimizer) counts as nothing.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from data_pipeline.packing import PackedBatch
from memo.config import ModelSpec


def encoder_flops(spec: ModelSpec, seqlens: Sequence[int]) -> float:
    """Operations of one forward pass of the encoder.

    A layer takes 2 T (4 d^2 + 2 d f) for its linear layers, 24 T d^2 at f = 4 d, and 4 T^2 d for
    attention on a sequence of T tokens (Kaplan et al. 2020, table 1).
    """
    linear = 2 * (4 * spec.hidden**2 + 2 * spec.hidden * spec.ffn) * sum(seqlens)
    attention = 4 * spec.hidden * sum(length**2 for length in seqlens)
    return float(spec.layers * (linear + attention))


def training_flops(spec: ModelSpec, batch: PackedBatch, head_widths: Mapping[str, int]) -> float:
    """Operations of a forward and backward pass.

    The backward pass of a product costs twice its forward pass. Besides the encoder, the feature
    projections take 2 R D_feature D for R rows, and an objective's head, Linear(D, D) and
    Linear(D, width), 2 M D (D + width) at its M masked positions.

    Args:
        spec: the model's sizes.
        batch: one micro-batch.
        head_widths: objective -> outputs of its last layer (vocabulary, features, classes).
    """
    rows = len(batch.face) * spec.face_dim + len(batch.speech) * spec.speech_dim
    projections = 2 * spec.hidden * rows
    heads = sum(
        2 * len(batch.targets[name].positions) * spec.hidden * (spec.hidden + width)
        for name, width in head_widths.items()
    )
    return 3 * (encoder_flops(spec, batch.seqlens) + projections + heads)


def measure_matmul_peak(
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    size: int = 1024,
    repeats: int = 10,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Operations per second of the fastest of several square matrix products.

    Uses as many threads as torch is set to. On a GPU, take a larger size (8192).

    Args:
        device: where the model runs.
        dtype: in which it computes.
        size: rows and columns of the matrices.
        repeats: products measured, after a first one that is not.
        clock: gives seconds; CPU time tells the peak of one thread on a busy machine.
    """
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    best = math.inf
    for repeat in range(repeats + 1):
        _wait(device)
        begin = clock()
        left @ right
        _wait(device)
        if repeat:
            best = min(best, clock() - begin)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    """Wait for a device that computes behind Python's back."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
