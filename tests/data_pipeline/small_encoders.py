"""Encoders with random weights for tests of builds."""

from pathlib import Path

import torch

from data_pipeline import cpu_torch
from data_pipeline.features.denseface import DenseFaceNet, FaceCard, save_face_net
from data_pipeline.features.extract import ExtractSettings
from data_pipeline.registry import ModelChoice


def write_small_encoders(folder: Path) -> ExtractSettings:
    """A random face network and a random wav2vec 2.0, both small; always the same."""
    torch.manual_seed(0)
    card = FaceCard(classes=("calm", "glad"), input_size=16, trained_on="noise", test_accuracy=0.5)
    save_face_net(folder / "face.safetensors", DenseFaceNet(2), card)
    cpu_torch.install()
    from torchaudio.models import wav2vec2_model

    convolutions = [(8, kernel, 2) for kernel in (3, 3, 3, 3, 2, 2)]
    net = wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[(8, 10, 5), *convolutions],
        extractor_conv_bias=False,
        encoder_embed_dim=64,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=4,
        encoder_pos_conv_groups=4,
        encoder_num_layers=1,
        encoder_num_heads=1,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=16,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    )
    torch.save(net.state_dict(), folder / "wav2vec2.pth")
    return ExtractSettings(
        ModelChoice("denseface", folder / "face.safetensors"),
        ModelChoice("wav2vec2", folder / "wav2vec2.pth"),
    )
