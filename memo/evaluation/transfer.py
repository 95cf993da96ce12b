"""What a learner keeps and passes on: figures of the matrix R of continual learning.

R[s][i] is the score on task i of the model that exists after stage s, in which task s was learned;
R[0] is that of the model before any (Lopez-Paz and Ranzato, NeurIPS 2017; Chaudhry et al., ECCV
2018). The last row is what counts: scores of each task's own best model say nothing about
forgetting.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Transfer:
    """Figures of one R.

    Attributes:
        average: mean of the last row.
        forgetting: mean over the earlier tasks of their best score, from when they were learned on
            and before the last stage, less that after it; positive is bad.
        backward: mean over the earlier tasks of the last score less that right after learning.
        forward: mean over the later tasks of the score before learning less that of the model
            before any; None if no stage precedes them.
    """

    average: float
    forgetting: float | None
    backward: float | None
    forward: float | None

    def to_json(self) -> dict[str, float | None]:
        """The figures by name."""
        return asdict(self)


def transfer(matrix: NDArray[np.float64]) -> Transfer:
    """The figures of R, float64 (stages + 1, tasks), row 0 before any task.

    One stage alone, in which all tasks are learned at once, has only an average.
    """
    last = matrix[-1]
    stages, tasks = len(matrix) - 1, matrix.shape[1]
    if stages != tasks or tasks == 1:
        return Transfer(float(last.mean()), None, None, None)
    earlier = range(tasks - 1)
    best = [matrix[task + 1 : -1, task].max() for task in earlier]
    return Transfer(
        average=float(last.mean()),
        forgetting=float(np.mean([best[task] - last[task] for task in earlier])),
        backward=float(np.mean([last[task] - matrix[task + 1, task] for task in earlier])),
        forward=float(np.mean([matrix[task, task] - matrix[0, task] for task in range(1, tasks)])),
    )
