"""A few clips of a dataset, drawn by a seed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_pipeline.clip import BadSampleError, Clip
from data_pipeline.shards.reader import Dataset


@dataclass(frozen=True)
class SampledClip:
    """A clip, or why there is none.

    Attributes:
        split: that it belongs to.
        shard: name of its tar.
        key: its name there.
        clip: None if it cannot be read.
        problem: why it cannot.
    """

    split: str
    shard: str
    key: str
    clip: Clip | None
    problem: str = ""


def sample_clips(dataset: Dataset, count: int, seed: int) -> Iterator[SampledClip]:
    """The clips that the dataset's order has first, in the order of the shards.

    Args:
        dataset: anywhere.
        count: of a dataset with fewer clips all are taken.
        seed: of the order.

    Raises:
        UserError: the dataset is empty, a shard is missing, or a server does not answer.
    """
    whole = dataset.whole()
    splits = {shard.name: shard.split for shard in whole.shards}
    positions = np.arange(min(count, len(whole)))
    for sample in np.sort(whole.order(seed).visits(positions).samples).tolist():
        shard, key = whole.location(sample)
        try:
            yield SampledClip(splits[shard], shard, key, whole.read(sample))
        except BadSampleError as error:
            yield SampledClip(splits[shard], shard, key, None, str(error))
