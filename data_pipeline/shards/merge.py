"""`memo data merge`: several datasets as one, for pretraining on all of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from data_pipeline.clip import LONGEST_KEY, BadSampleError, Clip, is_key
from data_pipeline.errors import UserError
from data_pipeline.shards.dataset import DatasetInfo, FeatureSchema, RowSchema
from data_pipeline.shards.place import Place
from data_pipeline.shards.reader import Dataset, Split, open_dataset
from data_pipeline.shards.writer import ShardWriter

RowSchemaT = TypeVar("RowSchemaT", bound=RowSchema)


def merge_datasets(places: Sequence[Place], out: Path) -> dict[str, int]:
    """Write the clips of several datasets into a new one, split by split.

    Keys get the name of their dataset before them.

    Returns:
        Split -> clips.

    Raises:
        UserError: a dataset is missing, two have the same name, their rows were made by different
            encoders, or a clip is broken.
    """
    datasets = [open_dataset(place) for place in places]
    refuse_same_names(datasets)
    infos = [dataset.info for dataset in datasets]
    samples: dict[str, int] = {}
    with ShardWriter(
        out,
        name="+".join(info.name for info in infos),
        corpus="+".join(info.corpus for info in infos),
        licence="; ".join(dict.fromkeys(info.licence for info in infos)),
        features=common_features(infos),
        transcribers=tuple(dict.fromkeys(one for info in infos for one in info.transcribers)),
    ) as writer:
        for dataset in datasets:
            for split in dataset.info.splits:
                clips = dataset.split(split)
                for sample in range(len(clips)):
                    clip = read_sound(dataset.place, clips, sample)
                    writer.write(split, replace(clip, key=_key(dataset.info.name, clip.key)))
                samples[split] = samples.get(split, 0) + len(clips)
    return samples


def read_sound(place: Place, clips: Split, sample: int) -> Clip:
    """A clip that is to be written into another dataset.

    Raises:
        UserError: it is broken; names it.
    """
    try:
        return clips.read(sample)
    except BadSampleError as error:
        shard, key = clips.location(sample)
        raise UserError(
            f"{place / shard}: clip {key} is broken ({error}); 'memo data repair' writes "
            "a dataset without it"
        ) from None


def _key(name: str, key: str) -> str:
    """The clip's key in the new dataset."""
    merged = f"{name}-{key}"
    if not is_key(merged):
        raise UserError(f"{merged} would be a key of more than {LONGEST_KEY} characters")
    return merged


def refuse_same_names(datasets: Sequence[Dataset]) -> None:
    """Names tell datasets apart.

    Raises:
        UserError: two have the same.
    """
    names: dict[str, Place] = {}
    for dataset in datasets:
        name = dataset.info.name
        if name in names:
            raise UserError(
                f"{names[name]} and {dataset.place} are both called {name!r}; give one another "
                "name, with 'memo data build --name' or in its dataset.json"
            )
        names[name] = dataset.place


def common_features(infos: Sequence[DatasetInfo]) -> FeatureSchema:
    """The schema of all; a modality may be missing in some; mean and deviation are of the first.

    Raises:
        UserError: rows were made by different encoders, or faces found by different detectors.
    """
    return FeatureSchema(
        face=_same([(info, info.features.face) for info in infos], "face"),
        speech=_same([(info, info.features.speech) for info in infos], "speech"),
    )


def _same(schemas: Sequence[tuple[DatasetInfo, RowSchemaT | None]], name: str) -> RowSchemaT | None:
    """The schema that all have that have any."""
    present = [(info, one) for info, one in schemas if one is not None]
    for info, one in present[1:]:
        if found := one.difference(present[0][1]):
            field, value, first = found
            raise UserError(
                f"the {name} rows of {info.name} have {field}={value}, those of "
                f"{present[0][0].name} {first}; build both with the same encoder and detector"
            )
    return present[0][1] if present else None
