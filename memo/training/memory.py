"""How much memory a process may still take, how much it has taken, and what tells of too little."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from memo.training.distributed import processes_here

GIB = 2**30
ROOT = Path("/")


def free_bytes(device: torch.device, root: Path = ROOT) -> int:
    """Bytes that this process can still take.

    On a GPU, what is free there. On a CPU the least of what the process may still map (`ulimit -v`)
    and its share, among the processes of the run on this node, of what its control groups and the
    machine have left; files that are only cached count as free, swap does not.

    Args:
        device: where the model is.
        root: of the file system, in tests.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    shared = [entry_bytes(root / "proc/meminfo", "MemAvailable"), *_left_in_groups(root)]
    left = min(shared) // processes_here(os.environ)
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        left = min(left, most - entry_bytes(root / "proc/self/status", "VmSize"))
    return max(left, 0)


def peak_bytes(device: torch.device) -> int:
    """The most that this process has held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def limited(device: torch.device, more: int) -> Iterator[None]:
    """On a CPU, refuse the process more memory than so many bytes on top of what it has.

    A GPU refuses what it does not have. A CPU's system promises it all the same and ends the
    process when it comes to pages that are not there, without a word.
    """
    if device.type == "cuda":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    held = entry_bytes(ROOT / "proc/self/status", "VmData")
    bounds = [held + more, *(one for one in before if one != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on a GPU, in torch's CPU allocator, in Python."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("out of memory", "allocate memory", "bad_alloc")
    )


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group of this process has left, of version 1 or 2; none that is hidden."""
    groups = root / "sys/fs/cgroup"
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                yield from _left_up(groups, path, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                yield from _left_up(groups / "memory", path, *names)


def _left_up(top: Path, path: str, most: str, used: str, cached: str) -> Iterator[int]:
    """What a group and those above it have left; inside a container the topmost is its own."""
    group = top / path.lstrip("/")
    while group.is_relative_to(top):
        with suppress(OSError, ValueError):  # no such file, or "max"
            limit = int((group / most).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            yield limit - int((group / used).read_text()) + int(stat.get(cached, 0))
        group = group.parent


def entry_bytes(path: Path, name: str) -> int:
    """Bytes of an entry of a file in `/proc` such as `VmSize:  1024 kB`."""
    entries = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return int(entries[name].split()[0]) * 1024
