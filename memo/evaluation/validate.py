"""The validation of a training run: loss and metric of every objective, cheap and repeatable."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from data_pipeline.stream import BatchMaker, eval_batches
from memo.objectives.base import LossSum
from memo.objectives.transform import PretrainTransform


@torch.no_grad()
def validate(
    model: nn.Module,
    transform: PretrainTransform,
    maker: BatchMaker,
    device: torch.device,
    next_batch: Callable[[], None],
) -> dict[str, LossSum]:
    """Every objective's loss and metric on a split, with all modalities in sight.

    Each clip is used once for every modality that an objective hides. Words and rows are those of
    the first repetition of `evaluate`: the same at every step, whatever the number of ranks. Chosen
    words are always [MASK], so the loss of WWMLM is a little above that of training.

    Args:
        model: a `PretrainingModel`, or the engine around it; its mode is restored.
        transform: the run's.
        maker: makes this rank's batches of the split; its own transform is not used.
        device: where the model is.
        next_batch: called before each batch.

    Returns:
        Objective name -> sums over this rank's clips, to be added up over the ranks.
    """
    was_training = model.training
    model.eval()
    sums: dict[str, LossSum] = {}
    for modality in transform.modalities:
        for batch in eval_batches(replace(maker, transform=transform.hiding(modality))):
            next_batch()
            for name, loss in model(batch.to(device)).items():
                before = sums.get(name)
                sums[name] = loss if before is None else LossSum(*map(torch.add, before, loss))
    model.train(was_training)
    return sums
