"""The part that all heads share."""

from torch import nn

from memo.config import ModelSpec


class HeadTransform(nn.Sequential):
    """Linear, GELU, LayerNorm: (M, D) -> (M, D), as in BERT's prediction heads.

    Args:
        spec: the model's sizes.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(
            nn.Linear(spec.hidden, spec.hidden),
            nn.GELU(),
            nn.LayerNorm(spec.hidden, eps=spec.layer_norm_eps),
        )
