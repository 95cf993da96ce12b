"""Runs a function on several gloo ranks as part of an ordinary test."""

import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from tests.ports import free_ports
from tests.undrawn import undrawn

ROOT = Path(__file__).parents[1]
PRELOADED = (
    "memo.training.pretrain",  # first: it tells DeepSpeed that there is no GPU
    "memo.tuning.run",
    "memo.multitask.job",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "deepspeed.runtime.zero.stage3",
    "torch._dynamo",
    "matplotlib.pyplot",
    "pytest",
)
"""What ranks import, those parts of DeepSpeed as well that come with its first step."""
SERVER = get_context("forkserver")
"""Has imported it, which takes each of them seven seconds otherwise."""
SERVER.set_forkserver_preload(list(PRELOADED))


@dataclass(frozen=True)
class Rank:
    """A rank at work or at its end.

    Attributes:
        process: in which it is.
        output: has all that it printed.
    """

    process: BaseProcess
    output: Path


@contextmanager
def started(
    function: Callable[..., None], arguments: Sequence[str], ranks: int
) -> Iterator[list[Rank]]:
    """So many processes that have begun `function(*arguments)`; what is left of them is killed.

    Args:
        function: of a test module, from whose file the processes import it.
        arguments: handed to it, e.g. a folder for results.
        ranks: processes.
    """
    file = Path(function.__code__.co_filename).relative_to(ROOT).with_suffix("")
    work = ".".join(file.parts), function.__name__, tuple(arguments)
    port = free_ports(1)[0]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    with TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(rank) for rank in range(ranks)]
        made = [
            Rank(
                SERVER.Process(target=be_rank, args=(rank, os.environ | group, output, *work)),
                output,
            )
            for rank, output in enumerate(outputs)
        ]
        try:
            for one in made:
                one.process.start()
            yield made
        finally:
            for one in made:
                if one.process.pid is not None:
                    one.process.kill()
                    one.process.join()


def run_ranks(
    function: Callable[[str], None], argument: str, ranks: int, limit_s: int = 240
) -> None:
    """Run `function(argument)` in so many processes; fail with their output if one fails.

    Args:
        function: of a test module, from whose file the processes import it.
        argument: handed to it, e.g. a folder for results.
        ranks: processes.
        limit_s: seconds after which all are killed.
    """
    end = monotonic() + limit_s
    with started(function, [argument], ranks) as made:
        for one in made:
            one.process.join(max(0.0, end - monotonic()))
        failed = [one.output.read_text() for one in made if one.process.exitcode != 0]
        assert not failed, failed[0]


def be_rank(
    rank: int,
    environment: Mapping[str, str],
    output: Path,
    module: str,
    name: str,
    arguments: Sequence[str],
) -> None:
    """What a process does: all that it prints goes to a file."""
    gc.freeze()  # DeepSpeed collects garbage again and again, half a second for all of it
    os.environ.clear()
    os.environ.update({**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})
    os.chdir(ROOT)
    with output.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    status = 1
    try:
        with undrawn():
            getattr(import_module(module), name)(*arguments)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the other rank may wait for this one for ever
