"""Which sample comes when: pure functions of the seed.

Position p counts samples since the start of training, over all ranks. In a split of N samples it
lies in epoch p // N. Each epoch is a permutation of the split, shuffled on two levels so that any
position is found without looking at the ones before it and a large corpus is read in runs of
neighbouring shards: the shards are permuted, then the samples inside each window of consecutive
permuted shards.

The permutations sort the raw output of PCG64, which NumPy promises not to change, so that a run
can be continued under another NumPy.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError

WINDOW_SAMPLES = 65_536
"""About so many samples are shuffled with each other; an order of one window takes 0.5 MB."""


@dataclass(frozen=True)
class StreamState:
    """How far training has come: the whole state of the stream, on any number of ranks.

    Attributes:
        seed: of the order.
        epoch: epochs completed.
        samples_consumed: samples of the current epoch that training has seen, over all ranks;
            less than the split has.
        fingerprint: of the split's content.
    """

    seed: int
    epoch: int
    samples_consumed: int
    fingerprint: str

    @classmethod
    def start(cls, seed: int, fingerprint: str) -> "StreamState":
        """Nothing seen yet."""
        return cls(seed, 0, 0, fingerprint)

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> "StreamState":
        """Read what `to_json` gave.

        Raises:
            UserError: a field is missing or of the wrong kind.
        """
        match record:
            case {
                "seed": int(seed),
                "epoch": int(epoch),
                "samples_consumed": int(consumed),
                "fingerprint": str(fingerprint),
            } if min(seed, epoch, consumed) >= 0:
                return cls(seed, epoch, consumed, fingerprint)
        raise UserError(f"not a stream state: {dict(record)}; the checkpoint is damaged")

    def to_json(self) -> dict[str, int | str]:
        """The fields by name, as a JSON object."""
        return asdict(self)

    def position(self, samples: int) -> int:
        """The position of the next sample, in a split of so many samples."""
        return self.epoch * samples + self.samples_consumed

    def advance(self, seen: int, samples: int) -> "StreamState":
        """The state after so many further positions, in a split of so many samples."""
        epoch, consumed = divmod(self.position(samples) + seen, samples)
        return replace(self, epoch=epoch, samples_consumed=consumed)

    def check(self, seed: int, fingerprint: str) -> None:
        """Refuse to go on with another seed or other data.

        Raises:
            UserError: one of them differs from this state's; names both.
        """
        if self.seed != seed:
            raise UserError(
                f"the run to be continued has seed={self.seed}, the config seed={seed}; "
                "take the former, or start a new run"
            )
        if self.fingerprint != fingerprint:
            raise UserError(
                f"the run to be continued was trained on data with fingerprint {self.fingerprint},"
                f" the dataset given has {fingerprint}; give the same data, or start a new run"
            )


def sample_at(
    seed: int,
    shard_sizes: NDArray[np.int64],
    positions: NDArray[np.int64],
    window_samples: int = WINDOW_SAMPLES,
) -> NDArray[np.int64]:
    """The sample numbers at some positions of the order.

    Args:
        seed: of the order, not negative.
        shard_sizes: int64 (K,), samples of each shard; numbers run through the shards in turn.
        positions: int64 (P,), since the start of training; any number of epochs.
        window_samples: about so many samples are shuffled with each other; a window is whole
            shards.

    Returns:
        int64 (P,).
    """
    epochs, places = np.divmod(positions, shard_sizes.sum())
    sizes = shard_sizes.astype(np.int64, copy=False).tobytes()
    samples = np.empty_like(positions)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        samples[here] = _in_epoch(seed, epoch, sizes, window_samples, places[here])
    return samples


class Visits(NamedTuple):
    """What stands at some positions of an order.

    Attributes:
        samples: int64 (P,), their numbers.
        epochs: int64 (P,), how often each was visited before.
    """

    samples: NDArray[np.int64]
    epochs: NDArray[np.int64]


class SampleOrder(Protocol):
    """An endless order of numbered samples."""

    def visits(self, positions: NDArray[np.int64]) -> Visits:
        """What stands at some positions, int64 (P,), counted from the start of training."""
        ...


class Order:
    """The endless order of one split.

    Args:
        seed: of the order, not negative.
        shard_sizes: int64 (K,), samples of each shard.
    """

    def __init__(self, seed: int, shard_sizes: NDArray[np.int64]) -> None:
        self._seed = seed
        self._shard_sizes = shard_sizes

    def visits(self, positions: NDArray[np.int64]) -> Visits:
        """See `SampleOrder`."""
        samples = sample_at(self._seed, self._shard_sizes, positions)
        return Visits(samples, positions // self._shard_sizes.sum())


class _Layout(NamedTuple):
    """The shards in an epoch's order.

    Attributes:
        samples: int64 (K,), the first sample number of each shard.
        begins: int64 (K + 1,), the place in the epoch at which each shard begins before the
            windows are shuffled, and the epoch's length.
        windows: int64 (W + 1,), the places at which the windows begin, and the epoch's length.
    """

    samples: NDArray[np.int64]
    begins: NDArray[np.int64]
    windows: NDArray[np.int64]


def _in_epoch(
    seed: int, epoch: int, sizes: bytes, window_samples: int, places: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The sample numbers at some places of one epoch; both int64 (P,)."""
    layout = _layout(seed, epoch, sizes, window_samples)
    numbers = np.searchsorted(layout.windows, places, side="right") - 1
    shuffled = np.empty_like(places)
    for window in np.unique(numbers).tolist():
        here = numbers == window
        begin, end = layout.windows[window : window + 2].tolist()
        order = _window_order(seed, epoch, window, end - begin)
        shuffled[here] = begin + order[places[here] - begin]
    shards = np.searchsorted(layout.begins, shuffled, side="right") - 1
    return layout.samples[shards] + shuffled - layout.begins[shards]


@lru_cache(maxsize=4)
def _layout(seed: int, epoch: int, sizes: bytes, window_samples: int) -> _Layout:
    """Permute the shards of an epoch and cut them into windows."""
    counts = np.frombuffer(sizes, dtype=np.int64)
    order = permutation((seed, epoch, 0), len(counts))
    begins = np.concatenate([[0], np.cumsum(counts[order])])
    _, firsts = np.unique(begins[:-1] // window_samples, return_index=True)
    return _Layout(
        samples=(np.cumsum(counts) - counts)[order],
        begins=begins,
        windows=np.append(begins[firsts], begins[-1]),
    )


@lru_cache(maxsize=4)
def _window_order(seed: int, epoch: int, window: int, samples: int) -> NDArray[np.int64]:
    """How the samples of one window are shuffled."""
    return permutation((seed, epoch, 1, window), samples)


def permutation(key: tuple[int, ...], length: int) -> NDArray[np.int64]:
    """A permutation of 0 .. length - 1 that depends on the key alone."""
    source = np.random.PCG64(np.random.SeedSequence(key))
    return np.argsort(source.random_raw(length), kind="stable")
