"""A dataset of eight clips in two shards, and reading it as training does."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import Clip, Word, clip_members
from data_pipeline.lengths import LengthLimits, TokenLengths
from data_pipeline.order import StreamState
from data_pipeline.packing import Example
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.dataset import FaceSchema, FeatureSchema, SpeechSchema
from data_pipeline.shards.place import Place
from data_pipeline.shards.reader import open_dataset
from data_pipeline.shards.remote import FETCH, RemoteSettings
from data_pipeline.shards.writer import ShardWriter
from data_pipeline.stream import BatchMaker, Placement, StepSize, TrainStream, eval_batches

FACE_DIM, SPEECH_DIM = 6, 5
FEATURES = FeatureSchema(
    face=FaceSchema(
        dim=FACE_DIM, fps=10, classes=("calm", "glad"), encoder="f", encoder_sha256="0"
    ),
    speech=SpeechSchema(dim=SPEECH_DIM, rows_per_s=50 / 3, encoder="s", encoder_sha256="1"),
)
KEYS = tuple(f"k{number}" for number in range(8))
PER_SHARD = 4
LIMITS = LengthLimits(text=50, face=50, speech=50)


def write_small(out: Path) -> Path:
    """A dataset of clips k0, k1, ... that have text, face and speech."""
    with ShardWriter(
        out,
        name="small",
        corpus="none",
        licence="CC0-1.0",
        features=FEATURES,
        samples_per_shard=PER_SHARD,
    ) as writer:
        for number, key in enumerate(KEYS):
            writer.write("train", _clip(number, key))
    return out


def _clip(number: int, key: str) -> Clip:
    rng = np.random.default_rng(number)
    frames = 20 + number
    return Clip(
        key=key,
        text="so it is " * (1 + number % 3),
        words=(Word("so", 0.1, 0.5),),
        speaker=f"s{number % 2}",
        face=rng.normal(size=(frames, FACE_DIM)).astype(np.float16),
        expression=rng.dirichlet(np.ones(2), frames).astype(np.float16),
        speech=rng.normal(size=(30 + number, SPEECH_DIM)).astype(np.float16),
    )


def as_is(clip: Clip, sample: int) -> Example:
    """The clip as an example of the stream, cut to `LIMITS`; a text's pieces are its letters."""
    text = (clip.text or "")[: LIMITS.text]
    face, speech = (
        _rows(clip.face, LIMITS.face, FACE_DIM),
        _rows(clip.speech, LIMITS.speech, SPEECH_DIM),
    )
    return Example(
        sample=sample,
        key=clip.key,
        text_ids=np.array([ord(letter) for letter in text], dtype=np.int64),
        face=face,
        face_masked=np.zeros(len(face), dtype=bool),
        speech=speech,
        speech_masked=np.zeros(len(speech), dtype=bool),
        targets={},
    )


def _rows(rows: NDArray[np.float16] | None, limit: int, columns: int) -> NDArray[np.float32]:
    if rows is None:
        return np.zeros((0, columns), np.float32)
    return rows[:limit].astype(np.float32)


def content(clip: Clip) -> bytes:
    """All that a clip holds."""
    return b"".join(content for _, content in clip_members(clip))


def run_stream(
    place: Place, quarantine: Quarantine, remote: RemoteSettings = FETCH
) -> dict[str, bytes]:
    """Take a step with every sample, as training does; key -> what was read of it.

    Raises:
        UserError: the dataset cannot be opened, or too many samples are bad.
    """
    maker, found = _maker(place, quarantine, remote)
    start = StreamState.start(0, maker.split.fingerprint)
    with TrainStream(maker, start, StepSize(len(maker.split)), prefetch=1) as stream:
        next(stream)
    quarantine.check()
    return found


def run_evaluation(folder: Path, quarantine: Quarantine) -> dict[str, bytes]:
    """The same as evaluation does: in order, without a thread."""
    maker, found = _maker(folder, quarantine, FETCH)
    for _ in eval_batches(maker):
        pass
    quarantine.check()
    return found


def _maker(
    place: Place, quarantine: Quarantine, remote: RemoteSettings
) -> tuple[BatchMaker, dict[str, bytes]]:
    """What makes batches, and where what is read is noted."""
    split = open_dataset(place, remote).split("train")
    found: dict[str, bytes] = {}

    def transform(clip: Clip, sample: int, epoch: int) -> Example:
        found[clip.key] = content(clip)
        return as_is(clip, sample)

    maker = BatchMaker(
        split=split,
        transform=transform,
        specs={},
        face_dim=FACE_DIM,
        speech_dim=SPEECH_DIM,
        lengths=TokenLengths(split, len, "letters", LIMITS),
        token_budget=LIMITS.longest,
        placement=Placement(),
        quarantine=quarantine,
    )
    return maker, found
