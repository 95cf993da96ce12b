"""Vocabularies in a SentencePiece model file: our own, and XLM-R's with its shifted numbers."""

from typing import Final

import sentencepiece

from memo.tokenizer.base import SpecialIds, Tokenizer, find_special_ids

MODEL_FILE: Final = "tokenizer.model"
XLM_R_FILE: Final = "sentencepiece.bpe.model"


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model that holds the special pieces, as `train_sentencepiece` makes them.

    Args:
        model: content of the model file.

    Raises:
        ValueError: no SentencePiece model, or one without the special pieces.
    """

    def __init__(self, model: bytes) -> None:
        self._processor = _load(model)
        size = len(self._processor)
        pieces: list[str] = self._processor.id_to_piece(list(range(size)))
        super().__init__(
            vocab_size=size,
            special=find_special_ids({piece: number for number, piece in enumerate(pieces)}),
            normal_ids=_normal_ids(self._processor),
            files={MODEL_FILE: model},
        )

    def _cut(self, word: str) -> list[int]:
        pieces: list[int] = self._processor.encode(word)
        return pieces

    def _join(self, ids: list[int]) -> str:
        return str(self._processor.decode(ids))


class XlmRobertaTokenizer(Tokenizer):
    """XLM-R's vocabulary: a SentencePiece model whose numbers fairseq shifted by one.

    The checkpoint's rows are <s>, <pad>, </s>, <unk>, the model's pieces from its fourth on, and
    <mask>; the model itself begins with <unk>, <s>, </s> (Conneau et al. 2020, arXiv 1911.02116).

    Args:
        model: content of `sentencepiece.bpe.model`.

    Raises:
        ValueError: no SentencePiece model, or one that does not begin as XLM-R's.
    """

    _SHIFT = 1
    _UNK = 3

    def __init__(self, model: bytes) -> None:
        self._processor = _load(model)
        size = len(self._processor)
        if self._processor.id_to_piece(list(range(min(size, 3)))) != ["<unk>", "<s>", "</s>"]:
            raise ValueError("it does not begin with <unk>, <s>, </s> as XLM-R's model does")
        super().__init__(
            vocab_size=size + self._SHIFT + 1,
            special=SpecialIds(pad=1, unk=self._UNK, cls=0, sep=2, mask=size + self._SHIFT),
            normal_ids=[number + self._SHIFT for number in _normal_ids(self._processor)],
            files={XLM_R_FILE: model},
        )

    def _cut(self, word: str) -> list[int]:
        numbers: list[int] = self._processor.encode(word)
        return [number + self._SHIFT if number else self._UNK for number in numbers]

    def _join(self, ids: list[int]) -> str:
        numbers = [0 if number == self._UNK else number - self._SHIFT for number in ids]
        return str(self._processor.decode(numbers))


def _load(model: bytes) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise ValueError("it is no SentencePiece model") from error
    return processor


def _normal_ids(processor: sentencepiece.SentencePieceProcessor) -> list[int]:
    """Numbers of the pieces that stand for text: not control, unknown, unused or single bytes."""
    numbers = list(range(len(processor)))
    flags = zip(
        processor.is_control(numbers),
        processor.is_unknown(numbers),
        processor.is_unused(numbers),
        processor.is_byte(numbers),
        strict=True,
    )
    return [number for number, apart in zip(numbers, flags, strict=True) if not any(apart)]
