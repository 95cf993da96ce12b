"""The parts that the objectives' heads share."""

from torch import nn

from memo.config import ModelSpec


class HeadTransform(nn.Sequential):
    """Linear, GELU, LayerNorm: (M, D) -> (M, D), as in BERT's prediction heads.

    Args:
        spec: the model's sizes.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(
            new_linear(spec.hidden, spec.hidden, spec),
            nn.GELU(),
            nn.LayerNorm(spec.hidden, eps=spec.layer_norm_eps),
        )


def new_linear(inputs: int, outputs: int, spec: ModelSpec) -> nn.Linear:
    """A linear layer with BERT's initial weights: normal with `spec.init_std`, bias zero."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=spec.init_std)
    nn.init.zeros_(linear.bias)
    return linear
