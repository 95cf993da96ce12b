"""`memo data ...`: make, describe, check and repair datasets."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from data_pipeline.errors import UserError
from data_pipeline.shards.place import Url, parse_place
from data_pipeline.shards.tokenizer import TOKENIZER
from memo import build_options as options

data = typer.Typer(help="Make, describe, check and repair datasets.", no_args_is_help=True)

Dataset = Annotated[str, typer.Argument(help="A folder with dataset.json, or its URL.")]
Out = Annotated[Path, typer.Option(help="Folder to make; must not exist.")]


@data.command()
def demo(
    out: Out = Path("datasets/demo"),
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
) -> None:
    """Generate the demo corpus: text, face and speech share hidden words and an emotion."""
    from data_pipeline.corpora.demo import write_demo  # noqa: PLC0415

    write_demo(out, seed=seed)
    typer.echo(f"wrote {out}")


@data.command()
def build(
    context: typer.Context,
    corpus: options.Corpus,
    source: options.Source,
    out: Out,
    transcripts: options.Transcripts = None,
    encoding: options.Encoding = None,
    language: options.Language = None,
    speaker_folder: options.SpeakerFolder = None,
    licence: options.Licence = None,
    valid_share: options.ValidShare = None,
    face: options.Face = "denseface",
    face_weights: options.FaceWeights = None,
    detector_weights: options.DetectorWeights = None,
    speech: options.Speech = "whisper",
    speech_weights: options.SpeechWeights = None,
    device: options.Device = "auto",
    recognise: options.Recognise = None,
    recognise_weights: options.WordWeights = None,
    align: options.Align = None,
    align_weights: options.WordWeights = None,
    min_words: options.MinWords = None,
    min_duration_s: options.MinDuration = None,
    max_duration_s: options.MaxDuration = None,
    min_speech_dbfs: options.MinSpeech = None,
    min_face_share: options.MinFaceShare = None,
    min_speaker_score: options.MinSpeakerScore = None,
    require: options.Require = None,
    name: options.Name = None,
    workers: options.Workers = 2,
    samples_per_shard: options.SamplesPerShard = 100,
    max_broken: options.MaxBroken = 100,
    part: options.Part = None,
) -> None:
    """Decode and encode a raw corpus into shards; a stopped build goes on where it was."""
    from memo.build_command import build_settings, run_build  # noqa: PLC0415

    run_build(build_settings(context.params))  # the parameters above, as 'slurm submit' has them


@data.command()
def check(dataset: Dataset) -> None:
    """Verify hashes, structure and every member; exit status 1 if there is a problem."""
    from data_pipeline.shards.check import check_dataset  # noqa: PLC0415

    counts: Counter[str] = Counter()
    for problem in check_dataset(parse_place(dataset)):
        typer.echo(str(problem))
        counts[problem.fault] += 1
    for fault, count in counts.most_common():
        typer.echo(f"{fault:<28} {count:,}")
    found = f"{counts.total():,} problems found; 'memo data repair' saves what is sound"
    typer.echo(f"{dataset}: {found if counts else 'whole'}")
    raise typer.Exit(1 if counts else 0)


@data.command()
def repair(dataset: Dataset, out: Out) -> None:
    """Write what can be saved of a damaged dataset into a new one; the old one stays as it is."""
    from data_pipeline.shards.repair import REPORT, repair_dataset  # noqa: PLC0415

    report = repair_dataset(parse_place(dataset), out)
    for line in report.table():
        typer.echo(line)
    typer.echo(f"wrote {out}: {report.kept:,} clips; {out / REPORT} says what was wrong with which")


@data.command()
def info(dataset: Dataset) -> None:
    """Describe a dataset: clips, hours, modalities, lengths, encoders, licence."""
    from data_pipeline.shards.check import describe  # noqa: PLC0415
    from data_pipeline.shards.reader import open_dataset  # noqa: PLC0415
    from data_pipeline.shards.remote import RANGES  # noqa: PLC0415

    for name, value in describe(open_dataset(parse_place(dataset), RANGES)).items():
        typer.echo(f"{name:<24} {value}")


@data.command()
def preview(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="HTML file to make; must not exist.")],
    source: Annotated[
        Path | None, typer.Option(help="Its raw files, to show faces and sound, too.")
    ] = None,
    clips: Annotated[int, typer.Option(help="Clips to show.")] = 12,
    seed: Annotated[int, typer.Option(help="Which clips; same seed, same bytes.")] = 0,
    detector_weights: Annotated[
        Path | None, typer.Option(help="Of what found the faces of the dataset, if it has a file.")
    ] = None,
) -> None:
    """Write one HTML page of what a dataset holds, with some of its clips on time lines."""
    from memo.preview.page import PreviewSettings, write_preview  # noqa: PLC0415

    write_preview(PreviewSettings(parse_place(dataset), out, source, clips, seed, detector_weights))
    typer.echo(f"wrote {out}")


@data.command()
def merge(
    datasets: Annotated[list[str], typer.Argument(help="Folders with dataset.json, or URLs.")],
    out: Out,
) -> None:
    """Write the clips of several datasets with the same encoders, or all parts of one, into one."""
    from data_pipeline.merge_parts import find_parts, merge_parts  # noqa: PLC0415
    from data_pipeline.shards.merge import merge_datasets  # noqa: PLC0415

    places = [parse_place(dataset) for dataset in datasets]
    if parts := find_parts(places):
        report = merge_parts(parts, out)
        samples = report.samples
        for line in report.table():
            typer.echo(line)
    else:
        samples = merge_datasets(places, out)
    counts = ", ".join(f"{count} {split}" for split, count in samples.items())
    typer.echo(f"wrote {out}: {counts} clips")


@data.command()
def tokenizer(
    datasets: Annotated[list[str], typer.Argument(help="Datasets whose texts are used.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to make; DATASET/tokenizer if not given.")
    ] = None,
    vocab_size: Annotated[int, typer.Option(min=8, help="Most pieces.")] = 8000,
    split: Annotated[str, typer.Option(help="Split whose texts are used.")] = "train",
) -> None:
    """Train a SentencePiece tokenizer on the texts of one or more datasets."""
    from data_pipeline.shards.reader import open_dataset  # noqa: PLC0415
    from data_pipeline.shards.remote import RANGES  # noqa: PLC0415
    from memo.tokenizer import train_sentencepiece  # noqa: PLC0415

    places = [parse_place(dataset) for dataset in datasets]
    folder = out or places[0] / TOKENIZER
    if isinstance(folder, Url):
        raise UserError(f"--out: give a folder; nothing can be written to {places[0]}")
    if folder.exists():
        raise UserError(f"--out: {folder} exists already; give a new folder or remove it")
    splits = [open_dataset(place, RANGES).split(split) for place in places]
    texts = (text for part in splits for text in part.texts())
    trained = train_sentencepiece(texts, folder, vocab_size)
    typer.echo(f"wrote {folder}: {trained.vocab_size} pieces")
