"""The linear probe: what the frozen backbone already knows."""

from typing import ClassVar

from memo.heads.base import Head
from memo.heads.classifier import Classifier
from memo.tuning.base import Parts, TuningMode, register


@register
class Linear(TuningMode):
    """One linear layer on the pooled hidden state."""

    name: ClassVar[str] = "linear"

    def head(self, parts: Parts) -> Head:
        """A classifier of one layer."""
        spec, settings = parts.backbone.spec, parts.config.head
        return Classifier(
            spec, parts.classes, settings.pool, settings.layers, deep=False, dropout=0.0
        )

    def trains(self, name: str) -> bool:
        """The head alone."""
        return name.startswith("head.")
