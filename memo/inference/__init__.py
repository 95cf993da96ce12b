"""Using a tuned model: export it, load it with one call, predict on videos."""

from memo.inference.model import EmotionModel, load

__all__ = ["EmotionModel", "load"]
