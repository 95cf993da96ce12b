"""`memo compare`: runs side by side."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_pipeline.errors import UserError
from data_pipeline.whole_file import write_atomically
from memo.evaluation.compare_sequences import compare_sequences
from memo.evaluation.compare_tuned import compare_tuned
from memo.evaluation.page import Comparison, write_page
from memo.evaluation.records import read_results
from memo.evaluation.systems import compare_systems

WIDE = 200
"""Columns of a table in a file or a pipe."""


def compare_runs(runs: Sequence[Path], out: Path | None) -> None:
    """Print a table; write a page with plots into a folder, and the figures as JSON.

    Args:
        runs: folders of runs that are done: of one task, or of one sequence of tasks; the others
            are tested against the first.
        out: folder to write to.

    Raises:
        UserError: a run is not done, or they cannot be compared.
    """
    if len(runs) < 2:
        raise UserError("give two runs or more")
    results = [read_results(run) for run in runs]
    learned = [_learned(one) for one in results]
    for run, one in zip(runs, learned, strict=True):
        if one != learned[0]:
            raise UserError(f"{run} learned {one}, {runs[0]} {learned[0]}; compare like with like")
    show_comparison(_KINDS[learned[0]](runs, results), out)


_KINDS = {
    "one task": compare_tuned,
    "a sequence of tasks": compare_sequences,
    "several tasks at once": compare_systems,
}


def _learned(results: Mapping[str, Any]) -> str:
    """What kind of run it was."""
    if "system" in results:
        return "several tasks at once"
    return "a sequence of tasks" if "tasks" in results else "one task"


def show_comparison(found: Comparison, out: Path | None) -> None:
    """Print the table; write `report.html` and `comparison.json` into a folder."""
    title, head, rows = found.table
    table = Table(title=title)
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    console.print(table)
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    page = write_page(out, [], [found.table], found.draw())
    content = json.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=1)
    write_atomically(out / "comparison.json", content.encode())
    console.print(f"wrote {page}", highlight=False, soft_wrap=True)
