"""The processes of a run: who this one is, and the few things that all of them do together."""

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

from data_pipeline.errors import AgreedError, UserError
from data_pipeline.stream import Placement
from memo.config import Distribution
from memo.training.accelerator import deepspeed
from memo.training.signals import StopSignals, leave_in_peace

T = TypeVar("T")

HANG_S = Distribution().hang_s
RENDEZVOUS = "memo"
"""Torch knows the ranks' rendezvous by this name."""

PATIENCE_S = 300.0
"""Ranks wait for one another so much longer than any of them may hang."""


def _told_nobody(what: str) -> None:
    """Where nobody watches over the ranks."""


def _refuse_alone(why: str) -> NoReturn:
    raise AgreedError(why)


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: this process, from 0.
        count: how many there are.
        device: where this one computes.
        does: is told what this rank does now; see `heartbeat.watched`.
        refuse: ends all ranks for a user's mistake that this one has met, while the others may wait
            for it; raises AgreedError.
    """

    rank: int
    count: int
    device: torch.device
    does: Callable[[str], None] = field(default=_told_nobody, compare=False, repr=False)
    refuse: Callable[[str], NoReturn] = field(default=_refuse_alone, compare=False, repr=False)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes and prints."""
        return self.rank == 0

    @property
    def placement(self) -> Placement:
        """As the stream wants it."""
        return Placement(self.rank, self.count)

    def sum(self, values: Tensor) -> Tensor:
        """Sums over the ranks, in float64 on this rank's device; any shape."""
        total = values.detach().to(self.device, torch.float64, copy=True)
        dist.all_reduce(total)
        return total

    def max(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        largest = torch.tensor(number, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in their order."""
        values: list[T] = [value] * self.count
        dist.all_gather_object(values, value)
        return values

    def end_together(self) -> None:
        """After a request to stop: none leaves before all have come so far, nor dies of another.

        A launcher ends all when the first leaves, and a scheduler may ask again meanwhile.
        """
        if self.count > 1:
            leave_in_peace()
        with StopSignals():
            self.max(0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a block that may fail on some ranks so that all end, with the same message.

        The block must not communicate.

        Raises:
            AgreedError: on every rank, if the block raised a UserError or an OSError on one of
                them.
        """
        message = None
        try:
            yield
        except UserError as error:
            message = str(error)
        except OSError as error:  # no space, no permission, a file where a folder should be
            message = f"{error.strerror}: {error.filename or 'a file'}"
        failed = [text for text in self.gather(message) if text is not None]
        if failed:
            raise AgreedError(failed[0])


def join(threads: int | None, hang_s: float = HANG_S) -> Ranks:
    """Join the other processes of the run.

    Started by `deepspeed`, `torchrun` or `srun`, the environment says who this is; started by
    plain `python`, it is alone.

    Args:
        threads: CPU threads of this process; None divides the cores among those of this node.
        hang_s: how long a rank may be at one thing; what waits for it waits longer, so that the
            one that hangs is told of, and not those that wait.

    Raises:
        AgreedError: two processes have the same GPU.
    """
    describe_process(os.environ)
    torch.set_num_threads(threads or share_of_cores(os.environ))
    # Gradients that fade over a text's words become numbers for which a CPU takes 20 times as long.
    torch.set_flush_denormal(True)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", choose_gpu(os.environ, torch.cuda.device_count()))
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    patience = timedelta(seconds=hang_s + PATIENCE_S)
    deepspeed.init_distributed(
        backend, verbose=False, timeout=patience, init_method=f"{RENDEZVOUS}://"
    )
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), device)
    if device.type == "cuda":
        gpu = str(torch.cuda.get_device_properties(device).uuid)
        refuse_shared_gpus(ranks.gather((socket.gethostname(), gpu)))
    return ranks


def this_start(environment: Mapping[str, str]) -> str:
    """What this start of the ranks has in the store of the rendezvous begins with this.

    torchrun keeps the store when it starts them again (`--max-restarts`), with all that the start
    before has left there, e.g. the addresses of processes that are gone. Its agents on several
    nodes agree on the count if they have fixed addresses, not with `--rdzv-backend c10d`.
    """
    return f"start-{environment.get('TORCHELASTIC_RESTART_COUNT') or 0}"


def _meet(_: str, **options: Any) -> Iterator[tuple[Store, int, int]]:  # noqa: ANN401
    """The rendezvous that the environment tells of, for this start alone."""
    for store, rank, count in rendezvous("env://", **options):
        yield PrefixStore(this_start(os.environ), store), rank, count


register_rendezvous_handler(RENDEZVOUS, _meet)


def refuse_shared_gpus(places: Sequence[tuple[str, str]]) -> None:
    """Each process must have a GPU of its own.

    Args:
        places: of each rank its host, and its GPU there.

    Raises:
        AgreedError: names two that share one.
    """
    for rank, place in enumerate(places):
        first = places.index(place)
        if first != rank:
            raise AgreedError(
                f"ranks {first} and {rank} on {place[0]} have the same GPU; start as many "
                "processes as there are GPUs, e.g. --ntasks-per-node as --gpus-per-node"
            )


def choose_gpu(environment: MutableMapping[str, str], visible: int) -> int:
    """Number of this process's GPU; LOCAL_RANK, from which DeepSpeed takes it, is set to it.

    A scheduler may show each process its own GPU alone, which then has the number 0.

    Raises:
        UserError: more processes on this node than GPUs.
    """
    local = int(environment["LOCAL_RANK"])
    if visible == 1:
        environment["LOCAL_RANK"] = "0"
        return 0
    if local >= visible:
        raise UserError(
            f"process {local} of this node has no GPU: there are {visible}; start as many processes"
        )
    return local


def describe_process(environment: MutableMapping[str, str]) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT where no launcher has."""
    if "RANK" in environment:
        environment.setdefault("LOCAL_RANK", "0")
    elif "SLURM_STEP_NUM_TASKS" in environment:  # set by srun, and not in a batch script itself
        environment.update(_slurm_process(environment))
    else:
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        environment.update(alone, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port()))


def _slurm_process(slurm: MutableMapping[str, str]) -> dict[str, str]:
    """What `srun` tells a task, under the names that torch reads."""
    job, step = int(slurm["SLURM_JOB_ID"]), int(slurm["SLURM_STEP_ID"])
    return {
        "RANK": slurm["SLURM_PROCID"],
        "WORLD_SIZE": slurm["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": slurm["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": _tasks_beside(
            slurm["SLURM_STEP_TASKS_PER_NODE"], slurm["SLURM_NODEID"]
        ),
        "MASTER_ADDR": slurm.get("MASTER_ADDR") or _first_host(slurm["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": slurm.get("MASTER_PORT") or str(20_000 + (31 * job + step) % 12_000),
    }


def _tasks_beside(counts: str, node: str) -> str:
    """Tasks on a node, from Slurm's counts of all, e.g. "4(x2),1" and node "2" -> "1"."""
    repeated: list[tuple[str, str]] = re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
    return [count for count, times in repeated for _ in range(int(times or 1))][int(node)]


def _first_host(nodes: str) -> str:
    """The first of Slurm's host list, e.g. "gpu[07-09,12],cpu1" -> "gpu07"."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[([^],-]*)[^]]*\]", r"\1", first)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def share_of_cores(environment: MutableMapping[str, str]) -> int:
    """Cores that this process may use; divided among those of the node if they are for all."""
    cores = len(os.sched_getaffinity(0))
    own = environment.get("SLURM_CPUS_PER_TASK") if _is_task_of_srun(environment) else None
    if own is not None:
        return min(cores, int(own))
    if _is_task_of_srun(environment) and cores < int(environment.get("SLURM_CPUS_ON_NODE", "0")):
        return cores  # bound to its own
    return max(cores // processes_here(environment), 1)


def _is_task_of_srun(environment: MutableMapping[str, str]) -> bool:
    """Whether this rank is a task of Slurm's, and not one of several that a launcher has begun."""
    names = {"SLURM_PROCID": "RANK", "SLURM_STEP_NUM_TASKS": "WORLD_SIZE"}
    return all(
        slurm in environment and environment[slurm] == environment[torch_name]
        for slurm, torch_name in names.items()
    )


def processes_here(environment: MutableMapping[str, str]) -> int:
    """How many processes of the run are on this node."""
    # The deepspeed launcher says LOCAL_SIZE, torchrun LOCAL_WORLD_SIZE.
    return int(environment.get("LOCAL_WORLD_SIZE") or environment.get("LOCAL_SIZE") or "1")
