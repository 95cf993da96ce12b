"""Networks like wav2vec 2.0, small and with random weights."""

from typing import Any, Literal

import torch

from data_pipeline import cpu_torch

BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def small_net(kind: Literal["Wav2Vec2", "Hubert"], **config: object) -> Any:  # noqa: ANN401
    """Transformers' model, none of whose weights is trivial."""
    cpu_torch.install()
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96}
    positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
    given = {**sizes, **positions, "conv_dim": [16] * 7, "num_attention_heads": 1, **config}
    net = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**given))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return net.eval()
