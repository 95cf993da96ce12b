"""Clips of given lengths with random content: what a training step costs depends on lengths alone.

| mix | lengths |
|---|---|
| `half` | log-normal, at most 256 tokens; of random batches those that are half padding |
| `korean`, `ravdess` | the real clips' own, not cut; random batches of average padding |
| `korean-cut`, `ravdess-cut` | the same, cut to MEmoBERT's 30 pieces, 36 faces, 64 speech rows |

A real clip of s seconds has 10 s face rows and 50/3 s speech rows; these two corpora are sound
only, so the face rows are those that its video would have. Pieces are counted by a SentencePiece
vocabulary trained on the texts of both corpora.
"""

import csv
import io
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.packing import Example
from data_pipeline.shards.reader import open_dataset
from memo.config import Limits
from memo.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece

CORPORA = {"korean": "korean_speech", "ravdess": "ravdess"}
PIECES = 2000
FACE_FPS = 10
SPEECH_ROWS_PER_S = 50 / 3
FACE_ROW_BYTES = 2 * (342 + 7)
"""DenseFace's features and seven expressions, float16."""


@dataclass(frozen=True)
class Rows:
    """Rows of each modality in a number of clips, each int64 (C,); text with [CLS] and [SEP]."""

    text: NDArray[np.int64]
    face: NDArray[np.int64]
    speech: NDArray[np.int64]


def half_padding(clips: int, rng: np.random.Generator) -> Rows:
    """Lengths of mean about 100 and at most 256, divided as in MEmoBERT's longest clip."""
    tokens = np.clip(rng.lognormal(mean=4.4, sigma=0.75, size=clips), 8, 256)
    share = tokens / Limits().longest
    text, face = (np.ceil(share * part).astype(np.int64) for part in (32, 36))
    return Rows(text, face, np.maximum(tokens.astype(np.int64) - text - face, 0))


def real_lengths(corpora: Path, mix: str) -> Rows:
    """Lengths of all clips of a real corpus.

    Args:
        corpora: folder with the corpora's tars.
        mix: `korean` or `ravdess`, with `-cut` behind it where the original's limits apply.
    """
    manifests = {name: _manifest(corpora / f"{tar}.tar") for name, tar in CORPORA.items()}
    with tempfile.TemporaryDirectory() as folder:
        texts = [row["text"] for rows in manifests.values() for row in rows]
        tokenizer: Tokenizer = train_sentencepiece(texts, Path(folder), PIECES)
        clips = manifests[mix.removesuffix("-cut")]
        pieces = np.array([tokenizer.count(row["text"]) for row in clips])
    seconds = np.array([float(row["dur_s"]) for row in clips])
    face, speech = (seconds * FACE_FPS).astype(int), (seconds * SPEECH_ROWS_PER_S).astype(int)
    if mix.endswith("-cut"):
        limits = Limits()
        pieces = pieces.clip(max=limits.text)
        face, speech = face.clip(max=limits.face), speech.clip(max=limits.speech)
    return Rows(pieces + 2, face, speech)


@dataclass(frozen=True)
class Video:
    """Clips of datasets as pretraining sees them.

    Attributes:
        rows: of each clip, within the limits.
        seconds: of all clips.
        bytes: of all their shards; of those without faces as if they had them.
    """

    rows: Rows
    seconds: float
    bytes: float

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Of each clip, int64 (C,)."""
        return self.rows.text + self.rows.face + self.rows.speech


def video_of(datasets: Sequence[Path], tokenizer: Path) -> Video:
    """The clips of datasets, under MEmoBERT's limits.

    Args:
        datasets: their folders; of sound-only ones the face rows are those of a video as long.
        tokenizer: its folder.
    """
    limits, count = Limits(), load_tokenizer(tokenizer).count
    texts, faces, speeches, seconds, size = [], [], [], 0.0, 0.0
    for folder in datasets:
        dataset = open_dataset(folder)
        split, seen = dataset.whole(), dataset.info.features.face is not None
        size += sum(shard.bytes for shard in split.shards)
        for number in range(len(split)):
            clip = split.read_record(number)
            texts.append(min(count(clip.text or ""), limits.text) + 2)
            faces.append(min(int(clip.duration_s * FACE_FPS), limits.face))
            speeches.append(min(int(clip.duration_s * SPEECH_ROWS_PER_S), limits.speech))
            seconds += clip.duration_s
            size += 0 if seen else clip.duration_s * FACE_FPS * FACE_ROW_BYTES
    return Video(Rows(np.array(texts), np.array(faces), np.array(speeches)), seconds, size)


def random_examples(
    rows: Rows, vocab_size: int, face_dim: int, speech_dim: int, rng: np.random.Generator
) -> list[Example]:
    """An example of random content for each clip, every fifth frame hidden."""
    examples = []
    for number, (text, face, speech) in enumerate(
        zip(rows.text, rows.face, rows.speech, strict=True)
    ):
        example = Example(
            sample=number,
            key=f"clip{number}",
            text_ids=rng.integers(vocab_size, size=text),
            face=rng.standard_normal((face, face_dim), dtype=np.float32),
            face_masked=np.arange(face) % 5 == 0,
            speech=rng.standard_normal((speech, speech_dim), dtype=np.float32),
            speech_masked=np.arange(speech) % 5 == 0,
            targets={},
        )
        examples.append(example)
    return examples


def typical_batches(
    rows: Rows, clips: int, batches: int, padding: float | None, rng: np.random.Generator
) -> list[Rows]:
    """Of 200 random batches, those whose share of padding is nearest to a value.

    Args:
        rows: to draw from.
        clips: of a batch.
        batches: how many to keep.
        padding: the value; None takes the mean over the random batches.
        rng: draws.
    """
    draws = [rng.choice(len(rows.text), size=clips, replace=False) for _ in range(200)]
    tokens = rows.text + rows.face + rows.speech
    shares = np.array([1 - tokens[draw].mean() / tokens[draw].max() for draw in draws])
    wanted = shares.mean() if padding is None else padding
    nearest = np.argsort(np.abs(shares - wanted), kind="stable")[:batches]
    chosen = [draws[number] for number in nearest]
    return [Rows(rows.text[draw], rows.face[draw], rows.speech[draw]) for draw in chosen]


def _manifest(tar: Path) -> list[dict[str, str]]:
    """The lines of a corpus's manifest."""
    with tarfile.open(tar) as archive:
        name = next(name for name in archive.getnames() if name.endswith("manifest.tsv"))
        member = archive.extractfile(name)
        assert member is not None
        return list(csv.DictReader(io.TextIOWrapper(member, "utf-8"), delimiter="\t"))
