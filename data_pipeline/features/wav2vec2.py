"""wav2vec 2.0 (Baevski et al., NeurIPS 2020) as a frozen speech encoder, on torchaudio's network.

Three kinds of weights are taken:

* a state dict of torchaudio's `Wav2Vec2Model` (`.pt` and `.pth` read without running code, or
  `.safetensors`), such as the files of `torchaudio.pipelines`; a head over the encoder is dropped;
* a folder that holds one such file;
* a folder in Hugging Face's form: `config.json` and `model.safetensors` or `pytorch_model.bin`.

Sizes are read off the tensors' shapes. What shapes do not show comes from `config.json`, or, for
torchaudio's files, from what holds for every network of `torchaudio.pipelines`: a feature extractor
with layer norm in each convolution goes with layer norm before each block and with a normalised
waveform; one with a single group norm goes with neither. A `preprocessor_config.json` says whether
Hugging Face's network wants its waveform normalised; without it the same rule holds.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from data_pipeline import cpu_torch
from data_pipeline.errors import UserError
from data_pipeline.features.device import CPU
from data_pipeline.features.speech import RATE, SPEECH
from data_pipeline.features.tensors import read_tensors
from data_pipeline.shards.index import file_sha256

STRIDES = (5, 2, 2, 2, 2, 2, 2)
"""Of the feature extractor, in every published network: 320 samples, 20 ms, a row."""
TORCHAUDIO_EPS = 1e-5
HF_EPS = 1e-7
"""Added to the waveform's variance by torchaudio's and by Hugging Face's normalisation."""

_RENAMED = (
    (r"\.conv\.weight_g$", ".conv.parametrizations.weight.original0"),
    (r"\.conv\.weight_v$", ".conv.parametrizations.weight.original1"),
)
_HF_TO_TORCHAUDIO = (
    (r"^(wav2vec2|hubert)\.", ""),
    (r"^encoder\.", "encoder.transformer."),
    (r"^feature_projection\.", "encoder.feature_projection."),
)
_CONV = "feature_extractor.conv_layers.{}.conv.weight"
_POSITION = "encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original1"
_LAYER = "encoder.transformer.layers.{}.feed_forward.intermediate_dense.weight"


@dataclass(frozen=True)
class Architecture:
    """What shapes do not show.

    Attributes:
        heads: attention heads.
        layer_norm_first: layer norm before each block rather than after it.
        strides: of the feature extractor's convolutions.
        normalise_eps: added to the waveform's variance when it is normalised; None: it is not.
    """

    heads: int
    layer_norm_first: bool
    strides: tuple[int, ...]
    normalise_eps: float | None


class _HfConfig(BaseModel):
    """The part of `config.json` that matters, with Hugging Face's defaults."""

    model_config = ConfigDict(extra="ignore")

    model_type: str
    hidden_act: Literal["gelu"] = "gelu"
    feat_extract_activation: Literal["gelu"] = "gelu"
    add_adapter: Literal[False] = False
    conv_pos_batch_norm: Literal[False] = False
    feat_proj_layer_norm: Literal[True] = True
    num_attention_heads: int = 12
    do_stable_layer_norm: bool = False
    conv_stride: tuple[int, ...] = STRIDES


class _HfPreprocessor(BaseModel):
    """The part of `preprocessor_config.json` that matters."""

    model_config = ConfigDict(extra="ignore")

    do_normalize: bool = True


@SPEECH.register("wav2vec2", "wav2vec2-base")
class Wav2Vec2Encoder:
    """The whole network; rows are its last hidden state.

    Args:
        weights: file or folder, see the module.
        device: to encode on.

    Raises:
        UserError: the weights cannot be read, or are not those of a wav2vec 2.0 network.
    """

    name = "wav2vec2"
    """Its `model_type` in Hugging Face's form, too."""
    title: ClassVar[str] = "wav2vec 2.0"

    def __init__(self, weights: Path, device: torch.device = CPU) -> None:
        file = _weights_file(weights, self.title)
        tensors = _state(file)
        try:
            architecture = _guess_architecture(tensors)
            if (file.parent / "config.json").exists():
                architecture = _hf_architecture(file.parent, architecture, self.name)
            self._net = _build_net(tensors, architecture).to(device)
        except (KeyError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{file} is no {self.title} network ({reason})") from None
        kernels = [block.kernel_size for block in self._net.feature_extractor.conv_layers]
        self._device = device
        self._normalise_eps = architecture.normalise_eps
        self._shortest = _receptive_field(kernels, architecture.strides)
        self.dim: int = self._net.encoder.transformer.layer_norm.weight.shape[0]
        self.rows_per_s = RATE / prod(architecture.strides)
        self.sha256 = file_sha256(file)

    @torch.inference_mode()
    def encode(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sound (samples,) at 16 kHz -> rows (T, dim); T = 0 if it is shorter than one row."""
        if len(sound) < self._shortest:
            return np.empty((0, self.dim), dtype=np.float32)
        waveform = torch.from_numpy(sound).to(self._device)
        if self._normalise_eps is not None:
            eps = self._normalise_eps
            waveform = torch.nn.functional.layer_norm(waveform, waveform.shape, eps=eps)
        rows, _ = self._net(waveform.unsqueeze(0))  # (1, T, D)
        return np.asarray(rows.squeeze(0).cpu().numpy())


def _weights_file(weights: Path, title: str) -> Path:
    """The file that holds the tensors."""
    if weights.is_file():
        return weights
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (weights / name).exists():
            return weights / name
    files = [
        path for pattern in ("*.safetensors", "*.pth", "*.pt") for path in weights.glob(pattern)
    ]
    if len(files) != 1:
        raise UserError(f"{weights} holds {len(files)} files of {title} weights; give the file")
    return files[0]


def _state(file: Path) -> dict[str, Tensor]:
    """The state dict, float32, under torchaudio's names; tensors outside the encoder left out."""
    content = read_tensors(file)
    in_hf_form = not any(name.startswith("encoder.transformer.") for name in content)
    table = (*_HF_TO_TORCHAUDIO, *_RENAMED) if in_hf_form else _RENAMED
    renamed = {_rename(name, table): tensor.float() for name, tensor in content.items()}
    parts = ("feature_extractor.", "encoder.")
    return {name: tensor for name, tensor in renamed.items() if name.startswith(parts)}


def _rename(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def _norm_in_every_convolution(tensors: Mapping[str, Tensor]) -> bool:
    return "feature_extractor.conv_layers.1.layer_norm.weight" in tensors


def _guess_architecture(tensors: Mapping[str, Tensor]) -> Architecture:
    """What holds for every network of `torchaudio.pipelines` with such tensors."""
    large = _norm_in_every_convolution(tensors)
    return Architecture(
        heads=min(tensors[_POSITION].shape[0] // 64, 16),
        layer_norm_first=large,
        strides=STRIDES,
        normalise_eps=TORCHAUDIO_EPS if large else None,
    )


def _hf_architecture(folder: Path, guess: Architecture, model_type: str) -> Architecture:
    """What Hugging Face's configuration files say.

    Raises:
        ValueError: they are those of another network.
    """
    config = _HfConfig.model_validate_json((folder / "config.json").read_bytes())
    if config.model_type != model_type:
        raise ValueError(f"config.json has the model_type {config.model_type!r}")
    normalise = guess.normalise_eps is not None
    preprocessor = folder / "preprocessor_config.json"
    if preprocessor.exists():
        normalise = _HfPreprocessor.model_validate_json(preprocessor.read_bytes()).do_normalize
    return replace(
        guess,
        heads=config.num_attention_heads,
        layer_norm_first=config.do_stable_layer_norm,
        strides=config.conv_stride,
        normalise_eps=HF_EPS if normalise else None,
    )


def _build_net(tensors: Mapping[str, Tensor], architecture: Architecture) -> Any:  # noqa: ANN401
    """Torchaudio's Wav2Vec2Model with these weights.

    Raises:
        KeyError, ValueError, RuntimeError: tensors are missing, left over or of other shapes.
    """
    cpu_torch.install()
    from torchaudio.models import wav2vec2_model  # noqa: PLC0415  (slow to import)

    position = tensors[_POSITION]  # (D, D / groups, kernel)
    dim = position.shape[0]
    convolutions = [tensors[_CONV.format(at)] for at in range(len(architecture.strides))]
    net = wav2vec2_model(
        extractor_mode="layer_norm" if _norm_in_every_convolution(tensors) else "group_norm",
        extractor_conv_layer_config=[
            (weight.shape[0], weight.shape[2], stride)
            for weight, stride in zip(convolutions, architecture.strides, strict=True)
        ],
        extractor_conv_bias="feature_extractor.conv_layers.0.conv.bias" in tensors,
        encoder_embed_dim=dim,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=position.shape[2],
        encoder_pos_conv_groups=dim // position.shape[1],
        encoder_num_layers=sum(name.endswith(_LAYER.partition("{}")[2]) for name in tensors),
        encoder_num_heads=architecture.heads,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=tensors[_LAYER.format(0)].shape[0],
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=architecture.layer_norm_first,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    )
    net.load_state_dict(tensors)
    return net.eval()


def _receptive_field(kernels: list[int], strides: tuple[int, ...]) -> int:
    """Samples that one row sees."""
    return 1 + sum((kernel - 1) * prod(strides[:at]) for at, kernel in enumerate(kernels))
