"""When the loss has left its course, so that the run goes back to an earlier checkpoint.

As PaLM was trained through its spikes (Chowdhery et al., 2022, section 5.1): begin again from a
checkpoint of before the spike, and leave out the data that were seen in between. Whether a step
belongs to a spike follows from the losses alone, which all ranks share and checkpoints keep, so a
run that was stopped on the way goes back at the same step.
"""

import math
import statistics
from collections.abc import Collection
from dataclasses import dataclass, replace

from memo.config import RollBack

NORMAL = 1.4826
"""Standard deviation of normal numbers of which the median absolute deviation is 1."""


@dataclass(frozen=True)
class LossRecord:
    """What a spike is told by.

    Attributes:
        recent: losses of the last steps that were on course, at most `window` of them.
        high: how many of the last steps in a row were above the limit, or not finite.
    """

    recent: tuple[float, ...] = ()
    high: int = 0

    def limit(self, settings: RollBack) -> float:
        """A higher loss has left its course; infinite as long as too few losses are known."""
        if len(self.recent) < settings.window:
            return math.inf
        middle = statistics.median(self.recent)
        spread = statistics.median(abs(loss - middle) for loss in self.recent)
        return middle + settings.deviations * NORMAL * spread

    def after(self, loss: float, settings: RollBack) -> "LossRecord":
        """The record when a step had this loss; what is not finite is high."""
        if not loss <= self.limit(settings) or not math.isfinite(loss):
            return replace(self, high=self.high + 1)
        return LossRecord((*self.recent, loss)[-settings.window :], 0)

    def is_spike(self, settings: RollBack) -> bool:
        """Whether so many steps in a row were high that the run is to go back."""
        return self.high >= settings.steps


def step_before(saved: Collection[int], step: int, high: int) -> int | None:
    """The step to go back to: the newest saved one from before the loss rose.

    Args:
        saved: steps of the checkpoints.
        step: taken last.
        high: how many of the last ones were high, this one included.
    """
    return max((one for one in saved if one <= step - high), default=None)
