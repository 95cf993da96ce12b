"""What it gives that the batches of a step of ASP-MTL are read at once.

    python -m benchmarks.joint

Sixteen tasks of a few texts each, forward, all losses, backward: batch by batch, and all of them
together; on LSTMs with trained word vectors, and on a backbone of MiniLM's size, in bf16 where this
machine has it. The losses are compared first; the sides take turns, and a ratio is that of one
round: the median and the quartiles of the rounds.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from time import process_time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from data_pipeline.packing import Example, PackedBatch, pack
from memo.config import ModelSpec
from memo.heads.asp_mtl import AspNetwork, TaskTexts
from memo.model.memobert import MemoBert
from memo.multitask.config import AspSettings
from memo.multitask.encoders import AdapterEncoder, UpperLayers, WordEncoder
from memo.multitask.texts import TokenStates, WordStates
from memo.training.accelerator import supports_bf16
from memo.words.encoders import WordEmbedding

TASKS, WORDS, CLS = 16, 20_000, 2
WIDTH, HIDDEN = 300, 100
Step = Callable[[], float]


def texts(count: int, longest: int, rng: np.random.Generator) -> PackedBatch:
    """Random texts, a third of them cut at the longest, as those of FDU-MTL at 200 words."""
    nothing = np.zeros(0, dtype=bool)
    lengths = np.minimum(rng.gamma(1.3, longest / 2.4, count).astype(int) + 5, longest)
    examples = [
        Example(
            sample=at,
            key=str(at),
            text_ids=np.concatenate([[CLS], rng.integers(CLS + 1, WORDS, length - 1)]),
            face=np.zeros((0, 1), np.float32),
            face_masked=nothing,
            speech=np.zeros((0, 1), np.float32),
            speech_masked=nothing,
            targets={},
        )
        for at, length in enumerate(lengths)
    ]
    return pack(examples, {}, 1, 1)


def on_words() -> AspNetwork:
    """FS on LSTMs."""
    reader = WordStates(WordEmbedding(torch.randn(WORDS, WIDTH) / 3, frozen=False))
    settings = AspSettings(hidden=HIDDEN)
    return AspNetwork(reader, lambda: WordEncoder(WIDTH, settings), [2] * TASKS, "fs")


def on_backbone() -> AspNetwork:
    """FS on a backbone of 6 layers of 384."""
    spec = ModelSpec(
        vocab_size=WORDS, hidden=384, layers=6, heads=12, ffn=1536, max_positions=512,
        face_dim=1, speech_dim=1, face_classes=1, attention_dropout=0.0,
    )  # fmt: skip
    body = MemoBert(spec)
    upper = UpperLayers(body, 1, CLS, 1, 64)
    reader = TokenStates(body, CLS)
    return AspNetwork(reader, lambda: AdapterEncoder(upper, 0), [2] * TASKS, "fs")


def sides(network: AspNetwork, batches: Sequence[TaskTexts]) -> dict[str, Step]:
    """Name -> a training step, which gives its loss."""

    def step_of(groups: Sequence[Sequence[TaskTexts]]) -> Step:
        def step() -> float:
            network.zero_grad()
            return sum(float(_backward(network, group)) for group in groups)

        return step

    return {"one by one": step_of([[one] for one in batches]), "at once": step_of([batches])}


def _backward(network: nn.Module, group: Sequence[TaskTexts]) -> Tensor:
    loss = torch.stack([one["label"].sum for one in network(group, 0.0)]).sum()
    loss.backward()
    return loss.detach()


def measure(found: Mapping[str, Step], rounds: int) -> list[float]:
    """Ratios of CPU seconds, one by one to at once; the first round does not count."""
    ratios = []
    for number in range(rounds + 1):
        seconds = {}
        for name in sorted(found, reverse=number % 2 == 1):
            begin = process_time()
            found[name]()
            seconds[name] = process_time() - begin
        if number:
            ratios.append(seconds["one by one"] / seconds["at once"])
    return ratios


def main() -> None:
    """Print the table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rng = np.random.default_rng(0)
    dtype = torch.bfloat16 if supports_bf16() else torch.float32
    kinds = {
        "LSTM, float32": (on_words, 8, 200, torch.float32),
        f"backbone, {dtype}": (on_backbone, 2, 190, dtype),
    }
    table = Table("on", "one by one / at once", "quartiles")
    result: dict[str, list[float]] = {}
    for name, (build, count, longest, kind) in kinds.items():
        torch.manual_seed(0)
        network = build().to(kind).eval()
        labels = torch.zeros(count, dtype=torch.int64)
        batches = [TaskTexts(task, texts(count, longest, rng), labels) for task in range(TASKS)]
        found = sides(network, batches)
        np.testing.assert_allclose(found["at once"](), found["one by one"](), rtol=0.02)
        quartiles = np.quantile(measure(found, arguments.rounds), [0.25, 0.5, 0.75])
        low, middle, high = result[name] = [round(float(one), 2) for one in quartiles]
        table.add_row(name, f"{middle:.2f}", f"{low:.2f}..{high:.2f}")
    Console().print(table)
    print("RESULT", json.dumps({"joint": result}))


if __name__ == "__main__":
    main()
