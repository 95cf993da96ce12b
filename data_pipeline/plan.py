"""Which rank takes which samples of a global batch, in which micro-batch.

A global batch is a number of samples that are divided (`divide`), or as many as fill a number of
micro-batches (`fill`). Every rank computes the whole plan from the lengths alone, without talking
to the others. So a plan must not take longer than a step of all ranks together: samples of one
length are dealt at once, and the time grows with the lengths that differ, little with the samples.
"""

from bisect import bisect_left
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError


def check_budget(longest: int, token_budget: int) -> None:
    """Refuse a token budget that the longest sequence does not fit into.

    Raises:
        UserError: names both numbers.
    """
    if longest > token_budget:
        raise UserError(
            f"batch.token_budget={token_budget} is less than the longest sequence, {longest} "
            f"tokens; raise it to {longest} or more, or lower the limits"
        )


def divide(
    lengths: NDArray[np.int64], ranks: int, token_budget: int
) -> list[list[NDArray[np.int64]]]:
    """Deal the samples of a global batch into micro-batches within a token budget.

    There are as few micro-batches as best-fit-decreasing bin packing needs, rounded up to the same
    number M for every rank. The longest samples go first, each to the emptiest micro-batch (Graham,
    "Bounds on multiprocessing timing anomalies", 1969), so that all micro-batches, and with them
    the ranks, carry nearly the same tokens. Where this overfills one, the bins of the packing are
    taken instead.

    Args:
        lengths: int64 (B,), tokens of each sample; 0 is allowed.
        ranks: how many share the batch.
        token_budget: most tokens of a micro-batch.

    Returns:
        For each rank its M micro-batches, each an int64 array of indices into `lengths`, ascending.
        None is empty if B >= ranks * M.

    Raises:
        UserError: a sample is longer than the budget.
    """
    check_budget(int(lengths.max(initial=0)), token_budget)
    falling = _sort(lengths)
    packed = _best_fit(falling, token_budget)
    count = ranks * max(-(-_number(packed) // ranks), 1)
    bins = _even(falling, count)
    if _loads(falling, bins, count).max() > token_budget:
        bins = _without_empty(packed, count)
    return _deal(falling, bins, ranks, count)


def fill(
    lengths: NDArray[np.int64], ranks: int, count: int, token_budget: int
) -> tuple[int, list[list[NDArray[np.int64]]]]:
    """Deal the first samples of a look-ahead evenly into micro-batches that they just fill.

    As many samples are taken, in the order given and none left out, as can be dealt evenly: the
    longest first, each to the emptiest micro-batch, as in `divide`. Where this overfills one, it is
    done again with as many samples less as the fullest has too many, in all micro-batches.

    Args:
        lengths: int64 (L,), tokens of the samples that come next; more than fit, or all there are.
        ranks: how many share the batch.
        count: micro-batches over all ranks, a multiple of their number.
        token_budget: most tokens of a micro-batch.

    Returns:
        How many samples are taken, and each rank's micro-batches of them, as from `divide`.

    Raises:
        UserError: a sample is longer than the budget.
    """
    check_budget(int(lengths.max(initial=0)), token_budget)
    taken = int(np.searchsorted(np.cumsum(lengths), count * token_budget, side="right"))
    while True:
        falling = _sort(lengths[:taken])
        bins = _even(falling, count)
        excess = int(_loads(falling, bins, count).max()) - token_budget
        if excess <= 0:
            return taken, _deal(falling, bins, ranks, count)
        taken -= max(excess * count * taken // int(lengths[:taken].sum()), 1)


class _Falling(NamedTuple):
    """Samples, the longest first; those of one length in the order given.

    What deals them says of each, in this order, the number of its bin: `bins`, int64 (B,).

    Attributes:
        samples: int64 (B,), their indices in the order given.
        tokens: int64 (B,), of each.
        runs: (length, how many samples have it), falling.
    """

    samples: NDArray[np.int64]
    tokens: NDArray[np.int64]
    runs: list[tuple[int, int]]


def _sort(lengths: NDArray[np.int64]) -> _Falling:
    longest = int(lengths.max(initial=0))
    missing = (longest - lengths).astype(np.min_scalar_type(longest))  # small ones: a radix sort
    samples = np.argsort(missing, kind="stable")
    counts = np.bincount(missing, minlength=longest + 1).tolist()
    runs = [(longest - less, count) for less, count in enumerate(counts) if count]
    return _Falling(samples, lengths[samples], runs)


def _best_fit(falling: _Falling, capacity: int) -> NDArray[np.int64]:
    """Bins of at most `capacity` tokens: each sample goes to the fullest one that can take it.

    That bin is then the fullest for the next sample of this length as well, as long as it can take
    it: so the bins take what they can one after the other.
    """
    shift = len(falling.tokens).bit_length()
    rooms: list[int] = []  # tokens still free << shift | number of the bin, ascending
    numbers, counts, opened = [], [], 0
    for length, samples in falling.runs:
        place, left = bisect_left(rooms, length << shift), samples
        while left:
            if place == len(rooms):
                rooms.append(capacity << shift | opened)
                opened += 1
            taken = min(left, (rooms[place] >> shift) // length) if length else left
            numbers.append(rooms[place] & (1 << shift) - 1)
            counts.append(taken)
            rooms[place] -= taken * length << shift
            left -= taken
            place += 1
        rooms.sort()
    return np.repeat(np.array(numbers, dtype=np.int64), counts)


def _even(falling: _Falling, count: int) -> NDArray[np.int64]:
    """So many bins, nearly equally full: each sample goes to the emptiest one.

    Of equally full ones to that with the fewest samples, then to the first. Those that are emptier
    than the emptiest will be with one sample more take one each before any takes a second.
    """
    of_samples = count.bit_length()
    of_tokens = of_samples + len(falling.tokens).bit_length()
    bins = np.arange(count)  # tokens << of_tokens | samples << of_samples | number; ascending
    parts = [bins[:0]]
    for length, samples in falling.runs:
        one, left = (length << of_tokens) + (1 << of_samples), samples
        while left:
            emptiest = bins[: min(left, int(bins.searchsorted(bins[0] + one)))]
            rounds = left // count if len(emptiest) == count else 1
            parts += [emptiest & (1 << of_samples) - 1] * rounds
            left -= rounds * len(emptiest)
            emptiest += rounds * one
            bins.sort(kind="stable")
    return np.concatenate(parts)


def _without_empty(bins: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Bring the bins to this number; each new one takes a sample from the bin with the most."""
    bins = bins.copy()
    for number in range(_number(bins), count):
        most = np.argmax(np.bincount(bins))
        bins[np.flatnonzero(bins == most)[-1]] = number
    return bins


def _deal(
    falling: _Falling, bins: NDArray[np.int64], ranks: int, count: int
) -> list[list[NDArray[np.int64]]]:
    """Give each rank the same number of bins: rounds of similar ones, the largest where least is.

    Ranks wait for each other in every micro-batch under ZeRO-3, so those of one round are alike.
    """
    loads, each = _loads(falling, bins, count), count // ranks
    totals = np.zeros(ranks, dtype=np.int64)
    places = np.empty(count, dtype=np.min_scalar_type(count))  # of a bin; a rank has `each`
    for number, of_round in enumerate(np.argsort(-loads, kind="stable").reshape(each, ranks)):
        emptiest = np.argsort(totals, kind="stable")
        places[of_round] = emptiest * each + number
        totals[emptiest] += loads[of_round]
    of_samples = np.empty_like(places, shape=len(bins))
    of_samples[falling.samples] = places[bins]
    samples = np.argsort(of_samples, kind="stable")
    ends = np.cumsum(np.bincount(of_samples, minlength=count)).tolist()
    batches = [samples[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    return [batches[first : first + each] for first in range(0, count, each)]


def _number(bins: NDArray[np.int64]) -> int:
    """How many bins there are."""
    return int(bins.max(initial=-1)) + 1


def _loads(falling: _Falling, bins: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Tokens of each bin, int64 (count,)."""
    return np.bincount(bins, weights=falling.tokens, minlength=count).astype(np.int64)
