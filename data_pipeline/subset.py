"""Samples numbered anew: a part of a split, or several splits one after the other."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import Clip
from data_pipeline.order import Order, SampleOrder
from data_pipeline.shards.remote import Traffic
from data_pipeline.stream import SampleLengths, Samples
from data_pipeline.watch import Task


class Subset:
    """Chosen samples, as if they were a split of one shard.

    Args:
        whole: where they come from.
        chosen: int64 (n,), their numbers there.
        name: for messages, e.g. "fold 2, test".
    """

    def __init__(self, whole: Samples, chosen: NDArray[np.int64], name: str) -> None:
        self.name = name
        self.chosen = chosen
        content = whole.fingerprint.encode() + chosen.astype("<i8").tobytes()
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self.readers = whole.readers
        self.is_remote = whole.is_remote
        self.traffic = whole.traffic
        self._whole = whole

    @property
    def oldest_work(self) -> Task | None:
        """What has gone on for longest at the shards that the samples are in."""
        return self._whole.oldest_work

    def __len__(self) -> int:
        return len(self.chosen)

    def order(self, seed: int) -> Order:
        """The order of a seed."""
        return Order(seed, np.array([len(self)], dtype=np.int64))

    def fetch(self, samples: NDArray[np.int64]) -> None:
        """Have some samples on this machine."""
        self._whole.fetch(self.chosen[samples])

    def read(self, sample: int) -> Clip:
        """The clip of this number.

        Raises:
            BadSampleError: it is not whole or not of the right form.
        """
        return self._whole.read(int(self.chosen[sample]))

    def shard_of(self, sample: int) -> str:
        """Name of the shard of a sample."""
        return self._whole.shard_of(int(self.chosen[sample]))

    def location(self, sample: int) -> tuple[str, str]:
        """Name of the shard and key of a sample, for messages."""
        return self._whole.location(int(self.chosen[sample]))


class SubsetLengths:
    """Tokens of the samples of a subset.

    Args:
        whole: of the split that it is a part of.
        chosen: int64 (n,), numbers of its samples there.
        added: tokens that every sequence has on top, e.g. a prompt.

    Attributes:
        longest: no sequence is longer, in tokens.
    """

    def __init__(self, whole: SampleLengths, chosen: NDArray[np.int64], added: int = 0) -> None:
        self._whole = whole
        self._chosen = chosen
        self._added = added
        self.longest = whole.longest + added

    def of(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some samples; both int64 (n,)."""
        return self._whole.of(self._chosen[samples]) + self._added


class Joined:
    """Several splits as one; numbers run through them in turn.

    Args:
        parts: the splits, at least one.
        name: for messages.
    """

    def __init__(self, parts: Sequence[Samples], name: str) -> None:
        self.name = name
        content = "".join(part.fingerprint for part in parts).encode()
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self.readers = max(part.readers for part in parts)
        self.is_remote = any(part.is_remote for part in parts)
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])  # (parts,)

    @property
    def traffic(self) -> Traffic:
        """What reading all of them has cost so far."""
        return sum((part.traffic for part in self._parts), Traffic())

    @property
    def oldest_work(self) -> Task | None:
        """What has gone on for longest at a shard of any part."""
        tasks = [part.oldest_work for part in self._parts]
        return min((task for task in tasks if task), key=lambda task: task.since, default=None)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def order(self, seed: int) -> SampleOrder:
        """The order of a seed: all parts shuffled with each other."""
        return Order(seed, np.diff(self._ends, prepend=0))

    def fetch(self, samples: NDArray[np.int64]) -> None:
        """Have some samples on this machine."""
        places = np.searchsorted(self._ends, samples, side="right")
        for at in np.unique(places).tolist():
            first = int(self._ends[at]) - len(self._parts[at])
            self._parts[at].fetch(samples[places == at] - first)

    def read(self, sample: int) -> Clip:
        """The clip of this number.

        Raises:
            BadSampleError: it is not whole or not of the right form.
        """
        part, number = self._place(sample)
        return part.read(number)

    def shard_of(self, sample: int) -> str:
        """Name of the shard of a sample."""
        part, number = self._place(sample)
        return part.shard_of(number)

    def location(self, sample: int) -> tuple[str, str]:
        """Name of the shard and key of a sample, for messages."""
        part, number = self._place(sample)
        return part.location(number)

    def _place(self, sample: int) -> tuple[Samples, int]:
        at = int(np.searchsorted(self._ends, sample, side="right"))
        return self._parts[at], sample - int(self._ends[at]) + len(self._parts[at])


class JoinedLengths:
    """Tokens of the samples of joined splits.

    Args:
        parts: of each split.
        sizes: how many samples each has.

    Attributes:
        longest: no sequence is longer, in tokens.
    """

    def __init__(self, parts: Sequence[SampleLengths], sizes: Sequence[int]) -> None:
        self.longest = max(part.longest for part in parts)
        self._parts = parts
        self._ends = np.cumsum(sizes)  # (parts,)
        self._sizes = sizes

    def of(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some samples; both int64 (n,)."""
        places = np.searchsorted(self._ends, samples, side="right")
        tokens = np.empty_like(samples)
        for at, (part, size) in enumerate(zip(self._parts, self._sizes, strict=True)):
            chosen = places == at
            tokens[chosen] = part.of(samples[chosen] - (self._ends[at] - size))
        return tokens
