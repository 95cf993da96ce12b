"""Log-mel against the textbook's formula in NumPy, and against torchaudio's transform."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_pipeline import cpu_torch
from data_pipeline.features.device import CPU
from data_pipeline.features.log_mel import BANDS, FLOOR, HOP, WINDOW, LogMel
from data_pipeline.features.speech import SPEECH
from data_pipeline.registry import ModelChoice

RATE = 16_000


def tone(hertz: float, seconds: float = 1.0) -> NDArray[np.float32]:
    times = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(0).normal(0, 0.01, len(times))
    return (0.3 * np.sin(2 * np.pi * hertz * times) + noise).astype(np.float32)


def hertz_of(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's scale: 200/3 Hz a mel up to 1 kHz, then 27 mel for a factor of 6.4."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def log_mel(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """The formula, window by window and band by band, in double precision."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    edges = hertz_of(np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), BANDS + 2))
    bins = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    rows = []
    for begin in range(0, len(sound) - WINDOW + 1, HOP):
        power = np.abs(np.fft.rfft(hann * sound[begin : begin + WINDOW])) ** 2
        row = []
        for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
            rise, fall = (bins - low) / (middle - low), (high - bins) / (high - middle)
            triangle = np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)
            row.append(np.log(max(triangle @ power, FLOOR)))
        rows.append(row)
    return np.array(rows)


def test_rows_are_the_formulas() -> None:
    encoder = SPEECH.load(ModelChoice("log-mel"), CPU)
    sound = tone(440)
    rows = encoder.encode(sound)
    assert rows.shape == (98, 80)
    assert rows.dtype == np.float32
    assert (encoder.rows_per_s, encoder.dim) == (100.0, 80)
    np.testing.assert_allclose(rows, log_mel(sound), atol=1e-3)


def test_rows_are_torchaudios() -> None:
    cpu_torch.install()
    from torchaudio.transforms import MelSpectrogram

    mel = MelSpectrogram(
        RATE, 400, hop_length=160, n_mels=80, norm="slaney", mel_scale="slaney", center=False
    )
    sound = tone(1700)
    expected = mel(torch.from_numpy(sound)).clamp(min=FLOOR).log().T
    torch.testing.assert_close(torch.from_numpy(LogMel().encode(sound)), expected)


def test_a_tone_is_loudest_in_its_band() -> None:
    middles = hertz_of(np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), BANDS + 2))[1:-1]
    for hertz in (300.0, 1000.0, 4000.0):
        loudest = LogMel().encode(tone(hertz)).mean(axis=0).argmax()
        assert abs(middles[loudest] - hertz) / hertz < 0.1


def test_silence_is_finite_and_no_missing_row() -> None:
    rows = LogMel().encode(np.zeros(1600, np.float32))
    np.testing.assert_allclose(rows, np.log(FLOOR), rtol=1e-6)
    assert np.isfinite(rows.astype(np.float16)).all()


@pytest.mark.parametrize(("samples", "count"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2)])
def test_only_whole_windows_are_rows(samples: int, count: int) -> None:
    assert LogMel().encode(np.ones(samples, np.float32)).shape == (count, 80)
