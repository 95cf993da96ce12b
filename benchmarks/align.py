"""Word times by forced alignment against given ones, and the word error rate of a recogniser.

    python -m benchmarks.align grid_s1.tar --clips 150

The clips are taken evenly from a corpus that has the times of its words, which neither model sees.
One thread. A sentence that nobody says is aligned with each sound, too: it should have no times.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import process_time

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from data_pipeline.corpora.base import Recording, load_corpus
from data_pipeline.corpora.source import Source, open_source
from data_pipeline.features.activity import RATE
from data_pipeline.features.video import decode_sound
from data_pipeline.registry import ModelChoice
from data_pipeline.transcribe.transcriber import Transcriber, TranscribeSettings

FOREIGN = "Kids are talking by the door"


@dataclass
class Findings:
    """What came of all clips.

    Attributes:
        sound_s: length of what was heard.
        align_s, recognise_s: CPU seconds.
        aligned, foreign: clips whose text, and whose sentence that nobody says, got times.
        begins, ends: absolute errors of the words, in seconds.
        words, mistakes: of the given texts, and of the recognised ones against them.
    """

    sound_s: float = 0.0
    align_s: float = 0.0
    recognise_s: float = 0.0
    aligned: int = 0
    foreign: int = 0
    begins: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    words: int = 0
    mistakes: int = 0


def main() -> None:
    """Measure, and print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--corpus", default="grid")
    parser.add_argument("--clips", type=int, default=150)
    parser.add_argument("--align", default="pocketsphinx")
    parser.add_argument("--align-weights", type=Path)
    parser.add_argument("--recognise", default="pocketsphinx")
    parser.add_argument("--recognise-weights", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    recognise = ModelChoice(given.recognise, given.recognise_weights)
    align = ModelChoice(given.align, given.align_weights)
    aligner = Transcriber.load(TranscribeSettings(align=align).find(given.source))
    recogniser = Transcriber.load(TranscribeSettings(recognise=recognise).find(given.source))
    source = open_source(given.source)
    everything = load_corpus(given.corpus).recordings(source)
    chosen = everything[:: max(1, len(everything) // given.clips)][: given.clips]
    found = Findings()
    for recording, sound in heard(chosen, source):
        found.sound_s += len(sound) / RATE
        measure_alignment(recording, sound, aligner, found)
        measure_recognition(recording, sound, recogniser, found)
    report(found, len(chosen))


def heard(
    recordings: Sequence[Recording], source: Source
) -> Iterator[tuple[Recording, NDArray[np.float32]]]:
    """Each recording with its sound, (samples,) at 16 kHz."""
    for recording in recordings:
        assert recording.media is not None, "a corpus of videos"
        with source.open(recording.media) as media:
            sound = decode_sound(media)
        assert sound is not None, "with sound"
        yield recording, sound


def measure_alignment(
    recording: Recording, sound: NDArray[np.float32], aligner: Transcriber, found: Findings
) -> None:
    """Find the words without their times, and compare."""
    begin_s = process_time()
    told = aligner.transcribe(replace(recording, words=()), sound).recording
    found.align_s += process_time() - begin_s
    foreign = aligner.transcribe(replace(recording, words=(), text=FOREIGN), sound).recording
    found.foreign += bool(foreign.words)
    if not told.words:
        return
    found.aligned += 1
    for word, known in zip(told.words, recording.words, strict=True):
        assert word.text == known.text, "the given words are those of the text"
        found.begins.append(abs(word.start_s - known.start_s))
        found.ends.append(abs(word.end_s - known.end_s))


def measure_recognition(
    recording: Recording, sound: NDArray[np.float32], recogniser: Transcriber, found: Findings
) -> None:
    """Recognise a clip without its text, and count the words that are wrong."""
    begin_s = process_time()
    told = recogniser.transcribe(replace(recording, text=None, words=()), sound).recording
    found.recognise_s += process_time() - begin_s
    said = (recording.text or "").lower().split()
    found.words += len(said)
    found.mistakes += count_mistakes(said, (told.text or "").lower().split())


def count_mistakes(said: Sequence[str], recognised: Sequence[str]) -> int:
    """Fewest words to be put in, left out or exchanged (Levenshtein)."""
    row = list(range(len(recognised) + 1))
    for at, word in enumerate(said, start=1):
        above, row = row, [at]
        for other, exchanged, left_out in zip(recognised, above, above[1:], strict=False):
            row.append(min(exchanged + (word != other), left_out + 1, row[-1] + 1))
    return row[-1]


def report(found: Findings, clips: int) -> None:
    """The table and the last line."""
    figures = {
        "clips": clips,
        "aligned": found.aligned / clips,
        "foreign_aligned": found.foreign / clips,
        "words": len(found.begins),
        **percentiles("begin", found.begins),
        **percentiles("end", found.ends),
        "align_s_per_cpu_s": found.sound_s / found.align_s,
        "word_error_rate": found.mistakes / found.words,
        "recognise_s_per_cpu_s": found.sound_s / found.recognise_s,
    }
    table = Table("", "")
    for name, figure in figures.items():
        table.add_row(name, f"{figure:.4g}")
    Console().print(table)
    print("RESULT", json.dumps({name: round(figure, 4) for name, figure in figures.items()}))


def percentiles(name: str, errors: Sequence[float]) -> dict[str, float]:
    """Median and 90th percentile of absolute errors, in milliseconds."""
    if not errors:
        return {}
    median, ninetieth = 1000 * np.percentile(errors, [50, 90])
    return {f"{name}_median_ms": float(median), f"{name}_p90_ms": float(ninetieth)}


if __name__ == "__main__":
    main()
