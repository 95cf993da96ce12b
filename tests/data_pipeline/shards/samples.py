"""Small clips and datasets for the tests of this folder."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_pipeline.clip import Clip, Word
from data_pipeline.shards.dataset import FaceSchema, FeatureSchema, SpeechSchema
from data_pipeline.shards.writer import ShardWriter

FEATURES = FeatureSchema(
    face=FaceSchema(dim=6, fps=10, classes=("calm", "glad"), encoder="f", encoder_sha256="0"),
    speech=SpeechSchema(dim=5, rows_per_s=50 / 3, encoder="s", encoder_sha256="1"),
)


def make_clips(count: int, prefix: str = "c") -> list[Clip]:
    """Clips of different lengths; every fourth has no face, every fifth no text."""
    return [_make_clip(number, f"{prefix}{number}") for number in range(count)]


def _make_clip(number: int, key: str) -> Clip:
    rng = np.random.default_rng(number)
    frames = 2 + number % 3
    has_face = number % 4 != 3
    posteriors = rng.dirichlet(np.ones(2), frames).astype(np.float16)
    return Clip(
        key=key,
        text=None if number % 5 == 4 else "ah " * (number % 3) + "oh",
        language="en",
        words=(Word("oh", 0.1, 0.5),),
        duration_s=1.5,
        speaker=f"s{number % 2}",
        face=rng.normal(size=(frames, 6)).astype(np.float16) if has_face else None,
        expression=posteriors if has_face else None,
        speech=rng.normal(size=(3 + number % 4, 5)).astype(np.float16),
    )


def write_clips(out: Path, samples_per_shard: int = 4, **splits: Iterable[Clip]) -> Path:
    """A dataset with these splits."""
    with ShardWriter(
        out,
        name="n",
        corpus="c",
        licence="CC0-1.0",
        features=FEATURES,
        samples_per_shard=samples_per_shard,
    ) as writer:
        for split, clips in splits.items():
            for clip in clips:
                writer.write(split, clip)
    return out


def same(first: Clip, second: Clip) -> bool:
    """Equal in every field; arrays bit for bit."""

    def plain(value: object) -> object:
        return (value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value

    return all(plain(vars(first)[name]) == plain(vars(second)[name]) for name in vars(first))
