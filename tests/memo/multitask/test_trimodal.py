"""How the trimodal system is trained, measured and answers, against sums over single samples."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from data_pipeline.packing import PackedBatch, PackedTargets
from memo.heads.base import LABEL
from memo.multitask.base import TaskKind
from memo.multitask.batches import TaskBatch
from memo.multitask.config import TrimodalSettings
from memo.multitask.posts import POST, PRESENT
from memo.multitask.trimodal import TrimodalSystem, pattern_names
from tests.memo.multitask.small_system import pack_texts

WIDTH, CLASSES = 4, 3
HAS = [
    (True, True, True), (True, False, True), (False, True, False), (False, False, True),
    (True, True, False), (True, True, True),
]  # fmt: skip


class Table(nn.Module):
    """Stands for the encoder: the states of a sample, by its only word."""

    states: Tensor

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(1)
        self.register_buffer("states", torch.randn(len(HAS), 3, WIDTH, generator=rng))

    def forward(self, batch: PackedBatch) -> Tensor:
        """(S, 3, width); zero where there is nothing."""
        return self.states[batch.text_ids] * batch.targets[PRESENT].values[:, :, None]


def system(fusion: str) -> TrimodalSystem:
    torch.manual_seed(0)
    settings = TrimodalSettings.model_validate({"width": WIDTH, "fusion": fusion})
    kinds = [TaskKind("mood", CLASSES, multi_label=False)]
    return TrimodalSystem(kinds, Table(), POST, settings)


def posts(numbers: Sequence[int]) -> PackedBatch:
    packed = pack_texts([[one] for one in numbers])
    places = packed.cu_seqlens[:-1].long()
    beside = {
        PRESENT: PackedTargets(places, torch.tensor([HAS[one] for one in numbers])),
        LABEL: PackedTargets(places, torch.tensor([[one % CLASSES] for one in numbers])),
    }
    return replace(packed, targets=beside)


def means(model: TrimodalSystem, numbers: Sequence[int]) -> Tensor:
    """Of each modality over the samples that have it, one by one."""
    assert isinstance(model.encoder, Table)
    rows = []
    for modality in range(3):
        there = [model.encoder.states[one, modality] for one in numbers if HAS[one][modality]]
        rows.append(sum(there, torch.zeros(WIDTH)) / len(there))
    return torch.stack(rows)


def test_what_is_absent_is_the_mean_of_what_was_there() -> None:
    model = system("mean")
    model.calibrate([posts([0, 1, 2]), posts([3, 4])], lambda own: own)
    torch.testing.assert_close(model.means, means(model, range(5)))
    model.calibrate([posts([1, 2])], lambda own: own)  # measured anew
    torch.testing.assert_close(model.means, means(model, [1, 2]))


def test_the_mean_is_that_of_the_samples_of_all_ranks() -> None:
    """The ranks have samples of unlike number; the others' sums are added to one's own."""
    model, other, sums = system("mean"), system("mean"), list[Tensor]()

    def told(own: Tensor) -> Tensor:
        sums.append(own)
        return own

    other.calibrate([posts([4])], told)
    added = iter(sums)
    model.calibrate([posts([0, 1]), posts([2, 3])], lambda own: own + next(added))
    torch.testing.assert_close(model.means, means(model, range(5)))


def test_what_is_absent_is_filled_in_training_as_in_the_test() -> None:
    """The loss of `mean`, post by post; states of what is there alone have a gradient."""
    model, numbers = system("mean"), range(len(HAS))
    assert isinstance(model.encoder, Table)
    model.calibrate([posts(numbers)], lambda own: own)
    model.encoder.states.requires_grad_()
    batch = posts(numbers)
    (loss,) = model(TaskBatch(0, batch, labelled=True, counts={})).values()
    told = [by_hand(model, one, [at for at in range(3) if HAS[one][at]]) for one in numbers]
    own = [-row[one % CLASSES].log() for one, row in zip(numbers, told, strict=True)]
    torch.testing.assert_close(loss.sum, torch.stack(own).sum())
    loss.sum.backward()
    assert model.encoder.states.grad is not None
    assert model.encoder.states.grad.any(dim=2).tolist() == [list(one) for one in HAS]


@torch.no_grad()
def by_hand(model: TrimodalSystem, number: int, seen: Sequence[int]) -> Tensor:
    """The probabilities of one sample from some of what it has."""
    assert isinstance(model.encoder, Table)
    states, classifiers = model.encoder.states[number], model.network.classifiers
    if model.fusion == "late":
        votes = [classifiers[at](states[at]).softmax(0) for at in seen]
        return torch.stack(votes).mean(dim=0)
    if model.fusion == "seven":
        (own,) = [at for at, one in enumerate(model.network.subsets) if one == tuple(seen)]
        rows = states[list(seen)]
    else:
        own, absent = 0, model.means if model.fusion == "mean" else torch.zeros(3, WIDTH)
        rows = torch.stack([states[at] if at in seen else absent[at] for at in range(3)])
    logits: Tensor = classifiers[own](rows.flatten())
    return logits.softmax(dim=0)


@pytest.mark.parametrize("fusion", ["seven", "concat", "mean", "late"])
def test_answers_are_those_of_each_sample_and_pattern_alone(fusion: str) -> None:
    model, numbers = system(fusion), range(len(HAS))
    model.calibrate([posts(numbers)], lambda own: own)
    found = model.answers(posts(numbers), 0)
    assert list(found) == pattern_names(POST)
    for pattern, rows in found.items():
        visible = [POST.index(name) for name in pattern.split("+")]
        for number, row in zip(numbers, rows, strict=True):
            seen = [at for at in visible if HAS[number][at]]
            nothing = torch.full((CLASSES,), torch.nan)
            expected = by_hand(model, number, seen) if seen else nothing
            torch.testing.assert_close(row, expected, equal_nan=True)


@pytest.mark.parametrize(
    ("fusion", "needs"),
    [
        ("concat", {"image+text+tags": 6}),
        ("mean", {"image+text+tags": 6}),
        ("late", {"image": 4, "text": 4, "tags": 4}),
        (
            "seven",
            {"image": 4, "text": 4, "tags": 4, "image+text": 3, "image+tags": 3, "text+tags": 2}
            | {"image+text+tags": 2},
        ),
    ],
)
def test_classifiers_are_trained_on_the_samples_that_they_can_read(
    fusion: str, needs: dict[str, int]
) -> None:
    model, batch = system(fusion), posts(range(len(HAS)))
    counts = model.counts(0, batch, labelled=True)
    assert counts == needs
    losses = model(TaskBatch(0, batch, labelled=True, counts=counts))
    assert {name: one.count.item() for name, one in losses.items()} == needs
