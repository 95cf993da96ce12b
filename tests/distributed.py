"""Runs a function on several gloo ranks as part of an ordinary test."""

import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from tests.undrawn import undrawn

ROOT = Path(__file__).parents[1]
SERVER = get_context("forkserver")
"""Has imported what ranks need, which takes each of them seconds otherwise."""
SERVER.set_forkserver_preload(["memo.training.pretrain", "memo.tuning.run", "memo.multitask.job"])


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = Path(function.__code__.co_filename).relative_to(ROOT).with_suffix("")
    work = ".".join(file.parts), function.__name__, argument
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    with TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(rank) for rank in range(ranks)]
        processes = [
            SERVER.Process(target=be_rank, args=(rank, os.environ | group, output, *work))
            for rank, output in enumerate(outputs)
        ]
        for process in processes:
            process.start()
        end_all(processes, limit_s)
        failed = [
            output.read_text()
            for output, process in zip(outputs, processes, strict=True)
            if process.exitcode
        ]
        assert not failed, failed[0]


def end_all(processes: Sequence[BaseProcess], limit_s: int) -> None:
    """Wait for all; kill what is at work after so many seconds."""
    end = monotonic() + limit_s
    for process in processes:
        process.join(max(0.0, end - monotonic()))
    for process in processes:
        process.kill()
        process.join()


def be_rank(
    rank: int, environment: Mapping[str, str], output: Path, module: str, name: str, argument: str
) -> None:
    """What a process does: all that it prints goes to a file."""
    os.environ.clear()
    os.environ.update({**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})
    os.chdir(ROOT)
    with output.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    status = 1
    try:
        with undrawn():
            getattr(import_module(module), name)(argument)
        status = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the other rank may wait for this one for ever
