"""Several tasks' batches that are read at once."""

from hypothesis import given
from hypothesis import strategies as st

from memo.multitask.batches import TaskBatch, join_batches
from tests.memo.multitask.small_system import pack_texts

LARGEST = (6, 9, 20)


@given(tasks=st.lists(st.integers(0, 2), min_size=1, max_size=12), budget=st.integers(5, 60))
def test_joint_batches_keep_the_order_and_the_budget(tasks: list[int], budget: int) -> None:
    batches = [
        TaskBatch(task, pack_texts([[2] * (at % 4 + 1)]), labelled=True, counts={"loss": at})
        for at, task in enumerate(tasks)
    ]
    joined = join_batches(batches, LARGEST, budget)
    assert [part for one in joined for part in one.parts] == batches
    assert sum(one.tokens for one in joined) == sum(one.tokens for one in batches)
    assert sum(one.count("loss") for one in joined) == sum(range(len(tasks)))
    for one, following in zip(joined, [*joined[1:], None], strict=True):
        size = sum(LARGEST[part.task] for part in one.parts)
        assert len(one.parts) == 1 or size <= budget
        if following is not None:  # as full as can be
            assert size + LARGEST[following.parts[0].task] > budget
