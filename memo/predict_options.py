"""The options of `memo predict`."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    Path,
    typer.Argument(help="A folder that `memo export` made, or a system: RUN/folds/*/system."),
]
Files = Annotated[
    list[Path],
    typer.Argument(
        help="Video or sound files. For a system of texts: .csv or .tsv tables with a column "
        "text, or .txt files with a text a line; of posts: tables with the columns image, "
        "text and tags."
    ),
]
Task = Annotated[str | None, typer.Option(help="Of a system of texts; left out where it has one.")]
Text = Annotated[
    str | None, typer.Option(help="What is said; the file is one utterance, a minute long at most.")
]
Subtitles = Annotated[
    Path | None,
    typer.Option(
        help="SRT, WebVTT, ASS, TSV or JSON; if not given, a transcript called as the video beside "
        "it, or subtitles inside."
    ),
]
Encoding = Annotated[
    str, typer.Option(help="Of subtitles or tables that are neither in UTF-8 nor in UTF-16.")
]
Language = Annotated[
    str,
    typer.Option(
        help="Of what is spoken, e.g. en: chooses among subtitles; several, the best first: en,de."
    ),
]
JsonOut = Annotated[Path | None, typer.Option(help="Also write JSON lines to this file.")]
HtmlOut = Annotated[Path | None, typer.Option(help="Also write a timeline to this file.")]
Face = Annotated[
    str | None, typer.Option(help="Allows the model's face encoder, a package.module:Class.")
]
FaceWeights = Annotated[Path | None, typer.Option(help="Looked for if not given.")]
Speech = Annotated[
    str | None, typer.Option(help="Allows the model's speech encoder, if it is such a class.")
]
SpeechWeights = Annotated[Path | None, typer.Option(help="Looked for if not given.")]
DetectorWeights = Annotated[
    Path | None, typer.Option(help="Of what found the faces of the dataset, if it has a file.")
]
Pretrained = Annotated[
    Path | None, typer.Option(help="A system's backbone; where it was if not given.")
]
ImageWeights = Annotated[
    Path | None, typer.Option(help="Likewise of a system's frozen image network.")
]
