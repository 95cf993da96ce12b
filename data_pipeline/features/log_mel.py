"""Log-mel: the energies of 80 mel bands, a speech encoder without weights.

Windows of 25 ms (Hann) every 10 ms, none of them padded; power; triangular bands of equal area from
0 to 8 kHz on Slaney's mel scale, as in librosa and Whisper; natural logarithm. As of every encoder,
the rows of 60 ms are averaged, here of 6 neighbours' logarithms: they see 75 ms.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline import cpu_torch
from data_pipeline.features.device import CPU
from data_pipeline.features.speech import RATE, SPEECH
from data_pipeline.registry import Weights

BANDS = 80
WINDOW = 400
HOP = 160
FLOOR = 1e-10
"""The least energy of which a logarithm is taken; digital silence has it."""


@SPEECH.register("log-mel", Weights.NONE)
class LogMel:
    """The filter bank.

    Args:
        weights: none.
        device: to encode on.
    """

    name = "log-mel"
    dim = BANDS
    rows_per_s = RATE / HOP
    sha256 = hashlib.sha256(
        f"log-mel, slaney, {RATE}, {BANDS}, {WINDOW}, {HOP}, {FLOOR}".encode()
    ).hexdigest()
    """Of what the rows depend on."""

    def __init__(self, weights: Path | None = None, device: torch.device = CPU) -> None:
        assert weights is None, "see Weights.NONE"
        cpu_torch.install()
        from torchaudio.functional import melscale_fbanks  # noqa: PLC0415  (slow to import)

        filters = melscale_fbanks(
            1 + WINDOW // 2, 0.0, RATE / 2, BANDS, RATE, norm="slaney", mel_scale="slaney"
        )
        self._device = device
        self._filters = filters.to(device)  # (201, 80)
        self._window = torch.hann_window(WINDOW, device=device)

    @torch.inference_mode()
    def encode(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sound (samples,) at 16 kHz -> rows (T, 80), 100 a second; T = 0 if it is too short."""
        if len(sound) < WINDOW:
            return np.empty((0, BANDS), dtype=np.float32)
        waveform = torch.from_numpy(sound).to(self._device)
        spectrum = torch.stft(
            waveform, WINDOW, HOP, window=self._window, center=False, return_complex=True
        )  # (201, T)
        energies = spectrum.abs().square().T @ self._filters  # (T, 80)
        return np.asarray(energies.clamp(min=FLOOR).log().cpu().numpy())
