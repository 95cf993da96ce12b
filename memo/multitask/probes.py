"""What a trained ASP-MTL network knows: the task in its shared states, and its typical words."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from data_pipeline.packing import PackedBatch
from data_pipeline.stream import eval_batches
from memo.heads.asp_mtl import AspNetwork
from memo.multitask.encoders import WordEncoder
from memo.multitask.setup import SystemFold
from memo.multitask.texts import WordStates
from memo.words.vocabulary import UNKNOWN, Vocabulary

TYPICAL = 10
"""Words that are named."""
SEEN = 5
"""Times that a word occurs before it is named."""


@torch.no_grad()
def told_tasks(fold: SystemFold, network: AspNetwork) -> float:
    """How often a linear probe tells the task of a test text by its shared state.

    The discriminator that a network was trained against may have lost for want of learning; a
    probe that is fitted afterwards, on the validation parts, has not. Chance is 1 / K.
    """
    network.eval()
    states, tasks = {}, {}
    for part in ("valid", "test"):
        found = [_states(fold, network, task, part) for task in range(len(fold.setup.members))]
        states[part] = np.concatenate(found)
        tasks[part] = np.repeat(np.arange(len(found)), [len(one) for one in found])
    centre, spread = states["valid"].mean(axis=0), states["valid"].std(axis=0) + 1e-6
    probe = LogisticRegression(max_iter=300)
    probe.fit((states["valid"] - centre) / spread, tasks["valid"])
    return float(probe.score((states["test"] - centre) / spread, tasks["test"]))


def _states(fold: SystemFold, network: AspNetwork, task: int, part: str) -> NDArray[np.float32]:
    """(n, d), of all texts, on every rank."""
    maker = fold.maker(task, getattr(fold.part(task), part), alone=True)
    found = []
    for batch in eval_batches(maker):
        fold.ranks.does(f"{fold.name}, shared states")
        found.append(network.shared_states(batch.to(fold.ranks.device)))
    return np.concatenate([one.float().cpu().numpy() for one in found])


def typical_words(
    fold: SystemFold, vocabulary: Vocabulary, network: AspNetwork
) -> dict[str, dict[str, list[str]]]:
    """Words that most move an answer through the shared and through each private encoder.

    A word's share in a text is its vector times the gradient of what the encoder's state adds to
    the last class's logit over the first's (the paper shows neurons' activations, its Table 4); its
    weight is the mean of its shares in the validation parts.

    Returns:
        Encoder -> `for` and `against` the last class -> words, the strongest first.
    """
    network.eval()
    sums: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for task, member in enumerate(fold.setup.members):
        maker = fold.maker(task, fold.part(task).valid, alone=True)
        for batch in eval_batches(maker):
            fold.ranks.does(f"{fold.name}, typical words")
            on_device = batch.to(fold.ranks.device)
            for name, shares in _shares(network, on_device, task, member.name).items():
                for number, share in zip(batch.text_ids.tolist(), shares, strict=True):
                    sums[name][number].append(share)
    return {name: _strongest(of_word, vocabulary) for name, of_word in sums.items()}


def _shares(
    network: AspNetwork, batch: PackedBatch, task: int, name: str
) -> dict[str, list[float]]:
    """Of each encoder that reads a batch: every word's share, (L,)."""
    encoders = {"shared": network.shared}
    if len(network.private):
        encoders[f"private, {name}"] = network.private[task]
    first, found = 0, {}
    assert isinstance(network.reader, WordStates), "of words"
    rows = network.reader.rows(batch)  # (L, D)
    output = network.output(task)
    assert isinstance(output, nn.Linear), "an output layer"
    direction = output.weight[-1] - output.weight[0]  # (d,) or (2 d,)
    for label, encoder in encoders.items():
        if encoder is None:
            continue
        assert isinstance(encoder, WordEncoder), "words have these"
        found[label] = _of_encoder(encoder, rows, batch, direction[first : first + encoder.width])
        first += encoder.width
    return found


def _of_encoder(
    encoder: WordEncoder, rows: Tensor, batch: PackedBatch, direction: Tensor
) -> list[float]:
    encoder.train()  # it has no dropout, and cuDNN's LSTM has gradients in training alone
    vectors = rows.detach().requires_grad_()
    score = (encoder(vectors, batch) * direction.detach()).sum()
    (gradient,) = torch.autograd.grad(score, vectors)
    return [float(one) for one in (gradient * vectors.detach()).sum(dim=1).tolist()]


def _strongest(of_word: Mapping[int, list[float]], vocabulary: Vocabulary) -> dict[str, list[str]]:
    means = {
        number: float(np.mean(shares))
        for number, shares in of_word.items()
        if number > UNKNOWN and len(shares) >= SEEN
    }
    ascending = sorted(means, key=lambda number: (means[number], number))
    word = {number: vocabulary.words[number - UNKNOWN - 1] for number in ascending}
    return {
        "for": [word[number] for number in reversed(ascending[-TYPICAL:])],
        "against": [word[number] for number in ascending[:TYPICAL]],
    }
