"""A dataset of a few random clips, and a transform that masks nothing."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import Clip
from data_pipeline.packing import Example
from data_pipeline.shards.dataset import FaceSchema, FeatureSchema, SpeechSchema
from data_pipeline.shards.reader import Split, open_dataset
from data_pipeline.shards.writer import ShardWriter

FACE_DIM, SPEECH_DIM = 3, 4
MARK = np.float16(12345)
"""Stands where a NaN will."""


def write_split(out: Path, samples: int, bad: tuple[int, ...] = ()) -> Split:
    """Clips k0, k1, ... in shards of 4; those named in `bad` hold a NaN and cannot be read.

    The writer refuses a NaN, so it is put into the tars afterwards.
    """
    rng = np.random.default_rng(samples)
    face = FaceSchema(dim=FACE_DIM, encoder="f", encoder_sha256="", fps=10, classes=("a", "b"))
    speech = SpeechSchema(dim=SPEECH_DIM, encoder="s", encoder_sha256="", rows_per_s=16)
    features = FeatureSchema(face=face, speech=speech)
    with ShardWriter(
        out, name="n", corpus="c", licence="l", features=features, samples_per_shard=4
    ) as writer:
        for number in range(samples):
            rows = rng.normal(size=(rng.integers(1, 9), SPEECH_DIM)).astype(np.float16)
            if number in bad:
                rows[0, 0] = MARK
            writer.write("valid", _clip(rng, number, rows))
    for tar in out.glob("*.tar"):
        tar.write_bytes(tar.read_bytes().replace(MARK.tobytes(), np.float16(np.nan).tobytes()))
    return open_dataset(out).split("valid")


def _clip(rng: np.random.Generator, number: int, speech: NDArray[np.float16]) -> Clip:
    face = rng.normal(size=(int(rng.integers(1, 6)), FACE_DIM)).astype(np.float16)
    return Clip(key=f"k{number}", text="a " * int(rng.integers(0, 7)), face=face, speech=speech)


def plain(clip: Clip, sample: int, epoch: int) -> Example:
    """Nothing hidden; every text piece is 10 + epoch, between 1 and 2."""
    assert clip.face is not None
    assert clip.speech is not None
    words = len((clip.text or "").split())
    ids = [1, *[10 + epoch] * words, 2] if words else []
    return Example(
        sample=sample,
        key=clip.key,
        text_ids=np.array(ids, dtype=np.int64),
        face=clip.face.astype(np.float32),
        face_masked=np.zeros(len(clip.face), dtype=bool),
        speech=clip.speech.astype(np.float32),
        speech_masked=np.zeros(len(clip.speech), dtype=bool),
        targets={},
    )
