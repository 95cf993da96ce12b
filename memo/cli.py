"""The `memo` command: each sub-command is a thin call of the module that does the work."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from data_pipeline.errors import UserError
from data_pipeline.shards.place import parse_place
from memo import predict_options as options
from memo.checkpoint_cli import checkpoint
from memo.data_cli import data
from memo.slurm_cli import slurm

app = typer.Typer(
    help="Pretraining and fine-tuning for multimodal emotion recognition.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data, name="data")
app.add_typer(checkpoint, name="checkpoint")
app.add_typer(slurm, name="slurm")


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint folder, or a run's folder.")],
    dataset: Annotated[str, typer.Argument(help="A folder with dataset.json, or its URL.")],
    split: Annotated[str, typer.Option(help="Split to evaluate on.")] = "valid",
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
) -> None:
    """Show each objective's metric under each set of visible modalities, beside baselines."""
    from memo.evaluation.evaluate import run_evaluation  # noqa: PLC0415

    run_evaluation(checkpoint, parse_place(dataset), split, json)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
) -> None:
    """Write RUN/report.html: curves and objectives, or folds, confusions and mistakes."""
    from memo.evaluation.report import write_report  # noqa: PLC0415
    from memo.evaluation.tuning_report import write_tuning_report  # noqa: PLC0415

    tuned = (run / "results.json").is_file()
    typer.echo(f"wrote {write_tuning_report(run) if tuned else write_report(run)}")


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Tuning runs of one task, sequence or system.")
    ],
    out: Annotated[Path | None, typer.Option(help="Also write a page and JSON here.")] = None,
) -> None:
    """Show tuning runs side by side, each tested against the first, answers or folds in pairs."""
    from memo.evaluation.compare import compare_runs  # noqa: PLC0415

    compare_runs(runs, out)


@app.command(name="import")
def import_(
    source: Annotated[Path, typer.Argument(help="A Hugging Face BERT, XLM-R or MiniLM folder.")],
    out: Annotated[Path, typer.Option(help="Run folder to make; must not exist.")],
) -> None:
    """Make a text model of others a checkpoint, to tune tasks of text alone from."""
    from memo.training.import_text import import_text  # noqa: PLC0415

    typer.echo(f"wrote {import_text(source, out)}")


@app.command()
def predict(
    model: options.Model,
    files: options.Files,
    task: options.Task = None,
    text: options.Text = None,
    subtitles: options.Subtitles = None,
    encoding: options.Encoding = "utf-8",
    language: options.Language = "",
    json: options.JsonOut = None,
    html: options.HtmlOut = None,
    face: options.Face = None,
    face_weights: options.FaceWeights = None,
    speech: options.Speech = None,
    speech_weights: options.SpeechWeights = None,
    detector_weights: options.DetectorWeights = None,
    pretrained: options.Pretrained = None,
    image_weights: options.ImageWeights = None,
) -> None:
    """Show the emotion and probability of every utterance, text or post; say what was not there."""
    from data_pipeline.corpora.transcript_names import wanted_languages  # noqa: PLC0415
    from data_pipeline.encoding import known_encoding  # noqa: PLC0415
    from memo.inference.command import Wanted, run_command  # noqa: PLC0415
    from memo.inference.encoders import Given, GivenEncoders  # noqa: PLC0415
    from memo.inference.utterances import Said  # noqa: PLC0415

    encoders = GivenEncoders(
        Given(face, face_weights), Given(speech, speech_weights), detector_weights
    )
    said = Said(text, subtitles, known_encoding(encoding), wanted_languages(language))
    run_command(model, files, Wanted(said, encoders, task, pretrained, image_weights, json, html))


@app.command()
def export(
    tuned: Annotated[Path, typer.Argument(help="A tuned artifact, or a run with a single one.")],
    out: Annotated[Path, typer.Option(help="Folder to make; must not exist.")],
    pretrained: Annotated[
        Path | None, typer.Option(help="Its backbone; where it was trained from if not given.")
    ] = None,
) -> None:
    """Write a tuned model with its backbone, tokenizer, classes and card as one folder."""
    from memo.inference.export import export_model  # noqa: PLC0415

    export_model(tuned, pretrained, out)
    typer.echo(f"wrote {out}")


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
