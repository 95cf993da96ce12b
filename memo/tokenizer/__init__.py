"""Text -> pieces: SentencePiece, BERT WordPiece and XLM-R vocabularies behind one interface."""

from memo.tokenizer.base import TokenizedText, Tokenizer
from memo.tokenizer.loading import load_tokenizer
from memo.tokenizer.training import train_sentencepiece

__all__ = ["TokenizedText", "Tokenizer", "load_tokenizer", "train_sentencepiece"]
