"""Shards built as an array of parts in a real Slurm: one is preempted, then all are merged."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.build import BuildSettings, build_dataset
from tests.cluster.jobs import restarts, submit, wait_for, wait_for_restart, wait_for_state
from tests.cluster.slurm import Cluster
from tests.data_pipeline.features.media import make_video
from tests.data_pipeline.small_encoders import write_small_encoders
from tests.launch.command import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

CLIPS = 12


def write_corpus(folder: Path) -> Path:
    """Videos without a face, and one that is none, in a folder with a space in its name."""
    folder.mkdir()
    for number in range(CLIPS):
        rng = np.random.default_rng(number)
        noise = rng.normal(0, 0.1, 32_000).astype(np.float32)
        levels = rng.integers(0, 256, 50).tolist()
        (folder / f"c{number}.mp4").write_bytes(make_video(range(0, 2000, 40), levels, noise))
    (folder / "broken.mp4").write_text("no video")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_array_of_parts_is_the_build_of_all(cluster: Cluster, tmp_path: Path) -> None:
    encoders = write_small_encoders(tmp_path)
    source, out = write_corpus(tmp_path / "my videos"), tmp_path / "out"
    assert encoders.face is not None
    assert encoders.speech is not None
    face, speech = encoders.face.weights, encoders.speech.weights
    variables = {"CORPUS": "videos", "SOURCE": str(source), "OUT": str(out)}
    variables |= {"PARTS": "3", "CORES": "1"}
    options = ["--face-weights", str(face), "--speech=wav2vec2", "--speech-weights", str(speech)]

    parts, merge = submit(cluster, ROOT, tmp_path, variables, "build", *options)
    second = f"{parts}_2"
    # Not by `scontrol show step`, which of a task of an array shows the script's own step as well.
    wait_for(lambda: f"{second}.0" in cluster.say("squeue", "-s", "-h", "-o", "%i").split())
    cluster.say("scancel", "--batch", "--signal=USR1", second)
    wait_for_restart(cluster, second)
    assert cluster.state(merge) == "PENDING"
    plain = tmp_path / "plain"
    build_dataset(BuildSettings("videos", source, plain, encoders, workers=1))
    wait_for_state(cluster, merge, "COMPLETED")

    assert restarts(cluster, second) == 1
    assert files(out) == files(plain)
    assert len(files(out)["quarantine.jsonl"].splitlines()) == 1
