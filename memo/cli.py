"""The `memo` command: each sub-command is a thin call of the module that does the work."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from data_pipeline.errors import UserError
from memo.data_cli import data

app = typer.Typer(
    help="Pretraining and fine-tuning for multimodal emotion recognition.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data, name="data")


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint folder, or a run's folder.")],
    dataset: Annotated[Path, typer.Argument(help="A folder with dataset.json.")],
    split: Annotated[str, typer.Option(help="Split to evaluate on.")] = "valid",
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
) -> None:
    """Show each objective's metric under each set of visible modalities, beside baselines."""
    from memo.evaluation.evaluate import run_evaluation  # noqa: PLC0415

    run_evaluation(checkpoint, dataset, split, json)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
) -> None:
    """Write RUN/report.html: curves and objectives, or folds, confusions and mistakes."""
    from memo.evaluation.report import write_report  # noqa: PLC0415
    from memo.evaluation.tuning_report import write_tuning_report  # noqa: PLC0415

    tuned = (run / "results.json").is_file()
    typer.echo(f"wrote {write_tuning_report(run) if tuned else write_report(run)}")


def main() -> None:
    """Run the command; a user's mistake is one line on stderr and exit status 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"memo: {error}", err=True)
        sys.exit(2)
    except OSError as error:  # no space, no permission, a file where a folder should be
        typer.echo(f"memo: {error.strerror}: {error.filename or 'a file'}", err=True)
        sys.exit(2)
