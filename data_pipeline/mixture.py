"""Several datasets as one endless order, each with its share of it.

The order is cut into blocks of `BLOCK` positions. In each block every dataset has the same whole
number of places, its share; which places these are is drawn from (seed, block). A dataset's own
visits follow its own shuffled order, epoch after epoch: one that is small, or has a large share, is
begun anew as often as need be while the others go on (the exhaustion policy is to repeat; a run's
length is its steps). So any position is found without looking at the ones before it.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from data_pipeline.order import SampleOrder, Visits, permutation
from data_pipeline.shards.dataset import DatasetInfo, FeatureSchema, RowSchema
from data_pipeline.shards.merge import common_features
from data_pipeline.stream import Samples
from data_pipeline.subset import Joined

BLOCK = 65_536
"""Positions in which every dataset has its share; shares are multiples of 1 / BLOCK."""

_LARGEST = 700.0
"""Natural logarithm of a weight; float64 ends at 709.8, and weights are summed up."""

RowSchemaT = TypeVar("RowSchemaT", bound=RowSchema)


def weights_of_sizes(sizes: Sequence[int], temperature: float) -> list[float]:
    """Each dataset's samples to the power of 1 / T.

    At T = 1 every sample is as frequent as any other; the higher T, the more alike are the
    datasets' shares (Devlin et al., multilingual BERT; Conneau et al., ACL 2020, section 3.1).

    Raises:
        UserError: T is so small that the power is beyond all numbers.
    """
    if math.log(max(sizes)) / temperature > _LARGEST:
        raise UserError(
            f"data.temperature={temperature:g} is too small for {max(sizes):,} samples: the "
            "largest dataset would have all of the shares; 1 takes the sizes as they are"
        )
    return [float(size) ** (1 / temperature) for size in sizes]


def shares_of(weights: Sequence[float]) -> NDArray[np.int64]:
    """Places of each dataset in a block, int64 (D,), in proportion to its weight.

    Raises:
        UserError: a weight is so small that it has no place.
    """
    ends = np.rint(np.cumsum(weights) / np.sum(weights) * BLOCK).astype(np.int64)
    shares: NDArray[np.int64] = np.diff(ends, prepend=0)
    if not shares.all():
        raise UserError(
            f"the weight {weights[int(np.argmin(shares))]:g} is less than 1 / {BLOCK} of all; "
            "give the dataset more, or leave it out"
        )
    return shares


class MixedOrder:
    """The endless order of several datasets, whose numbers run through them in turn.

    Args:
        seed: of the places.
        parts: order of each dataset.
        sizes: int64 (D,), samples of each.
        shares: int64 (D,), places of each in a block; see `shares_of`.
    """

    def __init__(
        self,
        seed: int,
        parts: Sequence[SampleOrder],
        sizes: NDArray[np.int64],
        shares: NDArray[np.int64],
    ) -> None:
        self._seed = seed
        self._parts = parts
        self._firsts = np.cumsum(sizes) - sizes
        self._shares = shares

    def visits(self, positions: NDArray[np.int64]) -> Visits:
        """See `SampleOrder`; a visit's epoch is that of its own dataset."""
        sources, own = self._places(positions)
        samples, epochs = np.empty_like(positions), np.empty_like(positions)
        for number in np.unique(sources).tolist():
            here = sources == number
            found = self._parts[number].visits(own[here])
            samples[here] = self._firsts[number] + found.samples
            epochs[here] = found.epochs
        return Visits(samples, epochs)

    def counts(self, position: int) -> NDArray[np.int64]:
        """How often each dataset was visited before a position, int64 (D,)."""
        block, place = divmod(position, BLOCK)
        drawn = _block(self._seed, block, self._shares.tobytes()).sources[:place]
        return block * self._shares + np.bincount(drawn, minlength=len(self._shares))

    def _places(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Number of the dataset at some positions, and its own position; int64 (P,)."""
        blocks, places = np.divmod(positions, BLOCK)
        sources, own = np.empty_like(positions), np.empty_like(positions)
        for block in np.unique(blocks).tolist():
            here = blocks == block
            drawn = _block(self._seed, block, self._shares.tobytes())
            sources[here] = drawn.sources[places[here]]
            own[here] = block * self._shares[sources[here]] + drawn.ranks[places[here]]
        return sources, own


class _Block(NamedTuple):
    """Who comes when in a block.

    Attributes:
        sources: int64 (BLOCK,), number of the dataset.
        ranks: int64 (BLOCK,), how often it came before in this block.
    """

    sources: NDArray[np.int64]
    ranks: NDArray[np.int64]


@lru_cache(maxsize=4)
def _block(seed: int, block: int, shares: bytes) -> _Block:
    counts = np.frombuffer(shares, dtype=np.int64)
    sources = np.repeat(np.arange(len(counts)), counts)[permutation((seed, block, 2), BLOCK)]
    by_source = np.argsort(sources, kind="stable")
    ranks = np.empty_like(by_source)
    ranks[by_source] = np.concatenate([np.arange(count) for count in counts.tolist()])
    return _Block(sources, ranks)


class Mixture(Joined):
    """Several splits as one, visited in given shares.

    Shards of two datasets may have the same name, and their samples the same key: messages name the
    dataset as well.

    Args:
        parts: the splits, at least one.
        names: of their datasets.
        shares: int64 (D,); see `shares_of`.
        name: for messages.

    Attributes:
        names: see above.
        shares: float64 (D,), requested, of 1.
    """

    def __init__(
        self, parts: Sequence[Samples], names: Sequence[str], shares: NDArray[np.int64], name: str
    ) -> None:
        super().__init__(parts, name)
        self.names = tuple(names)
        self.shares = shares / BLOCK
        content = self.fingerprint.encode() + shares.astype("<i8").tobytes()
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self._places = shares
        self._sizes = np.array([len(part) for part in parts], dtype=np.int64)

    def shard_of(self, sample: int) -> str:
        """Name of the dataset and the shard of a sample."""
        return f"{self._dataset_of(sample)}/{super().shard_of(sample)}"

    def location(self, sample: int) -> tuple[str, str]:
        """Name of the dataset and the shard, and key of a sample, for messages."""
        shard, key = super().location(sample)
        return f"{self._dataset_of(sample)}/{shard}", key

    def _dataset_of(self, sample: int) -> str:
        return self.names[int(np.searchsorted(self._ends, sample, side="right"))]

    def order(self, seed: int) -> MixedOrder:
        """The order of a seed; each dataset's own is drawn from the seed and its number."""
        seeds = [
            int(np.random.SeedSequence((seed, 3, number)).generate_state(1, np.uint64)[0])
            for number in range(len(self._parts))
        ]
        orders = [part.order(one) for part, one in zip(self._parts, seeds, strict=True)]
        return MixedOrder(seed, orders, self._sizes, self._places)

    def progress(self, seed: int, position: int) -> dict[str, float]:
        """Of each dataset the share so far, the share that is wanted, and the epochs so far.

        They count what is planned before a position: a bad sample counts, though it is in no batch;
        how many there were on all ranks, none of them knows.
        """
        counts = self.order(seed).counts(position)
        shares, epochs = counts / max(position, 1), counts / self._sizes
        found: dict[str, float] = {}
        for number, name in enumerate(self.names):
            found[f"share/{name}"] = float(shares[number])
            found[f"share_wanted/{name}"] = float(self.shares[number])
            found[f"epochs/{name}"] = float(epochs[number])
        return found


def mixed_features(infos: Sequence[DatasetInfo], shares: NDArray[np.float64]) -> FeatureSchema:
    """The schema of all; mean and deviation are those of rows drawn in these shares.

    Args:
        infos: a modality may be missing in some.
        shares: float64 (D,), of 1.

    Raises:
        UserError: rows were made by different encoders.
    """
    common = common_features(infos)
    faces = [(share, info.features.face) for share, info in zip(shares, infos, strict=True)]
    speeches = [(share, info.features.speech) for share, info in zip(shares, infos, strict=True)]
    return FeatureSchema(face=_mixed(common.face, faces), speech=_mixed(common.speech, speeches))


def _mixed(
    common: RowSchemaT | None, parts: Sequence[tuple[float, RowSchema | None]]
) -> RowSchemaT | None:
    present = [(share, one) for share, one in parts if one is not None]
    if common is None:
        return None
    weights = np.array([share for share, _ in present])[:, None]
    weights /= weights.sum()
    means = np.array([one.mean for _, one in present])  # (D, dim)
    stds = np.array([one.std for _, one in present])
    mean = (weights * means).sum(axis=0)
    std = np.sqrt(np.maximum((weights * (stds**2 + means**2)).sum(axis=0) - mean**2, 0))
    std[(stds == 0).all(axis=0) & (means == means[0]).all(axis=0)] = 0  # and no rounding of it
    return common.model_copy(update={"mean": tuple(mean.tolist()), "std": tuple(std.tolist())})
