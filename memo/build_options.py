"""The options of `memo data build`, in the groups that its help shows."""

from pathlib import Path
from typing import Annotated

import typer

CORPUS = "The corpus"
ENCODERS = "Encoders"
WORDS = "Words"
FILTERS = "Filters"

Corpus = Annotated[str, typer.Argument(help="Name of the corpus, e.g. grid.")]
Source = Annotated[Path, typer.Option(help="Its raw files: a folder, an archive, or a table.")]
Transcripts = Annotated[
    Path | None,
    typer.Option(
        help="Of videos: a folder, an archive or a table of what is said in them.",
        rich_help_panel=CORPUS,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        help="Of transcripts, or a table, that are not UTF-8, as Python calls it, e.g. cp949.",
        rich_help_panel=CORPUS,
    ),
]
Language = Annotated[
    str | None,
    typer.Option(
        help="Of videos with several transcripts, beside or inside: which, e.g. en or en,ko.",
        rich_help_panel=CORPUS,
    ),
]
SpeakerFolder = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Of videos: which folder is called as the speaker, 1 is the topmost, 0 none.",
        show_default="the topmost that is not that of all",
        rich_help_panel=CORPUS,
    ),
]
Licence = Annotated[
    str | None,
    typer.Option(
        help="Under which terms one's own files may be used; for dataset.json.",
        rich_help_panel=CORPUS,
    ),
]
ValidShare = Annotated[
    float | None,
    typer.Option(
        help="Make a split valid of this share of the speakers who train, e.g. 0.05.",
        rich_help_panel=CORPUS,
    ),
]

Face = Annotated[
    str,
    typer.Option(
        help="Face encoder: denseface, timm:MODEL, action-units or package.module:Class.",
        rich_help_panel=ENCODERS,
    ),
]
FaceWeights = Annotated[
    Path | None,
    typer.Option(help="Its file; denseface's ships with memo.", rich_help_panel=ENCODERS),
]
DetectorWeights = Annotated[
    Path | None,
    typer.Option(
        help="Look for faces with YuNet, of this ONNX file, not with Haar cascades.",
        rich_help_panel=ENCODERS,
    ),
]
Speech = Annotated[
    str,
    typer.Option(
        help="Speech encoder: whisper, wav2vec2, hubert, log-mel or package.module:Class.",
        rich_help_panel=ENCODERS,
    ),
]
SpeechWeights = Annotated[
    Path | None,
    typer.Option(help="Its file or folder; looked for if not given.", rich_help_panel=ENCODERS),
]
Device = Annotated[
    str,
    typer.Option(
        help="Of the encoders: cpu, cuda, or auto: the GPU if there is one.",
        rich_help_panel=ENCODERS,
    ),
]

Recognise = Annotated[
    str | None,
    typer.Option(
        help="Recognise what has no transcript: with whisper or pocketsphinx.",
        rich_help_panel=WORDS,
    ),
]
Align = Annotated[
    str | None,
    typer.Option(
        help="Find the times of words that have none: with ctc or pocketsphinx.",
        rich_help_panel=WORDS,
    ),
]
WordWeights = Annotated[
    Path | None,
    typer.Option(help="Its folder; pocketsphinx brings a model along.", rich_help_panel=WORDS),
]

MinWords = Annotated[
    int | None, typer.Option(help="Drop clips whose text has fewer.", rich_help_panel=FILTERS)
]
MinDuration = Annotated[
    float | None, typer.Option(help="Drop shorter clips.", rich_help_panel=FILTERS)
]
MaxDuration = Annotated[
    float | None, typer.Option(help="Drop longer clips.", rich_help_panel=FILTERS)
]
MinSpeech = Annotated[
    float | None,
    typer.Option(
        help="Drop clips whose sound is quieter (RMS), e.g. -50.", rich_help_panel=FILTERS
    ),
]
MinFaceShare = Annotated[
    float | None,
    typer.Option(
        help="Drop clips of video with a face in fewer frames: 0 to 1.", rich_help_panel=FILTERS
    ),
]
MinSpeakerScore = Annotated[
    float | None,
    typer.Option(
        help="Drop clips of video in which nobody's lips go with the speech: 1 to 3.",
        rich_help_panel=FILTERS,
    ),
]

Require = Annotated[
    str | None,
    typer.Option(
        help="Drop clips without these: text, face, speech, with commas between.",
        rich_help_panel=FILTERS,
    ),
]

Name = Annotated[str | None, typer.Option(help="Name of the dataset; the corpus's if not given.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes, one thread each.")]
SamplesPerShard = Annotated[int, typer.Option(min=1, help="Clips of one tar.")]
MaxBroken = Annotated[
    int, typer.Option(min=0, help="Stop after so many files with something that cannot be used.")
]
Part = Annotated[
    str | None,
    typer.Option(help="Build share i/n alone, into OUT.parts/i-of-n; then 'memo data merge'."),
]
