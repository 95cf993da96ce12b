"""What a tuning run has left: `results.json`, and a record of each fold with each seed."""

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from data_pipeline.errors import UserError

RESULTS = "results.json"


def read_results(run: Path) -> dict[str, Any]:
    """The content of a run's `results.json`.

    Raises:
        UserError: the run is not done, or somebody else has written the file.
    """
    path = run / RESULTS
    if not path.is_file():
        raise UserError(f"there is no {path}; give the folder of a tuning run that is done")
    try:
        found: Any = json.loads(path.read_text("utf8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    if not isinstance(found, dict) or not {"task", "tasks"} & found.keys():
        raise UserError(f"{path} is none of a tuning run")
    return found


def read_records(run: Path) -> list[dict[str, Any]]:
    """The records of all folds and seeds that are done, whoever has run them; in their order."""
    records = [json.loads(path.read_text("utf8")) for path in run.glob("folds/*/result.json")]
    return sorted(records, key=lambda one: (one["fold"], one["seed"]))


def finished_records(run: Path, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of a run of which nothing is missing: every fold with every seed, summed up.

    Args:
        run: its folder.
        results: the content of its `results.json`.

    Raises:
        UserError: folds or seeds were added, and not all of them are done.
    """
    records = read_records(run)
    done = {(one["fold"], one["seed"]) for one in records}
    folds, seeds = (sorted({place[at] for place in done}) for at in (0, 1))
    if missing := set(product(folds, seeds)) - done:
        fold, seed = min(missing)
        raise UserError(
            f"{run} has fold {fold} without seed {seed}; finish it with folds={folds} "
            f"seeds={seeds}, or remove its other results of seed {seed} and run its command again"
        )
    if len(records) != results["runs"]:
        raise UserError(
            f"{run} has {len(records)} folds and seeds that are done, its {RESULTS} sums up "
            f"{results['runs']}; finish it: run its command again"
        )
    return records
