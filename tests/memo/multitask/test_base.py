"""Losses of tasks against formulas, number by number."""

import math
from dataclasses import replace

import pytest
import torch

from data_pipeline.packing import PackedBatch, PackedTargets
from memo.heads.base import LABEL
from memo.multitask.base import probabilities, task_loss
from tests.memo.multitask.small_system import pack_texts

LOGITS = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.2, -0.3], [-0.4, 0.1, 0.3], [0.1, 0.9, -2.0]])


def texts(targets: torch.Tensor) -> PackedBatch:
    packed = pack_texts([[2]] * len(targets))
    return replace(packed, targets={LABEL: PackedTargets(packed.cu_seqlens[:-1].long(), targets)})


def test_of_classes_it_is_the_cross_entropy() -> None:
    labels = [2, 1, 2, 0]
    found = task_loss(LOGITS, texts(torch.tensor(labels)[:, None]), multi_label=False)
    rows = [[math.exp(one) for one in row] for row in LOGITS.tolist()]
    shares = [row[label] / sum(row) for row, label in zip(rows, labels, strict=True)]
    assert found.sum.item() == pytest.approx(-sum(math.log(one) for one in shares), rel=1e-5)
    assert (found.count.item(), found.metric_sum.item()) == (4, 2)


def test_of_traits_it_is_the_mean_soft_margin() -> None:
    """Of each text the mean over its traits, as torch's MultiLabelSoftMarginLoss has it."""
    has = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]
    found = task_loss(LOGITS, texts(torch.tensor(has)), multi_label=True)
    margins = [
        [math.log1p(math.exp(-one if there else one)) for one, there in zip(row, own, strict=True)]
        for row, own in zip(LOGITS.tolist(), has, strict=True)
    ]
    assert found.sum.item() == pytest.approx(sum(sum(row) / 3 for row in margins), rel=1e-5)
    right = [3, 1, 2, 2]
    assert found.metric_sum.item() == pytest.approx(sum(right) / 3)
    assert found.count.item() == 4


def test_probabilities_of_classes_add_up_and_those_of_traits_do_not() -> None:
    row = LOGITS[0].tolist()
    exps = [math.exp(one) for one in row]
    torch.testing.assert_close(
        probabilities(LOGITS, multi_label=False)[0], torch.tensor(exps) / sum(exps)
    )
    torch.testing.assert_close(
        probabilities(LOGITS, multi_label=True)[0],
        torch.tensor([1 / (1 + math.exp(-one)) for one in row]),
    )
