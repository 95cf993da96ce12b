"""What `memo data build` would do with some arguments, as far as it can be said before it runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from data_pipeline.corpora.base import load_corpus
from data_pipeline.corpora.source import open_source
from data_pipeline.errors import UserError
from data_pipeline.features.face_encoder import FACE
from data_pipeline.features.speech import SPEECH
from data_pipeline.transcribe.transcriber import TranscribeSettings
from memo.data_cli import data


def check_build(arguments: Sequence[str]) -> Path:
    """Make sure that there is something to be built; the folder that is to be made.

    What the command does not take ends the process as it would there: with its usage, status 2.

    Args:
        arguments: of `memo data build`.

    Raises:
        UserError: a part is asked for, the corpus, an encoder, recogniser or aligner is unknown,
            the source has not the corpus's layout, or the output exists.
    """
    given = _parse(arguments)
    out: Path = given["out"]
    if given["part"]:
        raise UserError(f"--part {given['part']}: every task has its own; leave it out")
    if out.exists():
        raise UserError(f"--out: {out} exists already; give a new folder or remove it")
    FACE.check(given["face"])
    SPEECH.check(given["speech"])
    models = ("recognise", "recognise_weights", "align", "align_weights")
    TranscribeSettings(**{name: given[name] for name in models}).find(given["source"])
    options = {"transcripts": given["transcripts"]} if given["transcripts"] else {}
    load_corpus(given["corpus"], options).recordings(open_source(given["source"]))
    return out


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The command's parameters by name."""
    command = typer.main.get_group(data).commands["build"]
    with command.make_context("memo data build", [*arguments]) as context:
        return context.params
