"""Whisper (Radford et al., 2022) as a recogniser: greedy, without timestamps.

Weights are a folder in the form of Hugging Face's `WhisperForConditionalGeneration`: `config.json`,
`generation_config.json`, `model.safetensors` and the tokenizer's files.
"""

from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from torch import Tensor

from data_pipeline import cpu_torch
from data_pipeline.errors import UserError
from data_pipeline.features.whisper import LONGEST, Size, WhisperSizes, log_mel, mel_filters
from data_pipeline.transcribe.base import RECOGNISERS, Miss, Recognised, files_sha256

MOST_TOKENS = 224
"""Of a text, as in the publication: half of what the decoder can see."""
Layers: TypeAlias = Annotated[int, Field(gt=0, le=1000)]
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
"""Those of them that are there make the hash."""
UNUSABLE = (
    ImportError, OSError, RuntimeError, SafetensorError, TypeError, ValueError,
    LookupError, AttributeError,
)  # fmt: skip
"""What transformers raises of files that are missing or damaged."""


class _Sizes(WhisperSizes):
    """The part of `config.json` that the network depends on, with the same defaults."""

    encoder_layers: Layers = 4
    decoder_layers: Layers = 4
    decoder_attention_heads: Size = 6
    decoder_ffn_dim: Size = 1536
    max_target_positions: Annotated[Size, Field(ge=2 * MOST_TOKENS)] = 448
    vocab_size: Size = 51865
    tie_word_embeddings: bool = True


class _Generation(BaseModel):
    """The part of `generation_config.json` that matters; transformers does without a damaged one.

    Attributes:
        decoder_start_token_id: the first token of all.
        eos_token_id: the last.
        is_multilingual: whether it knows languages other than English.
        lang_to_id, task_to_id: token of each language and task, if so.
    """

    model_config = ConfigDict(extra="ignore")

    decoder_start_token_id: int
    eos_token_id: int
    is_multilingual: bool = False
    lang_to_id: dict[str, int] = {}
    task_to_id: dict[str, int] = {}

    @model_validator(mode="after")
    def _has_languages(self) -> Self:
        if self.is_multilingual and not (self.lang_to_id and "transcribe" in self.task_to_id):
            raise ValueError("generation_config.json names no tokens of languages and tasks")
        return self


@RECOGNISERS.register("whisper", "whisper-tiny")
class WhisperRecogniser:
    """The whole network.

    Args:
        folder: see the module.

    Raises:
        UserError: a file is missing, or the weights are not those of the configuration.
    """

    name = "whisper"

    def __init__(self, folder: Path) -> None:
        if not (folder / "generation_config.json").is_file():
            raise UserError(f"{folder} is no Whisper with its decoder: no generation_config.json")
        try:
            content = (folder / "generation_config.json").read_bytes()
            generation = _Generation.model_validate_json(content)
            sizes = _Sizes.model_validate_json((folder / "config.json").read_bytes())
            self._net, self._tokenizer = _load(folder, sizes)
            if self._tokenizer.eos_token_id != generation.eos_token_id:
                raise ValueError("the tokenizer's files are missing, or of another model")
        except UNUSABLE as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{folder} is no Whisper with its decoder ({reason})") from None
        several = generation.is_multilingual
        self._languages = generation.lang_to_id if several else {}
        self.language = "" if several else "en"
        self._filters = mel_filters(sizes.num_mel_bins)
        self.sha256 = files_sha256([folder / name for name in FILES if (folder / name).exists()])

    @torch.inference_mode()
    def recognise(self, sound: NDArray[np.float32], language: str) -> Recognised | Miss:
        """The text of speech, in the language given or heard; see `Recogniser`."""
        padded = np.pad(sound[:LONGEST], (0, LONGEST - min(len(sound), LONGEST)))
        mel = log_mel(torch.from_numpy(padded), self._filters).unsqueeze(0)  # (1, mels, 3000)
        options: dict[str, Any] = {}
        if self._languages:
            language = language or self._heard_language(mel)
            if f"<|{language}|>" not in self._languages:
                return Miss.LANGUAGE
            options = {"language": language, "task": "transcribe"}
        tokens = self._net.generate(
            mel, do_sample=False, num_beams=1, max_new_tokens=MOST_TOKENS, **options
        )
        text = " ".join(self._tokenizer.decode(tokens[0], skip_special_tokens=True).split())
        return Recognised(text, language or self.language) if text else Miss.NOTHING

    def _heard_language(self, mel: Tensor) -> str:
        """The most likely language's code."""
        token = int(self._net.detect_language(input_features=mel)[0])
        names = {number: name for name, number in self._languages.items()}
        return names[token].strip("<|>")


def _load(folder: Path, sizes: _Sizes) -> tuple[Any, Any]:
    """Transformers' network and tokenizer, of local files alone.

    Raises:
        Exception: one of `UNUSABLE`, if they cannot be loaded.
    """
    cpu_torch.install()
    from transformers import (  # noqa: PLC0415  (slow to import)
        WhisperConfig,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )

    net, notes = WhisperForConditionalGeneration.from_pretrained(
        folder,
        config=WhisperConfig(**sizes.model_dump(), pad_token_id=None),
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    if missing := sorted(notes["missing_keys"]):
        raise ValueError(f"the weights lack {missing[0]} and {len(missing) - 1} others")
    return net.float().eval(), WhisperTokenizer.from_pretrained(folder, local_files_only=True)
