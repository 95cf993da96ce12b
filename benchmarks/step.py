"""A training step on packed tokens against transformers' BertModel on padded ones.

    python -m benchmarks.step --corpora ../shared/data

Both sides see the same clips with the same weights, and embed them with the same embedders (packed:
the padded side gets this for nothing). `BertModel` runs as it is usually run: sdpa attention, each
random batch padded to its longest clip, an attention mask. Both make a whole step: forward,
backward, gradient clipping, fused AdamW. First their outputs are compared; then they take turns,
round by round, and the first round does not count.

With one thread, time is CPU time, which other processes on the machine hardly change; with more, it
is wall time. The model FLOPs are those of the real tokens (`memo.model.flops`), the peak is that of
an fp32 matrix product, measured before each turn.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.clips import half_padding, random_examples, real_lengths, typical_batches
from data_pipeline import cpu_torch
from data_pipeline.packing import PackedBatch, pack
from memo.config import ModelSpec
from memo.model.flops import measure_matmul_peak, training_flops
from memo.model.memobert import MemoBert
from memo.model.pretrained import load_hf_weights

MIXES = ("half", "korean", "ravdess", "korean-cut", "ravdess-cut")
TOLERANCE = 1e-5
SEED = 1234
CPU = torch.device("cpu")


class PaddedBert(nn.Module):
    """The same embedders, then transformers' BertModel on padded tokens.

    Args:
        packed: gives the embedders, which are copied.
        bert: a BertModel; its own embeddings are passed over.
    """

    def __init__(self, packed: MemoBert, bert: nn.Module) -> None:
        super().__init__()
        self.embedders = copy.deepcopy(packed)
        self.embedders.encoder = nn.Identity()  # type: ignore[assignment]
        self.bert = bert
        self.bert.embeddings = _PassThrough()

    def forward(self, batch: PackedBatch) -> Tensor:
        """Hidden states (N, D) of the real tokens."""
        lengths = torch.tensor(batch.seqlens)
        longest = int(lengths.max())
        real = torch.arange(longest) < lengths[:, None]  # (S, T)
        home = real.flatten().nonzero()[:, 0]  # (N,)
        embedded = self.embedders.embed(batch)
        padded = embedded.new_zeros(real.numel(), embedded.shape[1]).index_copy(0, home, embedded)
        inputs = padded.view(*real.shape, -1)  # (S, T, D)
        hidden: Tensor = self.bert(inputs_embeds=inputs, attention_mask=real.long())[0]
        return hidden.flatten(0, 1).index_select(0, home)


class _PassThrough(nn.Module):
    """Stands for BertModel's embeddings where the input is embedded already."""

    def forward(self, inputs_embeds: Tensor, **_: object) -> Tensor:
        """The input as it is."""
        return inputs_embeds


@dataclass
class Candidate:
    """One side: a model, its optimizer, and what its turns took.

    Attributes:
        seconds: of each turn, all batches together.
        wall: the same by the clock on the wall.
        peaks: FLOP/s of the matrix product before each turn.
    """

    model: nn.Module
    seconds: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.01, fused=True)

    def turn(self, batches: list[PackedBatch], clock: Callable[[], float]) -> None:
        """Measure the peak, then one training step on each batch."""
        self.peaks.append(measure_matmul_peak(CPU, clock=clock))
        begin, wall = clock(), time.perf_counter()
        for batch in batches:
            self.step(batch)
        self.seconds.append(clock() - begin)
        self.wall.append(time.perf_counter() - wall)

    def step(self, batch: PackedBatch) -> None:
        """Forward, backward, clip, update; every hidden state has a gradient."""
        hidden = self.model(batch)
        (hidden.square().sum() / hidden.numel()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def forget_first(self) -> None:
        """Drop the first turn, in which memory is taken and threads start."""
        del self.seconds[0], self.wall[0], self.peaks[0]


def build(hidden: int, layers: int, dropout: float) -> tuple[MemoBert, PaddedBert]:
    """Both models with the same random weights, heads of 64."""
    cpu_torch.install()
    from transformers import BertConfig, BertModel  # noqa: PLC0415  # slow to import
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

    disable_progress_bar()
    torch.manual_seed(SEED)
    spec = ModelSpec(
        hidden=hidden,
        layers=layers,
        heads=hidden // 64,
        ffn=4 * hidden,
        vocab_size=8000,
        max_face=512,
        max_speech=512,
        face_dim=342,
        face_classes=8,
        speech_dim=768,
        dropout=dropout,
        attention_dropout=dropout,
    )
    config = BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=spec.heads,
        intermediate_size=spec.ffn,
        vocab_size=spec.vocab_size,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation="sdpa",
    )
    bert = BertModel(config, add_pooling_layer=False)
    packed = MemoBert(spec)
    with tempfile.TemporaryDirectory() as folder:
        bert.save_pretrained(folder)
        load_hf_weights(packed, Path(folder))
    return packed, PaddedBert(packed, bert)


def make_batches(spec: ModelSpec, mix: str, corpora: Path) -> list[PackedBatch]:
    """Random batches of a length mix; smaller ones for a wide model."""
    rng = np.random.default_rng(SEED)
    half = mix == "half"
    rows = half_padding(5000, rng) if half else real_lengths(corpora, mix)
    clips, count = (16, 2) if spec.hidden < 512 else (8, 1)  # so that a turn takes seconds
    batches = []
    for chosen in typical_batches(rows, clips, count, 0.5 if half else None, rng):
        examples = random_examples(chosen, spec.vocab_size, spec.face_dim, spec.speech_dim, rng)
        batches.append(pack(examples, {}, spec.face_dim, spec.speech_dim))
    return batches


def greatest_difference(packed: MemoBert, padded: PaddedBert, batches: list[PackedBatch]) -> float:
    """Of the two outputs, without dropout."""
    packed.eval()
    padded.eval()
    with torch.no_grad():
        worst = max(float((packed(batch) - padded(batch)).abs().max()) for batch in batches)
    packed.train()
    padded.train()
    return worst


def padding_share(batches: list[PackedBatch]) -> float:
    """Share of the padded side's tokens that are padding."""
    padded = sum(len(batch.seqlens) * max(batch.seqlens) for batch in batches)
    return 1 - sum(batch.tokens for batch in batches) / padded


def compare(hidden: int, layers: int, mix: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one size on one length mix."""
    packed, padded = build(hidden, layers, arguments.dropout)
    batches = make_batches(packed.spec, mix, arguments.corpora)
    difference = greatest_difference(packed, padded, batches)
    if difference > TOLERANCE:
        raise SystemExit(f"{hidden}x{layers} {mix}: the outputs differ by {difference:.1e}")
    ours, theirs = Candidate(packed), Candidate(padded)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    for _ in range(arguments.rounds + 1):
        ours.turn(batches, clock)
        theirs.turn(batches, clock)
    ours.forget_first()
    theirs.forget_first()
    flops = sum(training_flops(packed.spec, batch, {}) for batch in batches)
    tokens = sum(batch.tokens for batch in batches)
    return {
        "padding": padding_share(batches),
        "difference": difference,
        "memo": figures(ours, tokens, flops),
        "hf": figures(theirs, tokens, flops),
        "ratio": statistics.median(theirs.seconds) / statistics.median(ours.seconds),
        "ratio_of_min": min(theirs.seconds) / min(ours.seconds),
    }


def figures(candidate: Candidate, tokens: int, flops: float) -> dict[str, float]:
    """Rates of one side: real tokens and their FLOPs."""
    median, peak = statistics.median(candidate.seconds), statistics.median(candidate.peaks)
    return {
        "tokens_per_s": tokens / median,
        "tokens_per_s_best": tokens / min(candidate.seconds),
        "tokens_per_s_wall": tokens / statistics.median(candidate.wall),
        "mfu": flops / median / peak,
        "peak_gflops": peak / 1e9,
        "peak_spread": max(candidate.peaks) / min(candidate.peaks) - 1,
    }


def print_row(name: str, result: dict[str, Any]) -> None:
    """One line of the table."""
    memo, hf = result["memo"], result["hf"]
    print(
        f"{name:20} {result['padding']:7.2f} {memo['tokens_per_s']:9.0f} {hf['tokens_per_s']:9.0f}"
        f" {result['ratio']:6.2f} {result['ratio_of_min']:6.2f} {memo['mfu']:6.2f} {hf['mfu']:6.2f}"
        f" {memo['peak_gflops']:8.1f} {memo['peak_spread']:7.2f} {result['difference']:9.1e}",
        flush=True,
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="256x4,768x12", help="width x layers, ...")
    parser.add_argument("--mixes", default=",".join(MIXES[:3]), help="of " + ", ".join(MIXES))
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side that count")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.0, help="on both sides, both kinds")
    parser.add_argument("--corpora", type=Path, default=Path("../shared/data"))
    return parser.parse_args(arguments)


def main() -> None:
    """Measure every size on every mix; the last line is the result."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    print(f"threads {arguments.threads}, dropout {arguments.dropout}")
    print(
        f"{'size, lengths':20} {'padding':>7} {'memo tok/s':>9} {'hf tok/s':>8} {'ratio':>6}"
        f" {'of min':>6} {'mfu':>6} {'hf mfu':>6} {'peak GF':>8} {'spread':>7} {'differ':>9}"
    )
    results = {}
    for size in arguments.sizes.split(","):
        hidden, layers = map(int, size.split("x"))
        for mix in arguments.mixes.split(","):
            name = f"{size} {mix}"
            results[name] = compare(hidden, layers, mix, arguments)
            print_row(name, results[name])
    summary = {
        "threads": arguments.threads,
        "dropout": arguments.dropout,
        "ratio_to_hf": {name: round(result["ratio"], 3) for name, result in results.items()},
        "mfu": {name: round(result["memo"]["mfu"], 3) for name, result in results.items()},
        "padding": {name: round(result["padding"], 3) for name, result in results.items()},
    }
    print("RESULT " + json.dumps(summary))


if __name__ == "__main__":
    main()
