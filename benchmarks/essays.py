"""What the published 60.6 % on Essays measures: the best epoch on the test fold.

    python -m benchmarks.essays --source sog_text.tar.xz --pretrained runs/minilm

Mehta et al. ("Bottom-Up and Top-Down", ICDM 2020) embed an essay with a frozen BERT and train, for
each trait in each of 10 folds, a network of 50 units for 10 epochs. Their public code scores it on
the test fold after every epoch and reports the maximum. This trains the same network in the same
folds on the states of a memo checkpoint and reports three accuracies of one training: of that
best epoch, of the last one, and of the epoch that a tenth of the training essays chooses.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.clip import Clip
from data_pipeline.corpora.base import load_corpus
from data_pipeline.corpora.essays import TRAITS
from data_pipeline.corpora.source import open_source
from data_pipeline.packing import pack
from memo.model.memobert import MemoBert
from memo.multitask.excerpt import Excerpt
from memo.multitask.texts import TextTransform, cut_pieces, in_windows, label_specs
from memo.training.checkpoint import open_checkpoint

FOLDS, EPOCHS, BATCH, UNITS, LR = 10, 10, 32, 50, 5e-4
"""Of the public code."""
HELD_OUT = 10
"""One of so many training essays chooses an epoch."""


@dataclass(frozen=True)
class Scores:
    """Accuracies of one network on its test fold."""

    best: float
    last: float
    chosen: float


def read_essays(source: Path) -> tuple[list[str], NDArray[np.int64]]:
    """Texts in the corpus's order, and the answers (n, 5) to its traits, 0 or 1."""
    found = load_corpus("essays").recordings(open_source(source))
    answers = [[one.labels[trait] == "yes" for trait in TRAITS.values()] for one in found]
    return [one.text or "" for one in found], np.array(answers, dtype=np.int64)


@torch.inference_mode()
def embed(texts: Sequence[str], pretrained: Path, longest: int) -> NDArray[np.float32]:
    """Mean state of each text's tokens after every layer, float32 (layers + 1, n, D), read in bf16.

    Args:
        texts: n of them.
        pretrained: a checkpoint or its run.
        longest: pieces of a text that are read, in windows of the backbone's length.
    """
    checkpoint = open_checkpoint(pretrained)
    spec, tokenizer = checkpoint.spec, checkpoint.tokenizer()
    backbone = MemoBert(spec).eval()
    prefix = "backbone."
    weights = checkpoint.weights()
    backbone.load_state_dict(
        {key.removeprefix(prefix): one for key, one in weights.items() if key.startswith(prefix)}
    )
    cut = cut_pieces(tokenizer, Excerpt(longest), spec.max_positions - 2)
    dims = spec.face_dim, spec.speech_dim
    transform = TextTransform(cut, np.zeros((1, 1), np.int64), *dims)
    means = []
    for text in texts:
        example = transform(Clip(key="essay", text=text), 0, 0)
        batch = in_windows(pack([example], label_specs(1), *dims), tokenizer.cls_id)
        with torch.autocast("cpu", torch.bfloat16):
            states = backbone.states(batch)
        means.append(torch.stack([state.float().mean(dim=0) for state in states]))
    return torch.stack(means, dim=1).numpy()


def train(
    features: Tensor, answers: Tensor, parts: Sequence[NDArray[np.int64]], seed: int
) -> Scores:
    """One network for one trait and fold.

    Args:
        features: float32 (n, D).
        answers: int64 (n,), 0 or 1.
        parts: essays that train, that choose an epoch, and that test.
        seed: of the weights and the order.
    """
    generator = torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(features.shape[1], UNITS), nn.ReLU(), nn.Linear(UNITS, 2))
    optimizer = torch.optim.Adam(network.parameters(), LR, fused=True)
    training, *held_out = [torch.from_numpy(part) for part in parts]
    course = []
    for _ in range(EPOCHS):
        order = training[torch.randperm(len(training), generator=generator)]
        for rows in order.split(BATCH):
            target = F.one_hot(answers[rows], 2).float()
            loss = F.binary_cross_entropy_with_logits(network(features[rows]), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        course.append([accuracy(network, features[rows], answers[rows]) for rows in held_out])
    choosing, testing = np.array(course).T  # (epochs,) each
    return Scores(*map(float, (testing.max(), testing[-1], testing[choosing.argmax()])))


@torch.inference_mode()
def accuracy(network: nn.Module, features: Tensor, answers: Tensor) -> float:
    """Share of right answers."""
    return float((network(features).argmax(dim=1) == answers).float().mean())


def runs(features: NDArray[np.float32], answers: NDArray[np.int64]) -> Iterator[tuple[int, Scores]]:
    """Trait -> scores, of every fold; folds as scikit-learn makes them without shuffling."""
    rows = torch.from_numpy(features)
    for trait in range(answers.shape[1]):
        own = answers[:, trait]
        folds = StratifiedKFold(FOLDS).split(features, own)
        for fold, (training, testing) in enumerate(folds):
            choosing = training[::HELD_OUT]
            parts = np.setdiff1d(training, choosing), choosing, testing
            yield trait, train(rows, torch.from_numpy(own), parts, fold)


def summary(found: Sequence[tuple[int, Scores]], traits: int) -> dict[str, list[float]]:
    """Way of choosing -> mean accuracy of each trait over its folds, and of all."""
    table = {}
    for way in ("best", "last", "chosen"):
        of_trait = [
            float(np.mean([getattr(scores, way) for own, scores in found if own == trait]))
            for trait in range(traits)
        ]
        table[way] = [*of_trait, float(np.mean(of_trait))]
    return table


def main() -> None:
    """Print the table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="Essays, folder or archive")
    parser.add_argument("--pretrained", type=Path, required=True, help="checkpoint or its run")
    parser.add_argument("--longest", type=int, default=510, help="pieces of an essay")
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 5], help="0: the embeddings")
    arguments = parser.parse_args()
    texts, answers = read_essays(arguments.source)
    states = embed(texts, arguments.pretrained, arguments.longest)
    table = Table("layer", "epoch", *TRAITS.values(), "average")
    results = {}
    for layer in arguments.layers:
        found = summary(list(runs(states[layer], answers)), answers.shape[1])
        results[layer] = found
        for way, scores in found.items():
            table.add_row(str(layer), way, *(f"{score:.3f}" for score in scores))
    Console().print(table)
    print(f"RESULT {json.dumps(results)}")


if __name__ == "__main__":
    main()
