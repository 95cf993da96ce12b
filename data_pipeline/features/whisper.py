"""Whisper's encoder (Radford et al., 2022) as a frozen speech encoder.

Rows are taken from the output of layer 3: it carries words, while the last layer's output does so
less. The sound is not padded to 30 s, so a clip costs what its length asks for.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
        cpu_torch.install()
        from huggingface_hub.errors import StrictDataclassError  # noqa: PLC0415
        from transformers import WhisperConfig  # noqa: PLC0415  (slow to import)
        from transformers.audio_utils import mel_filter_bank  # noqa: PLC0415

        weights = folder / "model.safetensors"
        try:
            config = WhisperConfig(**json.loads((folder / "config.json").read_text("utf8")))
            tensors = load_file(weights)
        except (OSError, SafetensorError, StrictDataclassError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{folder} is no Whisper encoder ({reason})") from None
        self._net = _load_net(config, tensors, folder).to(device)
        filters = mel_filter_bank(
            1 + WINDOW // 2, config.num_mel_bins, 0.0, RATE / 2, RATE, "slaney", "slaney"
        )
        self._filters = torch.from_numpy(filters).float().to(device)  # (201, mels)
        self._device = device
        self.dim: int = config.d_model
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


def _load_net(config: Any, tensors: dict[str, Tensor], folder: Path) -> Any:  # noqa: ANN401
    """Transformers' WhisperEncoder with these weights and without the layers above `LAYER`."""
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Net  # noqa: PLC0415

    net = Net(config)
    short = {name.removeprefix("model.").removeprefix("encoder."): name for name in tensors}
    try:
        net.load_state_dict(
            {
                name: tensors[long].float()
                for name, long in short.items()
                if not name.startswith(("decoder.", "proj_out."))
            }
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{folder}: the weights do not fit config.json ({reason})") from None
    net.layers = net.layers[:LAYER]
    return net.eval()


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
