"""The contract of a pretraining objective, and the registry.

An objective is one file of this package: what it masks, its targets, its head, its loss, its
metric. Conditional masking (MEmoBERT, section 2.3): every sample hides exactly one modality, drawn
per sample by the objectives' ratios; all objectives of that modality then take their targets from
it, so that one forward pass serves them all.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from torch import Tensor, nn

from data_pipeline.packing import Targets, TargetSpec
from memo.config import ModelSpec

if TYPE_CHECKING:
    from memo.model.memobert import MemoBert
    from memo.objectives.masking import MaskedClip

Modality: TypeAlias = Literal["text", "face", "speech"]
MODALITIES: tuple[Modality, ...] = ("text", "face", "speech")


@dataclass(frozen=True)
class LossSum:
    """Sums of a loss and a metric; the caller divides by the count over ranks and batches.

    Attributes:
        sum: scalar, sum of the per-position losses, with gradient.
        count: scalar float32, number of positions.
        metric_sum: scalar without gradient, sum of the per-position metric (`Objective.metric`).
    """

    sum: Tensor
    count: Tensor
    metric_sum: Tensor


class Objective(nn.Module, ABC):
    """One pretraining task: targets from a masked clip, a head, a loss and a metric.

    The parameters of the module are the head's. Weights tied to the backbone (word embeddings,
    input projections) are read from it at the call and are not owned by the head.

    Args:
        spec: the model's sizes.
    """

    name: ClassVar[str]
    """Name in configs, logs and checkpoints."""

    modality: ClassVar[Modality]
    """The modality that this objective hides."""

    metric: ClassVar[str]
    """Name of the metric, e.g. "accuracy"."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def target_spec(self) -> TargetSpec:
        """Dtype and trailing shape of this objective's target values."""

    @abstractmethod
    def targets(self, masked: "MaskedClip") -> Targets | None:
        """What must be predicted in a clip whose `modality` has been masked; None if nothing."""

    @abstractmethod
    def forward(self, hidden: Tensor, values: Tensor, backbone: "MemoBert") -> LossSum:
        """Loss of the predictions at the masked positions.

        Args:
            hidden: (M, D), the encoder's output at the target positions; M may be 0, the head runs
                all the same.
            values: (M, ...), the targets, in the dataset's units.
            backbone: gives the tied weights and the feature normalisation.
        """

    def baselines(self, masked: "MaskedClip", backbone: "MemoBert") -> Mapping[str, float]:
        """Loss sums of simple predictors at the same positions of one clip, by name."""
        del masked, backbone
        return {}


_REGISTRY: dict[str, type[Objective]] = {}


def register(objective: type[Objective]) -> type[Objective]:
    """Class decorator: make an objective known under its name."""
    if objective.name in _REGISTRY:
        message = f"two objectives are called {objective.name!r}"
        raise ValueError(message)
    _REGISTRY[objective.name] = objective
    return objective
