"""A folder or a file -> the tokenizer in it."""

from pathlib import Path
from typing import Final

from data_pipeline.errors import UserError
from memo.tokenizer.base import Tokenizer
from memo.tokenizer.hugging_face import (
    CONFIG_FILE,
    JSON_FILE,
    VOCAB_FILE,
    BertCasing,
    bert_tokenizer,
    json_tokenizer,
)
from memo.tokenizer.sentence_piece import (
    MODEL_FILE,
    XLM_R_FILE,
    SentencePieceTokenizer,
    XlmRobertaTokenizer,
)

KNOWN_FILES: Final = (MODEL_FILE, XLM_R_FILE, VOCAB_FILE, JSON_FILE)
"""What a folder is searched for, first come first served."""


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer: one of ours, or that of a BERT, MiniLM or XLM-R checkpoint.

    Args:
        path: a folder with `tokenizer.model`, `sentencepiece.bpe.model`, `vocab.txt` or
            `tokenizer.json`, or such a file; a `.model` of another name is read as one of ours.

    Raises:
        UserError: nothing there, or not a tokenizer that can be used.
    """
    file = _find(path)
    try:
        return _read(file)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is no usable tokenizer: {reason}") from error


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"no tokenizer at {path}; train one with `memo data tokenizer`")
    for name in KNOWN_FILES:
        if (path / name).is_file():
            return path / name
    raise UserError(f"no tokenizer in {path}: none of {', '.join(KNOWN_FILES)}")


def _read(file: Path) -> Tokenizer:
    content = file.read_bytes()
    if file.name == XLM_R_FILE:
        return XlmRobertaTokenizer(content)
    if file.suffix == ".model":
        return SentencePieceTokenizer(content)
    if file.suffix == ".txt":
        config = file.with_name(CONFIG_FILE)
        casing = BertCasing.model_validate_json(config.read_bytes() if config.is_file() else b"{}")
        return bert_tokenizer(content, casing)
    if file.suffix == ".json":
        return json_tokenizer(content)
    raise ValueError(f"its name should be one of {', '.join(KNOWN_FILES)}")
