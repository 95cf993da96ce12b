"""`memo data build`: its arguments, the build, and what can be told of it before it is begun."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from time import monotonic
from typing import Any

import typer

from data_pipeline.build import BuildSettings, build_dataset, plan_build
from data_pipeline.build_part import parse_part
from data_pipeline.errors import UserError
from data_pipeline.features.extract import ExtractSettings
from data_pipeline.filters import Filters
from data_pipeline.progress import say
from data_pipeline.registry import ModelChoice
from data_pipeline.transcribe.transcriber import TranscribeSettings
from memo.data_cli import data

OPTIONS = ("transcripts", "encoding", "language", "speaker_folder", "licence")
"""Of some corpora; a corpus that does not take one refuses it."""


def build_settings(given: Mapping[str, Any]) -> BuildSettings:
    """The build that is asked for.

    Args:
        given: the command's parameters by name.

    Raises:
        UserError: the part is none, or weights without a model.
    """
    out, part = given["out"], given["part"] and parse_part(given["part"])
    return BuildSettings(
        corpus=given["corpus"],
        source=given["source"],
        out=part.folder(out) if part else out,
        extract=ExtractSettings(
            ModelChoice(given["face"], given["face_weights"]),
            ModelChoice(given["speech"], given["speech_weights"]),
            detector_weights=given["detector_weights"],
            device=given["device"],
        ),
        name=given["name"],
        workers=given["workers"],
        samples_per_shard=given["samples_per_shard"],
        max_broken=given["max_broken"],
        options={name: _as_option(given[name]) for name in OPTIONS if given[name] is not None},
        filters=_filters(given),
        part=part,
        transcribe=TranscribeSettings(_asked(given, "recognise"), _asked(given, "align")),
        valid_share=given["valid_share"],
    )


def _filters(given: Mapping[str, Any]) -> Filters:
    """The thresholds, and what a clip must have."""
    thresholds = {one.name: given[one.name] for one in fields(Filters) if one.name != "require"}
    required = [one.strip() for one in (given["require"] or "").split(",")]
    return Filters(**thresholds, require=tuple(one for one in required if one))


def _as_option(value: object) -> Path | str:
    return value if isinstance(value, Path) else str(value)


def _asked(given: Mapping[str, Any], task: str) -> ModelChoice | None:
    """The model of a task that there need not be one for."""
    name, weights = given[task], given[f"{task}_weights"]
    if name is None and weights is not None:
        raise UserError(f"--{task}-weights is given without --{task}; name the model")
    return None if name is None else ModelChoice(name, weights)


def run_build(settings: BuildSettings) -> None:
    """Build, and say what became of every recording.

    Raises:
        UserError: see `build_dataset`.
    """
    began_s = monotonic()
    report = build_dataset(settings)
    for line in report.table():
        typer.echo(line)
    counts = ", ".join(f"{count} {split}" for split, count in report.samples.items()) or "no"
    typer.echo(
        f"wrote {settings.out}: {counts} clips; {sum(report.filtered.values())} were dropped by "
        f"filters, {report.quarantined} recordings were broken; "
        f"{monotonic() - began_s:,.0f} s since the command began"
    )


def check_build(arguments: Sequence[str]) -> Path:
    """Make sure that there is something to be built, and with what; the folder to be made.

    What the command does not take ends the process as it would there: with its usage, status 2.

    Args:
        arguments: of `memo data build`.

    Raises:
        UserError: a part is asked for, or see `plan_build`; but a GPU need not be here.
    """
    given = _parse(arguments)
    if given["part"]:
        raise UserError(f"--part {given['part']}: every task has its own; leave it out")
    settings = build_settings(given)
    if settings.extract.device == "cuda":
        settings = replace(settings, extract=replace(settings.extract, device="cpu"))
    say(plan_build(settings).remarks)
    return settings.out


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The command's parameters by name."""
    command = typer.main.get_group(data).commands["build"]
    with command.make_context("memo data build", [*arguments]) as context:
        return context.params
