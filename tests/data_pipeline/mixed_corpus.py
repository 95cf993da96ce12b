"""A corpus as a table: each filter of `FILTERS` drops one of its clips, and one is broken."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.filters import Filters
from tests.data_pipeline.features.media import make_sound, make_video

FILTERS = Filters(2, 0.2, 1.0, -60.0, 0.8)
ROWS = (
    ("whole", "one two three", "whole.wav"),
    ("short", "one two", "short.wav"),
    ("long", "one two", "long.wav"),
    ("quiet", "one two", "quiet.wav"),
    ("faceless", "one two", "faceless.mp4"),
    ("terse", "one", ""),
    ("broken", "one two", "broken.wav"),
    ("text", "one two", ""),
    ("spoken", "", "spoken.wav"),
)


def noise(length_s: float, level: float = 0.1) -> NDArray[np.float32]:
    samples = np.random.default_rng(0).normal(0, level, round(16_000 * length_s))
    return samples.astype(np.float32)


def write_table(root: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    lines = ["key,text,media,split"]
    for key, text, media in rows:
        lines.append(f"{key},{text},{media},{'valid' if key == 'text' else 'train'}")
    (root / "clips.csv").write_text("\n".join(lines) + "\n")


def write_corpus(root: Path) -> Path:
    """The media and their table."""
    root.mkdir()
    write_table(root, ROWS)
    lengths = {"whole": 0.4, "short": 0.1, "long": 1.2, "spoken": 0.4}
    for name, length_s in lengths.items():
        (root / f"{name}.wav").write_bytes(make_sound(noise(length_s)))
    (root / "quiet.wav").write_bytes(make_sound(noise(0.4, 1e-4)))
    (root / "broken.wav").write_bytes(b"no sound")
    # No face is found in the first of four frames.
    (root / "faceless.mp4").write_bytes(make_video(range(0, 400, 40), [9] * 10, noise(0.4)))
    return root
