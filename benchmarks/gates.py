"""What a gate of SoG costs: time of a training step with each gate at each place.

    python -m benchmarks.gates

Two branches of the published size (filters of 3, 4 and 5 words, 256 of each, vectors of 300) read a
batch of texts of each task and answer for their own; forward, both losses, backward. The gates take
turns, round by round, in another order each time; a ratio is that of a step to the one without a
gate in the same round: the median and the quartiles of the rounds.
"""

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from time import process_time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from memo.heads.gates import States
from memo.heads.sog import PLACES, Place, SogNetwork

GATES = ("sig", "silg", "sog", "cag")
WIDTH = 300
EMOTIONS, TRAITS = 7, 5
Step = Callable[[], None]


def texts(count: int, longest: int, rng: np.random.Generator) -> States:
    """Random vectors of texts of half to all of that length."""
    lengths = torch.from_numpy(rng.integers(longest // 2, longest + 1, count))
    lengths[0] = longest
    return States(torch.randn(count, longest, WIDTH), lengths)


def sides(arguments: argparse.Namespace) -> dict[str, Step]:
    """Name -> a training step."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    batches = [texts(arguments.batch, longest, rng) for longest in arguments.longest]
    found = {"none": step_of(None, (), arguments.filters, batches)}
    for gate in GATES:
        for places in (*((one,) for one in PLACES), PLACES):
            name = f"{gate}, {'all' if places == PLACES else places[0]}"
            found[name] = step_of(gate, places, arguments.filters, batches)
    return found


def step_of(gate: str | None, places: Sequence[Place], filters: int, batches: list[States]) -> Step:
    """Forward and backward of a network on a batch of each task."""
    network = SogNetwork(WIDTH, [TRAITS, EMOTIONS], gate, places, filters=filters)  # type: ignore[arg-type]

    def step() -> None:
        network.zero_grad()
        for task, batch in enumerate(batches):
            logits = network([batch, batch]).logits[task]
            F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64)).backward()

    return step


def measure(found: Mapping[str, Step], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of a step of each, round by round; the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    order = list(found)
    for number in range(rounds + 1):
        random.Random(number).shuffle(order)
        for name in order:
            begin = process_time()
            found[name]()
            if number:
                seconds[name].append(process_time() - begin)
    return seconds


def main() -> None:
    """Print the table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=30, help="texts of each task")
    parser.add_argument("--longest", type=int, nargs=2, default=(1500, 95), help="words of a text")
    parser.add_argument("--filters", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seconds = measure(sides(arguments), arguments.rounds)
    table = Table("gate", "CPU seconds of a step", "to none", "quartiles")
    ratios: dict[str, list[float]] = {}
    for name, own in seconds.items():
        quartiles = np.quantile(np.array(own) / np.array(seconds["none"]), [0.25, 0.5, 0.75])
        low, middle, high = ratios[name] = [round(float(one), 3) for one in quartiles]
        table.add_row(name, f"{np.median(own):.3f}", f"{middle:.2f}", f"{low:.2f}..{high:.2f}")
    Console().print(table)
    print("RESULT", json.dumps({"gates": ratios}))


if __name__ == "__main__":
    main()
