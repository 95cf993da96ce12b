"""How a rank ends: what it tells of a user's mistake, and with which status."""

import os
import sys
from collections.abc import Callable

from data_pipeline.errors import AgreedError, UserError
from memo.training.signals import INTERRUPTED, leave_in_peace


def told_status(program: str, run: Callable[[], int]) -> int:
    """The exit status of a run; a user's mistake is one line on stderr and 2, Ctrl-C is 130.

    A mistake that all ranks have met is told by the first alone. A launcher that ends the others
    when one leaves does not change a status that says something.

    Args:
        program: begins the line.
        run: returns its status.
    """
    try:
        status = run()
    except UserError as error:
        if not isinstance(error, AgreedError) or os.environ.get("RANK", "0") == "0":
            print(f"{program}: {error}", file=sys.stderr)  # noqa: T201
        status = 2
    except KeyboardInterrupt:  # the second, see `StopSignals`
        status = INTERRUPTED
    if status:
        leave_in_peace()
    return status
