r"""The order and the stream on 4,096 ranks, simulated on one core with the code that runs there.

    python -m benchmarks.simulate datasets/grid datasets/ravdess datasets/korean_speech \
        --tokenizer datasets/mixture-tokenizer

The lengths are those of the datasets' clips, drawn again and again for a split of 10^7 clips in
10,000 shards; no tar is written, and a clip that is read has its length alone. Checked, or the
benchmark fails: an epoch has every clip once over all ranks; 4,096 ranks that plan each for itself
take every clip of a batch once; batches, digests and states do not depend on the ranks; a stream
that goes on anywhere on other ranks has the batches of one that was never stopped. Measured: how
even and full the plans are, their CPU seconds, what shards a node of 8 ranks touches, and what
opening a dataset of many shards costs. `a step` is clips of the global batch, or micro-batches of
the budget named.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.clips import video_of
from data_pipeline.clip import MEMBERS, Clip
from data_pipeline.order import WINDOW_SAMPLES, Order, StreamState, Visits
from data_pipeline.packing import Example
from data_pipeline.plan import divide, fill
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.dataset import ShardInfo, parse_info
from data_pipeline.shards.index import ShardIndex, parse_index
from data_pipeline.shards.remote import Traffic
from data_pipeline.stream import BatchMaker, Placement, Step, StepSize, TrainStream
from data_pipeline.watch import Task
from memo.config import Limits

RANKS, A_NODE = 4096, 8
SEED = 1234
FEWER = (1, 8, 512)
"""Other numbers of ranks."""
A_RANK = 16
"""Clips of a rank in a step: 65,536 over all, as in the largest BERT batches (You et al. 2020)."""
BUDGET = 4096
"""Tokens; holds a rank's 16 clips."""
FULL = ((8, 16_384), (256, 4_096), (256, 16_384), (4096, 4_096), (4096, 16_384))
"""Micro-batches of a step, one a rank, and their budget."""
RESUMED = 6
EPOCHS = 3
A_SHARD = 1000
OPENED = (12_000, 120_000)
"""Shards; 100,000 hours in clips of 3 s are 1.2e8: shards of 10,000 and 1,000."""
MIB = 2**20


class Corpus:
    """A split of clips that have nothing but a length, and their lengths: `Samples` for a stream.

    Args:
        tokens: int64 (N,), of each clip.
        shards: how many there are, of N / shards clips each.
    """

    name, fingerprint, readers, is_remote = "simulated", "0", 1, False
    oldest_work: Task | None = None

    def __init__(self, tokens: NDArray[np.int64], shards: int) -> None:
        self.tokens = tokens
        self.shard_sizes = np.full(shards, len(tokens) // shards)
        self.traffic = Traffic()
        self.longest = Limits().longest

    def __len__(self) -> int:
        return len(self.tokens)

    def order(self, seed: int) -> Order:
        """Of all clips."""
        return Order(seed, self.shard_sizes)

    def fetch(self, samples: NDArray[np.int64]) -> None:
        """Nothing lies elsewhere."""

    def read(self, sample: int) -> Clip:
        """A clip without content."""
        return Clip(str(sample))

    def shard_of(self, sample: int) -> str:
        """Number of the shard."""
        return str(sample // self.shard_sizes[0])

    def location(self, sample: int) -> tuple[str, str]:
        """Number of the shard and of the clip."""
        return self.shard_of(sample), str(sample)

    def of(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Their lengths, as `SampleLengths` has it."""
        return self.tokens[samples]

    def maker(self, rank: int, ranks: int, budget: int = BUDGET) -> BatchMaker:
        """What makes the micro-batches of a rank."""
        quarantine, placement = Quarantine(Path("none"), 0), Placement(rank, ranks)
        return BatchMaker(self, self._example, {}, 1, 1, self, budget, placement, quarantine)

    def _example(self, clip: Clip, sample: int, epoch: int) -> Example:
        text = np.full(self.tokens[sample], epoch)
        rows, none = np.empty((0, 1), np.float32), np.empty(0, bool)
        return Example(sample, clip.key, text, rows, none, rows, none, {})


def main() -> None:
    """Check, measure and print."""
    if sys.argv[1].isdecimal():
        print(json.dumps(opening(int(sys.argv[1]))))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=10**7)
    parser.add_argument("--shards", type=int, default=10**4)
    arguments = parser.parse_args()
    tokens = video_of(arguments.datasets, arguments.tokenizer).tokens
    drawn = np.random.default_rng(SEED).choice(tokens, arguments.clips)
    corpus = Corpus(drawn, arguments.shards)
    result = {
        "tokens of a clip": float(drawn.mean()),
        "steps of an epoch": check_epoch(corpus),
        "ranks that planned a batch": check_every_rank(corpus),
        "streams of other ranks": check_other_ranks(corpus),
        "positions gone on from": check_resuming(corpus),
        "plans": [time_dividing(corpus), *(time_filling(corpus, *one) for one in FULL)],
        "reading": reading(corpus),
        "memory, MiB": memory(),
        "opening": [in_a_process(shards) for shards in OPENED],
        "an index of 1,000 clips, ms": time_index(),
    }
    for title in ("plans", "opening"):
        Console(width=180).print(table(title, result[title]))
    print("RESULT", json.dumps({"simulate": result}))


def table(title: str, rows: object) -> Table:
    """Of the same measurements of several sizes."""
    assert isinstance(rows, list)
    shown = Table(*rows[0], title=title)
    for row in rows:
        shown.add_row(
            *(f"{one:,.4g}" if isinstance(one, float) else str(one) for one in row.values())
        )
    return shown


def batch_at(corpus: Corpus, step: int, samples: int) -> Visits:
    """The global batch of a step."""
    return corpus.order(SEED).visits(np.arange(step * samples, (step + 1) * samples))


def check_epoch(corpus: Corpus) -> int:
    """Plan an epoch on all ranks: every clip is in one micro-batch of one rank, once; the steps."""
    seen, samples = np.zeros(len(corpus), dtype=np.int64), RANKS * A_RANK
    order = corpus.order(SEED)
    for first in range(0, len(corpus), samples):
        chosen = order.visits(np.arange(first, min(first + samples, len(corpus)))).samples
        plan = divide(corpus.of(chosen), RANKS, BUDGET)
        assert len({len(share) for share in plan}) == 1, "ranks have other numbers of micro-batches"
        np.add.at(seen, chosen[np.concatenate([one for share in plan for one in share])], 1)
    assert (seen == 1).all(), "a clip is not there once"
    return -(-len(corpus) // samples)


def check_every_rank(corpus: Corpus) -> int:
    """Every rank makes its share of one batch for itself; together they have it once; the ranks."""
    visits = batch_at(corpus, 1, 2 * RANKS)
    taken: list[int] = []
    for rank in range(RANKS):
        for batch in corpus.maker(rank, RANKS).divided(visits):
            assert batch.tokens <= BUDGET, "a micro-batch is too long"
            assert batch.tokens == corpus.of(batch.samples.numpy()).sum(), "a length differs"
            taken += batch.samples.tolist()
    assert sorted(taken) == sorted(visits.samples.tolist()), "the shares are not the batch"
    return RANKS


def steps(corpus: Corpus, rank: int, ranks: int, first: int, size: StepSize) -> list[Step]:
    """Two steps of a stream that begins at a position; filled micro-batches have two clips."""
    state = StreamState.start(SEED, corpus.fingerprint).advance(first, len(corpus))
    maker = corpus.maker(rank, ranks, 2 * corpus.longest if size.micro_batches else BUDGET)
    with TrainStream(maker, state, size, prefetch=1) as stream:
        return [next(stream), next(stream)]


def check_other_ranks(corpus: Corpus) -> int:
    """Streams of few and of many ranks have the same batches; how many were compared."""
    rng = np.random.default_rng(SEED)
    for size in (StepSize(2 * RANKS), StepSize(0, RANKS)):
        streams = [
            steps(corpus, int(rng.integers(ranks)), ranks, 0, size) for ranks in (*FEWER, RANKS)
        ]
        for other in streams[1:]:
            refuse_different(streams[0], other)
    return 2 * (len(FEWER) + 1)


def check_resuming(corpus: Corpus) -> list[int]:
    """A stream that goes on at a position has the batches that stand there; the positions."""
    rng, samples = np.random.default_rng(SEED), 2 * RANKS
    order, positions = corpus.order(SEED), []
    for number in range(RESUMED):
        first = int(rng.integers(EPOCHS * len(corpus)))
        ranks = (*FEWER, RANKS)[number % (len(FEWER) + 1)]
        for later, step in enumerate(
            steps(corpus, int(rng.integers(ranks)), ranks, first, StepSize(samples))
        ):
            begin = first + later * samples
            there = order.visits(np.arange(begin, begin + samples)).samples
            assert (step.samples == there).all(), "another batch after going on"
            assert step.state_after.position(len(corpus)) == begin + samples, "another state"
        positions.append(first)
    return positions


def refuse_different(one: list[Step], other: list[Step]) -> None:
    """Both streams must have seen the same."""
    for mine, theirs in zip(one, other, strict=True):
        assert (mine.samples == theirs.samples).all(), "other samples on other ranks"
        assert mine.digest == theirs.digest, "another digest on other ranks"
        assert mine.state_after == theirs.state_after, "another state on other ranks"


class Timed(NamedTuple):
    """CPU seconds that a step takes every rank."""

    order: float
    plan: float


def time_dividing(corpus: Corpus, repeats: int = 3) -> dict[str, object]:
    """Figures of steps of a number of clips."""
    samples, shares = RANKS * A_RANK, []
    order, timed = corpus.order(SEED), []
    for step in range(2, 2 + repeats):
        begin = process_time()
        lengths = corpus.of(order.visits(np.arange(step * samples, (step + 1) * samples)).samples)
        ordered = process_time()
        plan = divide(lengths, RANKS, BUDGET)
        timed.append(Timed(ordered - begin, process_time() - ordered))
        shares.append(loads(lengths, plan))
    return {"ranks": RANKS, "a step": f"{A_RANK} clips a rank", **figures(shares, timed, samples)}


def time_filling(corpus: Corpus, ranks: int, budget: int, repeats: int = 3) -> dict[str, object]:
    """Figures of steps that fill a micro-batch a rank; the look-ahead is the stream's."""
    order, timed, shares, taken, position = corpus.order(SEED), [], [], 0, 0
    for _ in range(repeats):
        begin = process_time()
        ahead = ranks * budget // corpus.longest
        while True:
            lengths = corpus.of(order.visits(np.arange(position, position + ahead)).samples)
            if lengths.sum() > ranks * budget:
                break
            ahead *= 2
        ordered = process_time()
        taken, plan = fill(lengths, ranks, ranks, budget)
        timed.append(Timed(ordered - begin, process_time() - ordered))
        position += taken
        shares.append(loads(lengths, plan))
    row = figures(shares, timed, position // repeats)
    return {
        "ranks": ranks,
        "a step": f"budget of {budget:,} full",
        **row,
        "full": full(shares, budget),
    }


def loads(lengths: NDArray[np.int64], plan: list[list[NDArray[np.int64]]]) -> NDArray[np.int64]:
    """Tokens of each micro-batch, int64 (ranks, micro-batches)."""
    return np.array([[lengths[one].sum() for one in share] for share in plan])


def full(shares: list[NDArray[np.int64]], budget: int) -> float:
    """Share of the budget that is used."""
    return float(np.mean([share.mean() for share in shares]) / budget)


def figures(shares: list[NDArray[np.int64]], timed: list[Timed], clips: int) -> dict[str, object]:
    """What several steps have in common."""
    totals = [share.sum(axis=1) for share in shares]
    order, plan = (
        float(np.median([getattr(one, name) for one in timed])) for name in Timed._fields
    )
    return {
        "clips": clips,
        "order and lengths, s": order,
        "plan, s": plan,
        "µs a clip": (order + plan) / clips * 1e6,
        "busiest rank over the mean": float(np.mean([one.max() / one.mean() for one in totals])),
        "full": "",
    }


def reading(corpus: Corpus) -> dict[str, float]:
    """Shards that a node and a rank read a step, and a node in a window."""
    samples, a_shard = RANKS * A_RANK, int(corpus.shard_sizes[0])
    found = []
    for step in range(4):
        chosen = batch_at(corpus, step, samples).samples
        plan = divide(corpus.of(chosen), RANKS, BUDGET)
        ranks = [np.unique(chosen[np.concatenate(share)] // a_shard) for share in plan]
        nodes = [
            len(np.unique(np.concatenate(ranks[first : first + A_NODE])))
            for first in range(0, RANKS, A_NODE)
        ]
        here = len(np.unique(chosen // a_shard))
        found.append([here, float(np.mean(nodes)), float(np.mean([len(one) for one in ranks]))])
    of_all, of_node, of_rank = np.mean(found, axis=0).tolist()
    return {
        "shards in a step": of_all,
        "read by a node": of_node,
        "read by a rank": of_rank,
        "shards in a window": WINDOW_SAMPLES / a_shard,
    }


def in_a_process(shards: int) -> dict[str, float]:
    """`opening` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.simulate", str(shards)]
    row: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return row


def opening(shards: int) -> dict[str, float]:
    """Reading a `dataset.json` of so many shards, and the order of the first batch."""
    about = {"name": "n", "corpus": "c", "licence": "l", "features": {}}
    listed = [shard_of(number, 120_000_000 // shards) for number in range(shards)]
    content = json.dumps({"format": "memo-dataset/1", **about, "shards": listed}).encode()
    del listed
    before, begin = memory(), process_time()
    info = parse_info(content, Path("dataset.json"))
    parsed = process_time()
    sizes = np.array([shard.samples for shard in info.shards])
    Order(SEED, sizes).visits(np.arange(RANKS * A_RANK))
    return {
        "shards": shards,
        "dataset.json, MiB": len(content) / MIB,
        "reading it, s": parsed - begin,
        "order of the first batch, s": process_time() - parsed,
        "memory, MiB": memory() - before,
    }


def memory() -> float:
    """MiB that this process has now."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize() / MIB


def shard_of(number: int, samples: int) -> dict[str, Any]:
    """An entry of `dataset.json`."""
    name, sha256 = f"train-{number:06d}.tar", f"{number:064x}"
    return {"name": name, "split": "train", "samples": samples, "bytes": 1 << 40, "sha256": sha256}


def time_index(clips: int = A_SHARD, repeats: int = 20) -> float:
    """CPU milliseconds of reading the index of a shard, which every rank does for the lengths."""
    sizes = np.full((clips, len(MEMBERS)), 512)
    index = ShardIndex(
        keys=tuple(f"clip-{number:08d}" for number in range(clips)),
        offsets=np.arange(sizes.size).reshape(sizes.shape) * 1024,
        sizes=sizes,
        lengths=np.ones((clips, 3), dtype=np.int32),
        crcs=np.ones(sizes.shape, dtype=np.uint32),
    )
    shard = ShardInfo(**shard_of(0, clips))
    content = index.to_bytes(shard.sha256)
    begin = process_time()
    for _ in range(repeats):
        assert parse_index(content, shard) is not None, "it is not of this shard"
    return (process_time() - begin) / repeats * 1e3


if __name__ == "__main__":
    main()
