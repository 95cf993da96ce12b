"""`memo checkpoint ...`: look after the checkpoints of a run."""

from pathlib import Path
from typing import Annotated

import typer

checkpoint = typer.Typer(help="Look after the checkpoints of a run.", no_args_is_help=True)


@checkpoint.command()
def verify(
    place: Annotated[Path, typer.Argument(help="A checkpoint's folder, or a run's.")],
) -> None:
    """Compare every file with its hash; exit status 1 if a checkpoint is not whole."""
    from memo.training.upkeep import verify as verify_all  # noqa: PLC0415

    findings = verify_all(place)
    for finding in findings:
        typer.echo(str(finding))
    raise typer.Exit(1 if any(finding.fault for finding in findings) else 0)


@checkpoint.command()
def prune(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest stay.")],
    every: Annotated[
        int | None, typer.Option(min=1, help="Those at multiples of this step stay, too.")
    ] = None,
) -> None:
    """Remove older checkpoints, and broken ones; the last whole one always stays."""
    from memo.training.upkeep import prune as prune_all  # noqa: PLC0415

    for finding in prune_all(run, keep, every):
        typer.echo(f"removed {finding.folder}" + (f": {finding.fault}" if finding.fault else ""))


@checkpoint.command()
def average(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoints' folders, two or more.")],
    out: Annotated[Path, typer.Option(help="Run folder to make; must not exist.")],
) -> None:
    """Write a checkpoint whose weights are the mean of others', to tune from."""
    from memo.training.upkeep import average as average_all  # noqa: PLC0415

    typer.echo(f"wrote {average_all(checkpoints, out)}")
