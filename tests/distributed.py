"""Runs a function on several gloo ranks as part of an ordinary test."""

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
    command = [sys.executable, "-m", "tests.distributed", ".".join(file.parts), function.__name__]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    processes = [
        subprocess.Popen(
            [*command, argument],
            cwd=ROOT,
            env=os.environ
            | common
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        outputs = [process.communicate(timeout=limit_s)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    failed = [text for text, one in zip(outputs, processes, strict=True) if one.returncode]
    assert not failed, failed[0]


if __name__ == "__main__":
    module, name, value = sys.argv[1:]
    try:
        getattr(import_module(module), name)(value)
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # the other rank may wait for this one for ever
    os._exit(0)
