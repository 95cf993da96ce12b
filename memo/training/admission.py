"""Who may train into a run's folder: one run at a time, and only ranks that agree."""

import hashlib
import platform
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import data_pipeline
import memo
from data_pipeline.errors import AgreedError
from data_pipeline.lock import sole_process
from memo.settings import Settings
from memo.training.distributed import Ranks

LOCK = "lock"
PACKAGES = ("torch", "deepspeed", "numpy")


def launch_facts(config: Settings) -> dict[str, object]:
    """What must be the same on every rank before anything is opened: settings, versions, code."""
    settings = {name: str(value) for name, value in _flat(config.model_dump(mode="json"))}
    versions = {f"version of {name}": _version(name) for name in PACKAGES}
    packages = (memo, data_pipeline)
    code = {f"code of {one.__name__}": _code_hash(Path(one.__path__[0])) for one in packages}
    return {**settings, **versions, **code, "version of python": platform.python_version()}


def brief(content: str) -> str:
    """A fact that is too long for a message."""
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _code_hash(package: Path) -> str:
    """Of all modules below a folder; two checkouts may have the same version."""
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        found.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def refuse_different(ranks: Ranks, facts: Mapping[str, object]) -> None:
    """Stop on all ranks if they do not know the same.

    Args:
        ranks: which all must call this.
        facts: name -> what this rank knows.

    Raises:
        AgreedError: on every rank; names the first thing that differs, both values and where.
    """
    known = ranks.gather((socket.gethostname(), dict(facts)))
    first_host, first = known[0]
    for rank, (host, theirs) in enumerate(known):
        for name in first | theirs:
            value, other = first.get(name, "nothing"), theirs.get(name, "nothing")
            if other != value:
                raise AgreedError(
                    f"rank {rank} on {host} has {name}={other}, rank 0 on {first_host} "
                    f"{value}; start all ranks with the same code, settings and data"
                )


def refuse_other_data(ranks: Ranks, digest: int) -> None:
    """Stop on all ranks if one of them has cut this step from other samples or lengths.

    Args:
        ranks: which all must call this.
        digest: of the step, see `Step`.

    Raises:
        AgreedError: on every rank.
    """
    local = torch.tensor([digest, digest**2], dtype=torch.int64)
    total, squares = (int(one) for one in ranks.sum(local).tolist())
    refuse_unequal(ranks, total, squares)


def refuse_unequal(ranks: Ranks, total: int, squares: int) -> None:
    """Stop on all ranks if what is told of the data by a number is another number on one of them.

    Args:
        ranks: over which is summed.
        total: sum of the ranks' numbers.
        squares: sum of their squares.

    Raises:
        AgreedError: on every rank.
    """
    if squares * ranks.count != total**2:
        raise AgreedError(
            "the ranks divide the data differently, for their copies of it differ: run 'memo data "
            "check' on every node"
        )


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """No other run trains into this folder meanwhile; the lock ends with its process.

    Raises:
        UserError: another one does; says where.
    """
    folder.mkdir(parents=True, exist_ok=True)
    doing = f"{folder} is being trained into"
    with sole_process(folder / LOCK, doing, "wait for it, or set run_dir"):
        yield


def _flat(settings: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    """Nested settings as (`a.b`, value)."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
