"""Forced alignment by a wav2vec 2.0 with a CTC head (Baevski et al., NeurIPS 2020), on letters.

Weights are a folder in the form of Hugging Face's `Wav2Vec2ForCTC`: what `wav2vec2.py` reads, with
`lm_head` in its tensors, and `vocab.json`. `tokenizer_config.json` names the blank and what stands
between words, `<pad>` and `|` if it is not there.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter
from torch import Tensor

from data_pipeline.errors import UserError
from data_pipeline.features.tensors import read_tensors
from data_pipeline.features.wav2vec2 import Wav2Vec2Encoder
from data_pipeline.transcribe.base import ALIGNERS, Miss, Span, files_sha256
from data_pipeline.transcribe.spelling import letters_of
from data_pipeline.transcribe.viterbi import CtcAlignment, ctc_align

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
WORST_SCORE = -2.0
"""Mean log-probability of a frame from the first letter to the last, after the thresholds of
CTC-segmentation (Kürzinger et al., SPECOM 2020); 32 letters by chance have -3.5."""


class _Tokenizer(BaseModel):
    """The part of `tokenizer_config.json` that matters, with Hugging Face's defaults."""

    model_config = ConfigDict(extra="ignore")

    pad_token: str = "<pad>"  # noqa: S105
    word_delimiter_token: str = "|"  # noqa: S105


@ALIGNERS.register("ctc", "wav2vec2-base-960h")
class CtcAligner:
    """The network, its head and its letters.

    Args:
        folder: see the module.

    Raises:
        UserError: a file is missing or is not of the form.
    """

    name = "ctc"
    language = ""

    def __init__(self, folder: Path) -> None:
        file = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
        if file is None:
            raise UserError(f"{folder} has none of {' and '.join(WEIGHTS)}; give a folder with one")
        self._net = Wav2Vec2Encoder(file)
        self._vocabulary, self._blank, self._delimiter = _read_vocabulary(folder)
        letters = max(self._vocabulary.values()) + 1
        self._weight, self._bias = _read_head(file, letters, self._net.dim)
        names = ("config.json", "preprocessor_config.json", "vocab.json", "tokenizer_config.json")
        files = [folder / name for name in names if (folder / name).exists()]
        self.sha256 = files_sha256([file, *files])

    def align(self, sound: NDArray[np.float32], words: Sequence[str]) -> list[Span] | Miss:
        """When each word is said; see `Aligner`."""
        spelled = [letters_of(word, self._letters) for word in words]
        if not all(spelled):
            return Miss.UNKNOWN_WORD
        labels, edges = self._labels([one or "" for one in spelled])
        log_probs = self.log_probs(sound)
        found = ctc_align(log_probs, labels, self._blank)
        if found is None or _score(log_probs, labels, found) < WORST_SCORE:
            return Miss.MISFIT
        rate = self._net.rows_per_s
        return [
            (float(found.begins[begin] / rate), float(found.ends[end - 1] / rate))
            for begin, end in edges
        ]

    @torch.inference_mode()
    def log_probs(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sound (samples,) at 16 kHz -> log-probabilities of the letters, (T, V)."""
        rows = torch.from_numpy(self._net.encode(sound))  # (T, D)
        logits = torch.nn.functional.linear(rows, self._weight, self._bias)
        return np.asarray(logits.log_softmax(dim=-1).numpy())

    @property
    def _letters(self) -> set[str]:
        """What words are spelled with; the blank may look like a letter, too."""
        letters = {one for one, at in self._vocabulary.items() if at != self._blank}
        return {one for one in letters if len(one) == 1} - {self._delimiter}

    def _labels(self, spelled: Sequence[str]) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
        """Numbers of all letters, (L,), with what stands between words; and each word's part."""
        between = [self._vocabulary[self._delimiter]] if self._delimiter in self._vocabulary else []
        labels: list[int] = []
        edges = []
        for word in spelled:
            labels += between if labels else []
            edges.append((len(labels), len(labels) + len(word)))
            labels += [self._vocabulary[letter] for letter in word]
        return np.array(labels), edges


def _score(log_probs: NDArray[np.float32], labels: NDArray[np.int64], found: CtcAlignment) -> float:
    """Mean log-probability of the labels' own frames."""
    frames = [
        log_probs[begin:end, label]
        for label, begin, end in zip(labels, found.begins, found.ends, strict=True)
    ]
    return float(np.concatenate(frames).mean())


def _read_vocabulary(folder: Path) -> tuple[dict[str, int], int, str]:
    """Letter -> number, the blank's number, and what stands between words."""
    config = folder / "tokenizer_config.json"
    try:
        content = json.loads((folder / "vocab.json").read_bytes())
        vocabulary = TypeAdapter(dict[str, int]).validate_python(content)
        tokenizer = _Tokenizer.model_validate_json(config.read_bytes() if config.exists() else "{}")
        blank = vocabulary[tokenizer.pad_token]
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{folder} has no vocabulary of a CTC model ({reason})") from None
    return vocabulary, blank, tokenizer.word_delimiter_token


def _read_head(file: Path, letters: int, dim: int) -> tuple[Tensor, Tensor]:
    """Weight (V, D) and bias (V,) of the layer over the encoder, V of `letters` or more."""
    tensors = read_tensors(file)
    weight, bias = tensors.get("lm_head.weight"), tensors.get("lm_head.bias")
    fit = weight is not None and bias is not None and weight.shape == (*bias.shape, dim)
    if weight is None or bias is None or not fit or len(weight) < letters:
        raise UserError(f"{file} has no lm_head for the {letters} letters of vocab.json")
    return weight.float(), bias.float()
