"""Stages of a build: seconds of video a second of CPU for each, of processes with a thread each.

    python -m benchmarks.build grid_s1.tar --clips 40 --processes 2

The clips are taken evenly from the corpus. `decode` reads the file and decodes pictures and sound,
`detect` looks for faces, `track` joins them, chooses the speaker and cuts out the faces, `face` and
`speech` are the networks, `write` packs the members and writes shards.
What each process does in a second of its own CPU time is added.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from time import process_time

import cv2
import torch
from rich.console import Console
from rich.table import Table

from data_pipeline.build import feature_schema
from data_pipeline.clip import Clip
from data_pipeline.corpora.base import Recording, load_corpus
from data_pipeline.corpora.source import Source, open_source
from data_pipeline.features.extract import Extractor, ExtractSettings, Part, describe
from data_pipeline.features.face import align_faces, search_faces
from data_pipeline.features.face_encoder import FACE
from data_pipeline.features.speech import SPEECH
from data_pipeline.registry import ModelChoice
from data_pipeline.shards.writer import ShardWriter

STAGES = ("decode", "detect", "track", "face", "speech", "write")


class Stages:
    """CPU seconds of each stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count what is done inside for a stage."""
        begin = process_time()
        yield
        self.seconds[stage] += process_time() - begin


def main() -> None:
    """Measure, and print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--corpus", default="grid")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--face", default="denseface")
    parser.add_argument("--face-weights", type=Path)
    parser.add_argument("--speech", default="whisper")
    parser.add_argument("--speech-weights", type=Path)
    parser.add_argument("--detector-weights", type=Path)
    given = parser.parse_args()
    numbers = range(given.processes)
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        report(list(pool.map(measure_share, repeat(given), numbers)))


def measure_share(given: argparse.Namespace, number: int) -> tuple[float, dict[str, float]]:
    """What one process does: seconds of video, and of CPU for each stage."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    face = FACE.find(ModelChoice(given.face, given.face_weights), given.source)
    speech = SPEECH.find(ModelChoice(given.speech, given.speech_weights), given.source)
    extractor = Extractor.load(
        ExtractSettings(face, speech, detector_weights=given.detector_weights)
    )
    source = open_source(given.source)
    everything = load_corpus(given.corpus).recordings(source)
    stages = Stages()
    measure([everything[0]], source, extractor, Stages())  # kernels are chosen, files are cached
    chosen = everything[:: max(1, len(everything) // given.clips)][: given.clips]
    return measure(chosen[number :: given.processes], source, extractor, stages), stages.seconds


def measure(
    recordings: Sequence[Recording], source: Source, extractor: Extractor, stages: Stages
) -> float:
    """Build clips of recordings of one file each; returns the seconds of video in them."""
    clips = [measure_clip(one, source, extractor, stages) for one in recordings]
    with tempfile.TemporaryDirectory() as folder, stages.timed("write"):
        schema = feature_schema(extractor)
        place = Path(folder) / "out"
        with ShardWriter(place, name="n", corpus="c", licence="none", features=schema) as writer:
            for clip in clips:
                writer.write("train", clip)
    return sum(clip.duration_s for clip in clips)


def measure_clip(
    recording: Recording, source: Source, extractor: Extractor, stages: Stages
) -> Clip:
    """One recording, stage by stage; then as the build does it, which is what is returned."""
    assert recording.media is not None, "a corpus of videos"
    with stages.timed("decode"), source.open(recording.media) as media:
        ((_, part),) = extractor.parts([recording], media)
    assert isinstance(part, Part), "a sound corpus"
    size = extractor.face.input_size if extractor.face else 0
    speech = extractor.speech_in(part.frames, part.sound)
    with stages.timed("detect"):
        found = search_faces(part.frames, extractor.detector, extractor.face_fps)
    with stages.timed("track"):
        seen = align_faces(part.frames, size, extractor.detector, extractor.face_fps, speech, found)
    if extractor.face:
        with stages.timed("face"):
            extractor.face.encode(seen.faces)
    if extractor.speech and part.sound is not None:
        with stages.timed("speech"):
            extractor.speech.encode(part.sound)
    return describe(extractor.clip(recording, part), recording)


def report(shares: Sequence[tuple[float, dict[str, float]]]) -> None:
    """The table and the last line."""
    stages: dict[str, tuple[str, ...]] = {stage: (stage,) for stage in STAGES}
    stages |= {"decode+detect+track": STAGES[:3], "all": STAGES}
    figures = {
        name: sum(video_s / sum(spent[one] for one in parts) for video_s, spent in shares)
        for name, parts in stages.items()
    }
    table = Table("stage", f"seconds of video a second of {len(shares)} cores")
    for stage, figure in figures.items():
        table.add_row(stage, f"{figure:.1f}")
    Console().print(table)
    rounded = {stage: round(figure, 2) for stage, figure in figures.items()}
    video_s = sum(seconds for seconds, _ in shares)
    summary = {"video_s": round(video_s, 2), "cores": len(shares), "per_s": rounded}
    print("RESULT", json.dumps(summary))


if __name__ == "__main__":
    main()
