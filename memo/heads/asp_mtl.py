"""Shared-private multitask networks for text (Liu, Qiu and Huang, ACL 2017, ASP-MTL).

- `alone`: a private encoder and an output layer a task, nothing shared: the single-task baselines.
- `fs`: one shared encoder, an output layer a task.
- `sp`: a private encoder a task beside it; shared and private states stand end to end.
- `asp`: `sp`, with a discriminator that the shared encoder must not satisfy, and shared and private
  states that must not say the same.

A batch is of one task, or unlabelled text of it, which enters the two adversarial losses alone; the
words or tokens of several are read at once.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from copy import deepcopy
from typing import Literal, NamedTuple, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.packing import PackedBatch, join_texts
from memo.heads.adversary import Discriminator, orthogonality
from memo.model.dropout import Dropout
from memo.objectives.base import LossSum

Sharing: TypeAlias = Literal["alone", "fs", "sp", "asp"]


class Reader(Protocol):
    """A module that makes what all encoders read: rows of words or tokens."""

    def rows(self, batch: PackedBatch) -> Tensor:
        """(L, D), all texts end to end."""
        ...


class Encoder(Protocol):
    """A module that makes one state of each text.

    Attributes:
        width: d, of the state.
    """

    width: int

    def __call__(self, rows: Tensor, texts: PackedBatch) -> Tensor:
        """(L, D), B texts -> (B, d)."""
        ...

    def idle(self, rows: Tensor) -> Tensor:
        """Zero, through all parameters that are the encoder's alone; `rows` is (0, D)."""
        ...


class AspStates(NamedTuple):
    """What the encoders say of B texts of one task.

    Attributes:
        shared: (B, d); None where nothing is shared.
        private: (B, d); None where nothing is private.
    """

    shared: Tensor | None
    private: Tensor | None


class TaskTexts(NamedTuple):
    """A batch of one task.

    Attributes:
        task: its number.
        texts: B of them.
        labels: int64 (B,); None of unlabelled text.
    """

    task: int
    texts: PackedBatch
    labels: Tensor | None


class AspNetwork(nn.Module):
    """Encoders, output layers and the discriminator of K tasks.

    Args:
        reader: a `Reader`, the same for all encoders.
        encoder: makes a new `Encoder`; the shared one first, then one a task.
        classes: C_k of each task.
        sharing: which network.
        normalised: form of the orthogonality (see `orthogonality`).
        dropout: of the states, before the output layer.
        one_output: tasks of as many classes have one output layer for all of them (as in MAN,
            Chen and Cardie, NAACL 2018) instead of one each.
    """

    def __init__(
        self,
        reader: nn.Module,
        encoder: Callable[[], nn.Module],
        classes: Sequence[int],
        sharing: Sharing,
        normalised: bool = False,
        dropout: float = 0.0,
        one_output: bool = False,
    ) -> None:
        super().__init__()
        self.sharing = sharing
        self.reader = reader
        self.normalised = normalised
        self.shared = encoder() if sharing != "alone" else None
        self.private = nn.ModuleList(encoder() for _ in classes if sharing != "fs")
        encoders = [one for one in (self.shared, *self.private[:1]) if one is not None]
        self._width = sum(cast("Encoder", one).width for one in encoders)
        self.dropout = Dropout(dropout)
        kinds = list(dict.fromkeys(classes))
        self._output_of = [kinds.index(one) if one_output else at for at, one in enumerate(classes)]
        self.outputs = _output_layers(self._width, kinds if one_output else classes)
        if sharing == "asp":
            self.discriminator = Discriminator(cast("Encoder", self.shared).width, len(classes))

    def encode(self, texts: PackedBatch, task: int) -> AspStates:
        """The states of texts of one task."""
        rows = cast("Reader", self.reader).rows(texts)
        shared = None if self.shared is None else self.shared(rows, texts)
        return AspStates(shared, self._private(rows, texts, task))

    def _private(self, rows: Tensor, texts: PackedBatch, task: int) -> Tensor | None:
        return self.private[task](rows, texts) if len(self.private) else None

    def shared_states(self, texts: PackedBatch) -> Tensor:
        """(B, d); something is shared."""
        assert self.shared is not None, "something is shared"
        states: Tensor = self.shared(cast("Reader", self.reader).rows(texts), texts)
        return states

    def logits(self, states: AspStates, task: int) -> Tensor:
        """(B, C_k)."""
        logits: Tensor = self.output(task)(self.dropout(_end_to_end(states)))
        return logits.float()

    def output(self, task: int) -> nn.Module:
        """The output layer of a task: shared and private states end to end -> (B, C_k)."""
        return self.outputs[self._output_of[task]]

    def forward(self, batches: Sequence[TaskTexts], weight: float) -> list[dict[str, LossSum]]:
        """Losses of batches of one task each; all of them are read at once.

        Args:
            batches: one or more.
            weight: of the gradient reversal.

        Returns:
            For each batch `label`, with the right answers as its metric; of `asp` also `adversary`,
            with the texts whose task is recognised, and `difference`, a sum over batches. `label`
            of unlabelled text is zero.
        """
        texts = join_texts([one.texts for one in batches])
        rows = cast("Reader", self.reader).rows(texts)
        found = [
            self._losses(states, one, weight)
            for states, one in zip(self._states(rows, texts, batches), batches, strict=True)
        ]
        label = found[0]["label"]
        idle = self._idle(rows, {one.task for one in batches})
        found[0]["label"] = label._replace(sum=label.sum + idle)
        return found

    def _states(
        self, rows: Tensor, texts: PackedBatch, batches: Sequence[TaskTexts]
    ) -> Iterator[AspStates]:
        """Of each batch; the shared encoder reads all texts at once."""
        counts = [len(one.texts.seqlens) for one in batches]
        whole = None if self.shared is None else self.shared(rows, texts)
        shared = [None] * len(batches) if whole is None else whole.split(counts)
        parts = rows.split([one.texts.tokens for one in batches])
        for own, part, one in zip(shared, parts, batches, strict=True):
            yield AspStates(own, self._private(part, one.texts, one.task))

    def _losses(self, states: AspStates, batch: TaskTexts, weight: float) -> dict[str, LossSum]:
        """See `forward`."""
        task, texts, labels = batch
        logits = self.logits(states, task)
        if labels is None:
            logits, labels = logits[:0], texts.samples[:0]
        right = (logits.detach().argmax(dim=1) == labels).sum().float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        losses = {"label": LossSum(loss, loss.new_tensor(float(len(labels))), right)}
        if self.sharing == "asp":
            assert states.shared is not None, "asp has a shared encoder"
            assert states.private is not None, "and private ones"
            numbers = torch.full((len(states.shared),), task, device=states.shared.device)
            losses["adversary"] = self.discriminator(states.shared, numbers, weight)
            apart = orthogonality(states.shared, states.private, self.normalised)
            losses["difference"] = LossSum(apart, apart.new_ones(()), apart.detach())
        return losses

    def _idle(self, rows: Tensor, tasks: Collection[int]) -> Tensor:
        """Zero, through what is of tasks alone that have no part in a step's batches.

        Every parameter thus gets a gradient from every batch: an optimizer that holds all of them
        in one flat tensor (ZeRO) and one that does not then do the same.
        """
        others = [at for at in range(len(self.private)) if at not in tasks]
        sums = [cast("Encoder", self.private[at]).idle(rows[:0]) for at in others]
        nothing = rows.new_zeros(0, self._width)
        sums += [output(nothing).sum() for output in self.outputs]
        return torch.stack([one.float() for one in sums]).sum()


def _end_to_end(states: AspStates) -> Tensor:
    """(B, d) or (B, 2 d)."""
    return torch.cat([one for one in states if one is not None], dim=1)


def _output_layers(width: int, classes: Sequence[int]) -> nn.ModuleList:
    """Those of as many classes begin alike, so that they pull a shared encoder in one direction."""
    first = {count: nn.Linear(width, count) for count in dict.fromkeys(classes)}
    return nn.ModuleList(deepcopy(first[count]) for count in classes)


class Transfer(nn.Module):
    """A new task on the frozen shared encoder of others (section 5.4 of the paper).

    Args:
        reader: a `Reader`; it is frozen.
        shared: trained on the other tasks; it is frozen.
        classes: C.
        private: a new encoder beside it (bi-channel); None for the shared one alone.
        dropout: of the states, before the output layer.
    """

    def __init__(
        self,
        reader: nn.Module,
        shared: nn.Module,
        classes: int,
        private: nn.Module | None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.reader = reader.requires_grad_(requires_grad=False)
        self.shared = shared.requires_grad_(requires_grad=False)
        self.private = private
        self.dropout = Dropout(dropout)
        width = cast("Encoder", shared).width
        self.output = nn.Linear(width if private is None else 2 * width, classes)

    def forward(self, texts: PackedBatch) -> Tensor:
        """(B, C)."""
        rows = cast("Reader", self.reader).rows(texts)
        parts = [self.shared(rows, texts)]
        if self.private is not None:
            parts.append(self.private(rows, texts))
        logits: Tensor = self.output(self.dropout(torch.cat(parts, dim=1)))
        return logits.float()
