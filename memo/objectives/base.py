"""The contract of a pretraining objective, and the registry.

An objective is one file of this package: what it masks, its targets, its head, its loss, its
metric. Conditional masking (MEmoBERT, section 2.3): every sample hides exactly one modality, drawn
per sample by the objectives' ratios; all objectives of that modality then take their targets from
it, so that one forward pass serves them all.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeAlias

from torch import Tensor, nn

from data_pipeline.packing import Targets, TargetSpec
from memo.config import ModelSpec

if TYPE_CHECKING:
    from memo.model.memobert import MemoBert
    from memo.objectives.masking import MaskedClip

Modality: TypeAlias = Literal["text", "face", "speech"]
MODALITIES: tuple[Modality, ...] = ("text", "face", "speech")


class LossSum(NamedTuple):
    """Sums of a loss and a metric; the caller divides by the count over ranks and batches.

    A tuple, because DeepSpeed's ZeRO-3 finds the tensors of a module's output in tuples and
    dicts, and must find them to gather the tied weights again before the backward pass.

    Attributes:
        sum: scalar float32, sum of the per-position losses, with gradient.
        count: scalar float32, number of positions.
        metric_sum: scalar float32 without gradient, sum of the per-position metric
            (`Objective.metric`).
    """

    sum: Tensor
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    metric_sum: Tensor

    def plus(self, other: "LossSum") -> "LossSum":
        """Of both."""
        return LossSum(*(own + its for own, its in zip(self, other, strict=True)))


class PositionScores(NamedTuple):
    """How well each masked position was predicted.

    Attributes:
        loss: float32 (M,), with gradient.
        metric: float32 (M,), without gradient.
    """

    loss: Tensor
    metric: Tensor


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

    loss_name: ClassVar[str]
    """Name of the loss of one position, e.g. "mse"."""

    metric: ClassVar[str]
    """Name of the metric, e.g. "accuracy"; larger is better."""

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
    def scores(self, hidden: Tensor, values: Tensor, backbone: "MemoBert") -> PositionScores:
        """Loss and metric of each masked position.

        Args:
            hidden: (M, D), the encoder's output at the target positions; M may be 0, the head runs
                all the same.
            values: (M, ...), the targets, in the dataset's units.
            backbone: gives the tied weights and the feature normalisation.
        """

    def forward(self, hidden: Tensor, values: Tensor, backbone: "MemoBert") -> LossSum:
        """The sums of `scores`; with M = 0 they are zero, and so are all gradients."""
        loss, metric = self.scores(hidden, values, backbone)
        return LossSum(loss.sum(), loss.new_tensor(float(len(loss))), metric.sum())

    def baselines(self, masked: "MaskedClip", backbone: "MemoBert") -> Mapping[str, float]:
        """Loss sums of simple predictors at the positions of `targets(masked)`, by name.

        Evaluation shows them beside the model's loss; nothing where there is no target.
        """
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


def registered() -> Mapping[str, type[Objective]]:
    """The objectives whose modules have been imported, by name."""
    return MappingProxyType(_REGISTRY)
