"""Vocabularies of Hugging Face checkpoints: BERT's `vocab.txt`, or `tokenizer.json`."""

import io
import json
from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers

from memo.tokenizer.base import Tokenizer, find_special_ids

VOCAB_FILE: Final = "vocab.txt"
CONFIG_FILE: Final = "tokenizer_config.json"
JSON_FILE: Final = "tokenizer.json"

_UNKNOWN: Final = "[UNK]"
_KNOWN_MODELS: Final = ("WordPiece", "Unigram")


class BertCasing(BaseModel, strict=True):
    """How BERT's tokenizer normalises: `tokenizer_config.json`, with transformers' defaults.

    Attributes:
        do_lower_case: fold capitals.
        strip_accents: drop accents; null does so where capitals are folded.
        tokenize_chinese_chars: every Chinese character is a word of its own.
    """

    do_lower_case: bool = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer that the `tokenizers` library runs.

    It gives the numbers that transformers gives, with two exceptions: a text that spells a special
    piece is cut like any text, and vertical tabs and the like separate words.

    Args:
        backend: normaliser, pre-tokeniser, model and decoder.
        files: see `Tokenizer`.

    Raises:
        ValueError: a special piece is missing.
    """

    def __init__(self, backend: Backend, files: Mapping[str, bytes]) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._backend = backend
        vocabulary = backend.get_vocab(with_added_tokens=True)
        special = find_special_ids(vocabulary)
        apart = {special.pad, special.unk, special.cls, special.sep, special.mask}
        apart |= {n for n, token in backend.get_added_tokens_decoder().items() if token.special}
        apart |= {n for piece, n in vocabulary.items() if piece.startswith("[unused")}
        super().__init__(
            vocab_size=max(vocabulary.values()) + 1,
            special=special,
            normal_ids=sorted(set(vocabulary.values()) - apart),
            files=files,
        )

    def _cut(self, word: str) -> list[int]:
        return self._backend.encode(word, add_special_tokens=False).ids

    def _join(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=False)


def bert_tokenizer(vocab: bytes, casing: BertCasing) -> HuggingFaceTokenizer:
    """BERT's WordPiece over a `vocab.txt`, one piece a line (Devlin et al. 2019, arXiv 1810.04805).

    Raises:
        ValueError: not UTF-8, or a special piece is missing.
    """
    # Not str.splitlines, which splits at U+2028 as well.
    lines = io.StringIO(vocab.decode("utf8"), newline=None)
    numbers = {line.rstrip("\n"): n for n, line in enumerate(lines)}
    backend = Backend(models.WordPiece(numbers, unk_token=_UNKNOWN))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=casing.tokenize_chinese_chars,
        strip_accents=casing.strip_accents,
        lowercase=casing.do_lower_case,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    files = {VOCAB_FILE: vocab, CONFIG_FILE: casing.model_dump_json().encode()}
    return HuggingFaceTokenizer(backend, files)


def json_tokenizer(content: bytes) -> HuggingFaceTokenizer:
    """The tokenizer that a `tokenizer.json` describes.

    Raises:
        ValueError: not such a file, another model than WordPiece and Unigram, or a special piece is
            missing.
    """
    description = json.loads(content)
    model = description.get("model") if isinstance(description, dict) else None
    model = str(model.get("type")) if isinstance(model, dict) else None
    if model not in _KNOWN_MODELS:
        raise ValueError(f"its model is {model}; {' and '.join(_KNOWN_MODELS)} can be used")
    try:
        backend = Backend.from_buffer(content)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(str(error)) from error
    return HuggingFaceTokenizer(backend, {JSON_FILE: content})
