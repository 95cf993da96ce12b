"""What is counted of collective operations."""

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.collectives import Counting


def all_reduce(tensor: Tensor, op: str = "sum", *, group: str | None = None) -> str:
    return f"{len(tensor)} {op} {group}"


def all_gather(tensor_list: list[Tensor], tensor: Tensor) -> None:
    pass


def reduce_scatter_tensor(output: Tensor, input: Tensor) -> None:
    pass


@pytest.mark.parametrize(
    ("operation", "arguments", "sent"),
    [
        (all_reduce, [torch.zeros(5)], 40),
        (all_gather, [[torch.zeros(3), torch.zeros(3)], torch.zeros(3)], 24),
        (reduce_scatter_tensor, [torch.zeros(2), torch.zeros(4, dtype=torch.bfloat16)], 8),
    ],
)
def test_a_whole_tensor_counts_as_often_as_a_ring_sends_it(
    operation: Any,  # noqa: ANN401
    arguments: list[Any],
    sent: int,
) -> None:
    counting = Counting()
    counting.wrap(operation.__name__, operation)(*arguments)
    assert counting.sent["deepspeed", operation.__name__] == sent
    assert counting.calls["deepspeed", operation.__name__] == 1


def test_an_operation_does_what_it_did() -> None:
    counted = Counting().wrap("all_reduce", all_reduce)
    assert counted(torch.zeros(5), "max", group="g") == "5 max g"


def test_what_an_operation_calls_is_not_counted() -> None:
    counting = Counting()
    inner = counting.wrap("all_reduce", all_reduce)

    def broadcast(tensor: Tensor) -> None:
        inner(tensor)

    counting.wrap("broadcast", broadcast)(tensor=torch.zeros(5))
    assert dict(counting.calls) == {("deepspeed", "broadcast"): 1}
    inner(torch.zeros(5))
    assert counting.calls["deepspeed", "all_reduce"] == 1


def test_agreements_are_counted_apart() -> None:
    counting = Counting()
    inner = counting.wrap("all_reduce", all_reduce)
    counting.agreed(inner)(torch.zeros(2, dtype=torch.float64))
    inner(torch.zeros(2))
    assert dict(counting.sent) == {("memo", "all_reduce"): 32, ("deepspeed", "all_reduce"): 16}
