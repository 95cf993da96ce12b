"""The tokenizer that may lie beside `dataset.json`; of its files nothing is known here but names.

Who trains on the dataset takes it from there unless another one is named.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from data_pipeline.cache_folder import cache_folder
from data_pipeline.errors import UserError
from data_pipeline.whole_file import write_atomically

TOKENIZER = "tokenizer"
"""Name of the folder."""

TOKENIZER_FILES = (
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "tokenizer_config.json",
    "tokenizer.json",
)
"""What is looked for in it where it cannot be listed, on a server."""

MOST_TOKENIZER = 1 << 26
"""Bytes of a file in it; XLM-R's 250,000 pieces take 17 MB."""


def keep_tokenizer(files: Mapping[str, bytes]) -> Path:
    """Write the files of a tokenizer into the cache, in a folder named after what they hold.

    Args:
        files: name -> content.

    Raises:
        UserError: the cache cannot be written.
    """
    listed = "".join(f"{sha256(files[name]).hexdigest()} {name}\n" for name in sorted(files))
    folder = cache_folder() / "tokenizers" / sha256(listed.encode()).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise UserError(
            f"{folder} cannot take a tokenizer: {error.strerror}; make room, or set MEMO_CACHE to "
            "another folder"
        ) from None
    return folder
