"""`dataset.json`: what a dataset holds, and opening one."""

import hashlib
from pathlib import Path
from typing import Any, Literal, Self

import pydantic
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass

from data_pipeline.clip import EXPRESSION, FACE, SPEECH, BadSampleError, Clip, Fault
from data_pipeline.errors import UserError
from data_pipeline.shards.place import Place

FILE = "dataset.json"
NAME = r"^[^\W_][\w+-]*$"
"""Of datasets and splits, which become parts of file names and keys."""
MOST_INFO = 1 << 26
"""Bytes of a `dataset.json`, which are a few hundred thousand shards."""
SMALLEST = 1024
"""Bytes of a tar that a sample takes at least: the header and the content of its JSON member."""


STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class Record(BaseModel):
    """Base of everything in `dataset.json`: unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(**STRICT, frozen=True)


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    """The fields without some of them, if they are there."""
    return {key: value for key, value in fields.items() if key not in names}


class RowSchema(Record):
    """What the rows of one modality are.

    Attributes:
        dim: numbers in a row.
        encoder: name of the frozen network that made them.
        encoder_sha256: hash of its weights.
        mean, std: of each of the `dim` numbers over the rows of the train split, rows of zeros
            left out; empty until the dataset is written.
    """

    dim: int = Field(gt=0)
    encoder: str
    encoder_sha256: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _has_statistics_of_each_column(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, self.dim):
                raise ValueError(f"{name} has {len(values)} numbers for {self.dim} columns")
        return self

    def difference(self, other: "RowSchema") -> tuple[str, object, object] | None:
        """What tells these rows from others of their modality; None if they are of one kind.

        Returns:
            The first attribute that differs, mean and std aside, and both values.
        """
        for name in type(self).model_fields:
            ours, theirs = getattr(self, name), getattr(other, name)
            if name not in ("mean", "std") and ours != theirs:
                return name, ours, theirs
        return None


class FaceSchema(RowSchema):
    """Rows of faces.

    Attributes:
        fps: rows a second.
        classes: names of the expression classes.
        detector, detector_sha256: what found the faces, and the hash of its file; None of the Haar
            cascades, which need no file and are not mentioned in `dataset.json`.
    """

    fps: float = Field(gt=0)
    classes: tuple[str, ...]
    detector: str | None = None
    detector_sha256: str | None = None

    @model_serializer(mode="wrap")
    def _without_detector(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Datasets of before, and those built without a detector's file, say nothing of it."""
        fields: dict[str, Any] = handler(self)
        return fields if self.detector else without(fields, "detector", "detector_sha256")


class SpeechSchema(RowSchema):
    """Speech rows, `rows_per_s` of them a second."""

    rows_per_s: float = Field(gt=0)


class FeatureSchema(Record):
    """The features of a dataset; a modality that no clip has is None."""

    face: FaceSchema | None = None
    speech: SpeechSchema | None = None

    def check_columns(self, clip: Clip) -> None:
        """Make sure that a clip's rows are as wide as the schema says.

        Raises:
            BadSampleError: one is not, or the schema has no such rows.
        """
        face, speech = self.face, self.speech
        for member, rows, columns in (
            (FACE, clip.face, face.dim if face else 0),
            (EXPRESSION, clip.expression, len(face.classes) if face else 0),
            (SPEECH, clip.speech, speech.dim if speech else 0),
        ):
            if rows is not None and rows.shape[1] != columns:
                reason = f"has rows of {rows.shape[1]}, dataset.json says {columns}"
                raise BadSampleError(member, reason, Fault.SCHEMA)

    def check(self, clip: Clip) -> None:
        """Make sure that a clip is one of this dataset: its columns, and that it has what it needs.

        Raises:
            BadSampleError: rows of another width, or a class of the face without the face.
        """
        self.check_columns(clip)
        if clip.expression is not None and clip.face is None:
            raise BadSampleError(FACE, f"is missing, but {EXPRESSION} is there", Fault.LOST)


@dataclass(frozen=True, slots=True, config=STRICT)
class ShardInfo:
    """One tar of the dataset's folder; there may be 10^5, and slots save a kilobyte of each.

    Attributes:
        name: of the file, without a folder.
        split: that its samples belong to; letters, digits, `_` and `-`.
        samples: how many it holds.
        bytes, sha256: of the file.
    """

    name: str = Field(pattern=r"^[^/\\]+\.tar$")
    split: str = Field(pattern=NAME)
    samples: int = Field(ge=0)
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        """Tables are made of so many samples before the tar is read."""
        if self.samples > self.bytes // SMALLEST:
            raise ValueError(f"{self.samples} samples are more than {self.bytes} bytes can hold")
        return self


class TranscriberInfo(Record):
    """A model that has recognised texts, or aligned words, which their corpus does not have.

    Attributes:
        task: what it has done.
        name: of the model.
        sha256: hash of its files.
    """

    task: Literal["recognise", "align"]
    name: str
    sha256: str


class DatasetInfo(Record):
    """The whole of `dataset.json`; `transcribers` stands in it only where there are some."""

    format: Literal["memo-dataset/1"] = "memo-dataset/1"
    name: str = Field(pattern=NAME)
    corpus: str
    licence: str
    features: FeatureSchema
    transcribers: tuple[TranscriberInfo, ...] = ()
    shards: tuple[ShardInfo, ...]

    @model_serializer(mode="wrap")
    def _without_transcribers(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Datasets of before, and those with what their corpus says alone, do not mention them."""
        fields: dict[str, Any] = handler(self)
        return fields if self.transcribers else without(fields, "transcribers")

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order of appearance."""
        return tuple(dict.fromkeys(shard.split for shard in self.shards))

    def fingerprint(self, split: str | None) -> str:
        """Hash of a split's content: the sha256 of its shards' sha256, in order; None: of all."""
        hashes = "".join(shard.sha256 for shard in self.shards if split in (None, shard.split))
        return hashlib.sha256(hashes.encode()).hexdigest()


def read_info(folder: Path) -> DatasetInfo:
    """Read `dataset.json`.

    Raises:
        UserError: there is none, or it is not of the format.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(
            f"there is no dataset in {folder} ({FILE} is missing); make one with 'memo data build' "
            "or 'memo data demo'"
        )
    with path.open("rb") as file:
        return parse_info(file.read(MOST_INFO + 1), path)


def parse_info(content: bytes, place: Place) -> DatasetInfo:
    """The content of a `dataset.json`.

    Args:
        content: of one with more than `MOST_INFO` bytes as many, and one more.
        place: of the file.

    Raises:
        UserError: it is not of the format, or too large; names its place.
    """
    if len(content) > MOST_INFO:
        raise UserError(
            f"{place} has more than {MOST_INFO:,} bytes, the most that are read; write fewer "
            "shards, with more samples each"
        )
    try:
        return DatasetInfo.model_validate_json(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{place} is no memo-dataset/1: {where}: {first['msg']}") from None
