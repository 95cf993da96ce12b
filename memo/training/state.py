"""What an optimizer step changes, free of ranks and ZeRO stages."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TrainingState:
    """All that an optimizer step changes, whole, by parameter name.

    Attributes:
        model: parameters in float32, and buffers.
        moments: `exp_avg.<name>` and `exp_avg_sq.<name>`.
        updates: steps that AdamW has made.
    """

    model: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    updates: int
