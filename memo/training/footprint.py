"""What a step needs of memory, told without taking it.

A forward and backward pass on meta tensors, which have sizes and no content, allocates and frees
what a real one does; a dispatch mode adds it up. That takes a second or two, no memory, whatever
the number of tokens, and no GPU. It knows nothing of what happens inside a kernel, of rounding and
of fragments. Where kernels of devices differ (dropout's masks, attention with a mask), that which
keeps more is counted.
"""

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memo.config import ModelSpec, PretrainConfig
from memo.model.attention import choose_backend
from memo.model.encoder import even_count
from memo.model.memobert import MemoBert
from memo.objectives import build_objectives
from memo.objectives.pretraining_model import PretrainingModel
from memo.objectives.transform import PretrainTransform
from memo.training.worst_batch import KINDS, worst_batch

META = torch.device("meta")
WIDTH = {"fp32": 4, "bf16": 2}
"""Bytes of a weight."""

SPARE = {"cuda": 0.1, "cpu": 0.5}
"""Share of the free memory that is left for what is not told: fragments, above all in a CPU's heap,
which was measured at up to twice what lives in it (docs/results.md, memory)."""

NEAR = 1.03


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, as long as they live.

    Attributes:
        peak: the most at any moment.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run an operation and count what it has made."""
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                self._count(one.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        """Views and results in place have a storage that is known."""
        address, size = storage._cdata, storage.nbytes()
        if address not in self._known:
            self._known.add(address)
            self._now += size
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self._known.remove(address)
        self._now -= size


class Footprint:
    """The memory of a run's forward and backward pass, by the tokens of a micro-batch.

    Attributes:
        parameters: of the model.

    Args:
        config: the settings.
        spec: the model's sizes.
        transform: gives the objectives' targets.
        device: where the run computes; it decides on the kernels.
        precision: `fp32` or `bf16`.
        recompute: activation checkpointing.
    """

    def __init__(
        self,
        config: PretrainConfig,
        spec: ModelSpec,
        transform: PretrainTransform,
        device: torch.device,
        precision: str,
        recompute: bool,
    ) -> None:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        head_size = spec.hidden // spec.heads
        backend = choose_backend(device, dtype, spec.attention_dropout, head_size)
        with META:
            backbone = MemoBert(spec, backend, recompute)
            model = PretrainingModel(backbone, build_objectives(config.objectives, spec))
        self._model = model.to(dtype)
        self.parameters = sum(one.numel() for one in model.parameters())
        self._computes = device, dtype
        self._about = (config, transform, spec)
        self._kinds = list(KINDS)

    def of(self, tokens: int) -> int:
        """Bytes at the peak: activations, gradients and temporary results, without the weights.

        The kind of micro-batch that needs the most at the first call is taken from then on.

        Args:
            tokens: of the micro-batch; the rows that an encoder fills it up with count as such.
        """
        rows = even_count(tokens, *self._computes)
        needs = {kind: self._of_kind(kind, rows) for kind in self._kinds}
        self._kinds = [max(needs, key=needs.__getitem__)]
        return max(needs.values())

    def _of_kind(self, kind: str, tokens: int) -> int:
        batch = worst_batch(*self._about, kind, tokens).to(META)
        with LiveBytes() as live:
            losses = self._model(batch)
            torch.stack([one.sum for one in losses.values()]).sum().backward()
        self._model.zero_grad(set_to_none=True)
        peak: int = live.peak
        return peak


def kept_bytes(parameters: int, stage: int, ranks: int, precision: str, offload: bool) -> float:
    """Bytes that the engine of a rank holds between two steps: weights and AdamW's.

    What a stage partitions is divided by the ranks (Rajbhandari et al., SC 2020). The moments take
    8 bytes a parameter; from stage 1 on DeepSpeed keeps a master copy beside them.
    """
    weights = WIDTH[precision] / (ranks if stage == 3 else 1)
    optimizer = (12 if stage else 8) / (ranks if stage else 1)
    return parameters * (weights + (0 if offload else optimizer))


def passing_bytes(parameters: int, stage: int, ranks: int, precision: str) -> float:
    """Bytes that a step needs besides: what is not told by a micro-batch's pass.

    The sum of the micro-batches' gradients, in fp32, and at stage 3 the weights that are gathered.
    """
    gradients = 4 / (ranks if stage >= 2 else 1)
    return parameters * (gradients + (WIDTH[precision] if stage == 3 else 0))


def most_useful(config: PretrainConfig, ranks: int) -> int:
    """Tokens of a rank's share of the largest possible global batch."""
    return -(-config.batch.global_batch // ranks) * config.limits.longest


def largest_budget(need: Callable[[int], int], room: float, least: int, most: int) -> int | None:
    """The most tokens of a micro-batch that fit, or up to 3 % less.

    Args:
        need: bytes by tokens, which never falls.
        room: bytes that there are.
        least: smallest answer.
        most: largest answer.

    Returns:
        None if not even `least` fits.
    """
    if need(most) <= room:
        return most
    if need(least) > room:
        return None
    while most > max(least * NEAR, least + 1):
        middle = max(math.isqrt(least * most), least + 1)
        if need(middle) <= room:
            least = middle
        else:
            most = middle
    return least
