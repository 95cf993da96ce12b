"""The most costly micro-batches, before the first step: too little memory is found in seconds.

A rank may run out of memory while the others wait for it in a collective operation. It tells them
through the rendezvous' store, and all of them end with one line.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from memo.config import AUTO, PretrainConfig
from memo.training.engine import choose_precision
from memo.training.footprint import (
    SPARE,
    Footprint,
    largest_budget,
    most_useful,
    passing_bytes,
)
from memo.training.loop import Run
from memo.training.memory import GIB, free_bytes, is_shortage, limited, peak_bytes
from memo.training.worst_batch import KINDS, worst_batch


def settle_budget(run: Run) -> Run:
    """With `batch.token_budget=auto`, the largest budget that fits on every rank.

    It is told from meta tensors and the memory that is free now, when the engine holds all that it
    will hold, and is no larger than a rank's share of the global batch can be.

    Args:
        run: whose engine stands; all ranks call this, and are watched over.

    Returns:
        The run with a number for a budget.

    Raises:
        AgreedError: not even the longest sequence fits.
    """
    if run.config.batch.token_budget != AUTO:
        return run
    free = free_bytes(run.ranks.device)
    fits = _largest(run, free, most_useful(run.config, run.ranks.count))
    if fits is None:
        run.ranks.refuse(f"batch.token_budget=auto: {_nothing_fits(run, free)}")
    budget = -run.ranks.max(-fits)
    config = with_budget(run.config, budget)
    return replace(run, config=config, makers=run.makers.within(budget))


def rehearse(run: Run) -> str:
    """Take a step with the most costly micro-batches that the settings allow; it changes nothing.

    Args:
        run: whose engine stands; all ranks call this, and are watched over.

    Returns:
        A line about the memory that it took on this rank.

    Raises:
        AgreedError: they do not fit; says what would.
    """
    config, device = run.config, run.ranks.device
    free, budget = free_bytes(device), config.batch.token_budget
    if not config.batch.micro_batches:
        budget = min(budget, most_useful(config, run.ranks.count))
    run.ranks.does("the rehearsal")
    if runs_short(partial(step, run, budget, free)):
        run.ranks.refuse(_too_large(run, budget, free))
    now, peak = free_bytes(device), peak_bytes(device)
    return (
        f"rehearsed a step of the largest micro-batches, {budget:,} tokens: {peak / GIB:.2f} GiB "
        f"at the peak, {now / GIB:.2f} GiB free after it"
    )


def step(run: Run, budget: int, free: int) -> None:
    """One step of the most costly micro-batches of so many tokens, in so many free bytes."""
    with limited(run.ranks.device, free):
        about = (run.config, run.transform, run.spec)
        run.engine.rehearse([worst_batch(*about, kind, budget) for kind in KINDS])


def runs_short(work: Callable[[], None]) -> bool:
    """Whether memory runs out in some work; what it has taken is free again then."""
    try:
        work()
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        return True
    return False


def _too_large(run: Run, budget: int, free: int) -> str:
    config = run.config
    fits, longest = _largest(run, free, budget), config.limits.longest
    asked = f"micro-batches of {budget:,} tokens (batch.token_budget) do not fit into memory: "
    if fits is None or budget == longest:
        return f"{asked}{_nothing_fits(run, free)}"
    fits = fits if fits < budget else max(budget // 2, longest)
    advice = f"set batch.token_budget={fits} or less{_cheaper(config)}"
    return f"{asked}{free / GIB:.2f} GiB are free; {advice}"


def with_budget(config: PretrainConfig, budget: int) -> PretrainConfig:
    """The settings with a number for `batch.token_budget`."""
    batch = config.batch.model_copy(update={"token_budget": budget})
    return config.model_copy(update={"batch": batch})


def _largest(run: Run, free: int, most: int) -> int | None:
    """The largest budget that fits into free memory, by calculation; None if none does."""
    config, device = run.config, run.ranks.device
    precision = choose_precision(config.distribution, device)
    recompute = config.distribution.activation_checkpointing
    footprint = Footprint(config, run.spec, run.transform, device, precision, recompute)
    parameters, ranks = footprint.parameters, run.ranks.count
    besides = passing_bytes(parameters, config.distribution.zero_stage, ranks, precision)
    room = free * (1 - SPARE[device.type]) - besides
    return largest_budget(footprint.of, room, config.limits.longest, most)


def _nothing_fits(run: Run, free: int) -> str:
    longest = run.config.limits.longest
    return (
        f"{free / GIB:.2f} GiB are free, and not even one sequence of {longest} tokens fits into "
        f"them; take a smaller model or lower limits{_cheaper(run.config)}"
    )


def _cheaper(config: PretrainConfig) -> str:
    """What else would take less memory."""
    found = []
    if not config.distribution.activation_checkpointing:
        found.append("distribution.activation_checkpointing=true")
    if config.distribution.zero_stage < 3:
        found.append(f"a distribution.zero_stage above {config.distribution.zero_stage}")
    return "".join(f", or {one}" for one in found)
