"""Whisper's encoder (Radford et al., 2022) as a frozen speech encoder.

Rows are taken from the output of layer 3: it carries words, while the last layer's output does so
less. The sound is not padded to 30 s, so a clip costs what its length asks for.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from data_pipeline import cpu_torch
from data_pipeline.errors import UserError
from data_pipeline.features.device import CPU
from data_pipeline.features.speech import RATE, SPEECH
from data_pipeline.shards.index import file_sha256

LAYER = 3
WINDOW = 400
HOP = 160
LONGEST = 30 * RATE
"""The position table ends here; longer sound is encoded in pieces."""
Size: TypeAlias = Annotated[int, Field(gt=0, le=1 << 20)]


class WhisperSizes(BaseModel):
    """The part of `config.json` that the encoder's layers depend on, with Hugging Face's defaults.

    What else stands there may be anything.
    """

    model_config = ConfigDict(extra="ignore")

    d_model: Size = 384
    encoder_attention_heads: Size = 6
    encoder_ffn_dim: Size = 1536
    num_mel_bins: Size = 80
    max_source_positions: Annotated[Size, Field(ge=LONGEST // (2 * HOP))] = 1500
    activation_function: Literal["gelu"] = "gelu"


@SPEECH.register("whisper", "whisper-tiny.en-encoder")
class WhisperEncoder:
    """The encoder with the weights of a folder.

    Args:
        folder: `config.json` and `model.safetensors` in Hugging Face's form, of the encoder alone
            or of a whole Whisper, whose decoder is left out.
        device: to encode on.

    Raises:
        UserError: a file is missing, or the weights are not those of the configuration.
    """

    name = "whisper"
    rows_per_s = 50.0

    def __init__(self, folder: Path, device: torch.device = CPU) -> None:
        weights = folder / "model.safetensors"
        try:
            sizes = WhisperSizes.model_validate_json((folder / "config.json").read_bytes())
            tensors = load_file(weights)
        except (OSError, SafetensorError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{folder} is no Whisper encoder ({reason})") from None
        self._net = _load_net(sizes, tensors, folder).to(device)
        self._filters = mel_filters(sizes.num_mel_bins).to(device)
        self._device = device
        self.dim = sizes.d_model
        self.sha256 = file_sha256(weights)

    @torch.inference_mode()
    def encode(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sound (samples,) at 16 kHz -> rows (T, dim), 50 a second."""
        pieces = torch.split(torch.from_numpy(sound).to(self._device), LONGEST)
        rows = [self._encode_piece(piece) for piece in pieces if len(piece) > WINDOW]
        if not rows:
            return np.empty((0, self.dim), dtype=np.float32)
        return torch.cat(rows).cpu().numpy()

    def _encode_piece(self, sound: Tensor) -> Tensor:
        mel = log_mel(sound, self._filters).unsqueeze(0)  # (1, mels, frames)
        net = self._net
        hidden = torch.nn.functional.gelu(net.conv1(mel))
        hidden = torch.nn.functional.gelu(net.conv2(hidden)).transpose(1, 2)  # (1, T, D)
        hidden = hidden + net.embed_positions.weight[: hidden.shape[1]]
        for layer in net.layers:
            hidden = layer(hidden, None)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        rows: Tensor = hidden.squeeze(0)
        return rows


def _load_net(sizes: WhisperSizes, tensors: dict[str, Tensor], folder: Path) -> Any:  # noqa: ANN401
    """Transformers' WhisperEncoder with these weights and without the layers above `LAYER`."""
    cpu_torch.install()
    from transformers import WhisperConfig  # noqa: PLC0415  (slow to import)
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Net  # noqa: PLC0415

    short = {name.removeprefix("model.").removeprefix("encoder."): name for name in tensors}
    try:
        with torch.device("meta"):  # sizes that are not the weights' take no memory
            net = Net(WhisperConfig(**sizes.model_dump(), encoder_layers=LAYER))
        net.load_state_dict(
            {name: tensors[long].float() for name, long in short.items() if _is_used(name)},
            assign=True,
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{folder}: the weights do not fit config.json ({reason})") from None
    return net.eval()


def _is_used(name: str) -> bool:
    """Whether a tensor is of the encoder up to `LAYER`."""
    if match := re.match(r"layers\.(\d+)\.", name):
        return int(match[1]) < LAYER
    return not name.startswith(("decoder.", "proj_out."))


def mel_filters(mels: int) -> Tensor:
    """Whisper's mel filters, float32 (201, mels)."""
    from transformers.audio_utils import mel_filter_bank  # noqa: PLC0415  (slow to import)

    bank = mel_filter_bank(1 + WINDOW // 2, mels, 0.0, RATE / 2, RATE, "slaney", "slaney")
    return torch.from_numpy(bank).float()


def log_mel(sound: Tensor, filters: Tensor) -> Tensor:
    """Whisper's log-mel spectrogram, without padding to 30 s.

    Args:
        sound: float32 (samples,).
        filters: float32 (201, mels), mel filters.

    Returns:
        float32 (mels, frames), 100 frames a second.
    """
    window = torch.hann_window(WINDOW, device=sound.device)
    spectrum = torch.stft(sound, WINDOW, HOP, window=window, return_complex=True)  # (201, frames)
    power = spectrum[:, :-1].abs() ** 2
    mel = (filters.T @ power).clamp(min=1e-10).log10()
    return (mel.clamp(min=float(mel.max()) - 8) + 4) / 4
