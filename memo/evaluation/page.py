"""One self-contained HTML page: a few figures in words, tables, images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, select_autoescape

from data_pipeline.whole_file import write_atomically


class PageTable(NamedTuple):
    """A table: title ("" for none), names of the columns, and rows of as many cells."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        table: a row a run.
        draw: makes the figures, title and `data:` URL.
    """

    table: PageTable
    draw: Callable[[], list[tuple[str, str]]]


def run_names(runs: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, after those above it where several have the same."""
    parts = [run.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts))):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(run) for run in runs]


def write_page(
    folder: Path,
    summary: Sequence[tuple[str, str]],
    tables: Sequence[PageTable],
    figures: Sequence[tuple[str, str]],
) -> Path:
    """Write `report.html` into a run's folder, whole or not at all.

    Args:
        folder: of the run; its name is the page's, and its `config.yaml` stands at the end.
        summary: label and value.
        tables: in order.
        figures: title and `data:` URL.
    """
    environment = Environment(
        loader=PackageLoader("memo.evaluation", "."), autoescape=select_autoescape(default=True)
    )
    config = folder / "config.yaml"
    page = environment.get_template("page.html.j2").render(
        name=folder.resolve().name,
        summary=summary,
        tables=tables,
        figures=figures,
        config=config.read_text("utf8") if config.is_file() else "",
    )
    target = folder / "report.html"
    write_atomically(target, page.encode())
    return target
