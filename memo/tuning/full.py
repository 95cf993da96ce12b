"""Full fine-tuning: every weight is trained (MEmoBERT, section 3.3)."""

from typing import ClassVar

from memo.tuning.base import TuningMode, register


@register
class Full(TuningMode):
    """Backbone and head."""

    name: ClassVar[str] = "full"

    def trains(self, name: str) -> bool:
        """All of them."""
        del name
        return True
