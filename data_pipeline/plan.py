"""Which rank takes which samples of a global batch, in which micro-batch.

A global batch is a number of samples that are divided (`divide`), or as many as fill a number of
micro-batches (`fill`). Every rank computes the whole plan from the lengths alone, without talking
to the others.
"""

import heapq
from bisect import bisect_left, insort

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
    tokens: list[int] = lengths.tolist()
    decreasing = np.argsort(-lengths, kind="stable").tolist()
    packed = _best_fit(tokens, decreasing, token_budget)
    count = ranks * max(-(-len(packed) // ranks), 1)
    bins = _even(tokens, decreasing, count)
    if max(_load(one, tokens) for one in bins) > token_budget:
        bins = _without_empty(packed, count)
    return _deal(bins, tokens, ranks)


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
    tokens: list[int] = lengths.tolist()
    taken = int(np.searchsorted(np.cumsum(lengths), count * token_budget, side="right"))
    while True:
        decreasing = np.argsort(-lengths[:taken], kind="stable").tolist()
        bins = _even(tokens, decreasing, count)
        excess = max(_load(one, tokens) for one in bins) - token_budget
        if excess <= 0:
            return taken, _deal(bins, tokens, ranks)
        taken -= max(excess * count * taken // int(lengths[:taken].sum()), 1)


def _best_fit(tokens: list[int], decreasing: list[int], capacity: int) -> list[list[int]]:
    """Bins of at most `capacity` tokens: each sample goes to the fullest one that can take it."""
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens still free, number of the bin), ascending
    for sample in decreasing:
        place = bisect_left(rooms, (tokens[sample], 0))
        if place == len(rooms):
            room, number = capacity, len(bins)
            bins.append([])
        else:
            room, number = rooms.pop(place)
        bins[number].append(sample)
        insort(rooms, (room - tokens[sample], number))
    return bins


def _even(tokens: list[int], decreasing: list[int], count: int) -> list[list[int]]:
    """So many bins, nearly equally full: each sample goes to the emptiest one."""
    bins: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, 0, number) for number in range(count)]  # (tokens, samples, number of the bin)
    for sample in decreasing:
        load, samples, number = loads[0]
        bins[number].append(sample)
        heapq.heapreplace(loads, (load + tokens[sample], samples + 1, number))
    return bins


def _without_empty(bins: list[list[int]], count: int) -> list[list[int]]:
    """Bring the bins to this number; each new one takes a sample from the bin with the most."""
    bins = [list(one) for one in bins]
    while len(bins) < count:
        bins.append([max(bins, key=len).pop()])
    return bins


def _deal(bins: list[list[int]], tokens: list[int], ranks: int) -> list[list[NDArray[np.int64]]]:
    """Give each rank the same number of bins: rounds of similar ones, the largest where least is.

    Ranks wait for each other in every micro-batch under ZeRO-3, so those of one round are alike.
    """
    falling = sorted(bins, key=lambda one: -_load(one, tokens))
    shares: list[list[NDArray[np.int64]]] = [[] for _ in range(ranks)]
    totals = [0] * ranks
    for begin in range(0, len(falling), ranks):
        emptiest = sorted(range(ranks), key=totals.__getitem__)
        for rank, one in zip(emptiest, falling[begin : begin + ranks], strict=True):
            shares[rank].append(np.array(sorted(one), dtype=np.int64))
            totals[rank] += _load(one, tokens)
    return shares


def _load(one: list[int], tokens: list[int]) -> int:
    """Tokens of a bin."""
    return sum(tokens[sample] for sample in one)
