"""Train a SentencePiece vocabulary on texts (Kudo 2018, arXiv 1804.10959: the unigram model)."""

import io
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from data_pipeline.errors import UserError
from memo.tokenizer.normalization import write_rules
from memo.tokenizer.sentence_piece import SentencePieceTokenizer

_BYTES_FROM: Final = 1024
"""Smallest vocabulary with room for the 256 pieces of single bytes."""

_LONGEST_LINE: Final = 2**30
"""Bytes; SentencePiece drops longer lines, and its default is 4,192."""


def train_sentencepiece(texts: Iterable[str], out: Path, vocab_size: int) -> SentencePieceTokenizer:
    """Train a vocabulary and save it.

    [PAD], [UNK], [CLS], [SEP], [MASK] are the pieces 0 to 4. Capitals are folded, as in MEmoBERT's
    uncased BERT. From 1,024 pieces on, the rarest 0.05 % of the characters are spelt in bytes, so
    that nothing is unknown; a smaller vocabulary holds every character of the texts, and others are
    unknown. The same words give the same bytes, in whatever order the texts come (under one version
    of Python: the table of characters is Python's).

    Args:
        texts: any number of texts; only their words and how often each comes matter.
        out: folder to write `tokenizer.model` to; made if missing.
        vocab_size: most pieces; a small corpus gives fewer.

    Raises:
        UserError: no words, or too few pieces for the characters of the texts.
    """
    counts = Counter(word for text in texts for word in text.split())
    if not counts:
        raise UserError(f"no text to train the tokenizer {out} on; give a dataset with transcripts")
    try:
        model = _train(_lines(counts), vocab_size)
    except RuntimeError as error:
        raise UserError(_explain(str(error), vocab_size)) from error
    tokenizer = SentencePieceTokenizer(model)
    tokenizer.save(out)
    return tokenizer


def _lines(counts: Counter[str]) -> Iterator[str]:
    """One line a word, repeated as often as it comes.

    SentencePiece takes as candidates only strings that are followed by different things. In running
    text of few words (a command grammar) a word is always followed by a space, and no whole word
    would ever become a piece; here it is followed by a space or by the end of the line.
    """
    for word, count in sorted(counts.items()):
        yield " ".join([word.encode("utf8", "replace").decode("utf8")] * count)


def _train(lines: Iterator[str], vocab_size: int) -> bytes:
    """Content of the model file."""
    in_bytes = vocab_size >= _BYTES_FROM
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.tsv"
        write_rules(rules)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            byte_fallback=in_bytes,
            character_coverage=0.9995 if in_bytes else 1.0,
            normalization_rule_tsv=str(rules),
            max_sentence_length=_LONGEST_LINE,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            pad_piece="[PAD]",
            unk_piece="[UNK]",
            control_symbols=["[CLS]", "[SEP]", "[MASK]"],
            num_threads=1,  # sums in a fixed order: the same bytes every time
            minloglevel=2,
        )
    return _without_path(model.getvalue())


def _without_path(model: bytes) -> bytes:
    """The model without the name of the temporary file of rules, which changes every time."""
    parsed = sentencepiece_model_pb2.ModelProto.FromString(model)
    parsed.normalizer_spec.ClearField("normalization_rule_tsv")
    return bytes(parsed.SerializeToString(deterministic=True))


def _explain(message: str, vocab_size: int) -> str:
    needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if needed:
        return (
            f"{vocab_size} pieces are too few: the characters of the texts alone need {needed[1]}"
        )
    return f"SentencePiece cannot train on these texts: {message.splitlines()[0]}"
