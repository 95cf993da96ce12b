"""Stages of a build: seconds of video a second of CPU for each, one thread.

    python -m benchmarks.build grid_s1.tar --clips 40

The clips are taken evenly from the corpus. `decode` reads the file and decodes pictures and sound,
`detect` looks for faces, `track` joins them, chooses the speaker and cuts out the faces, `face` and
`speech` are the networks, `write` packs the members and writes shards.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    parser.add_argument("--face", default="denseface")
    parser.add_argument("--face-weights", type=Path)
    parser.add_argument("--speech", default="whisper")
    parser.add_argument("--speech-weights", type=Path)
    parser.add_argument("--detector-weights", type=Path)
    given = parser.parse_args()
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
    step = max(1, len(everything) // given.clips)
    video_s = measure(everything[::step][: given.clips], source, extractor, stages)
    report(stages, video_s)


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


def report(stages: Stages, video_s: float) -> None:
    """The table and the last line."""
    seconds = stages.seconds
    figures = {stage: video_s / max(spent, 1e-9) for stage, spent in seconds.items()}
    search = sum(seconds[stage] for stage in ("decode", "detect", "track"))
    figures |= {"decode+detect+track": video_s / search, "all": video_s / sum(seconds.values())}
    table = Table("stage", "seconds of video a CPU second")
    for stage, figure in figures.items():
        table.add_row(stage, f"{figure:.1f}")
    Console().print(table)
    rounded = {stage: round(figure, 2) for stage, figure in figures.items()}
    print("RESULT", json.dumps({"video_s": round(video_s, 2), "per_cpu_s": rounded}))


if __name__ == "__main__":
    main()
