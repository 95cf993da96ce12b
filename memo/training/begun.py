"""Which jobs have begun to train into a run's folder: what one that is started again goes on with.

`begun.jsonl` has a line a job, with the `--resume` that it had: a job whose arguments tell it to go
back does so once, but it does, however often it was started before it could begin. A job is one of
Slurm's, or what one torchrun does, which starts its ranks again with `--max-restarts`.
"""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from data_pipeline.whole_file import write_atomically

BEGUN = "begun.jsonl"


def note_begun(folder: Path, resume: str, environment: Mapping[str, str]) -> None:
    """Say in a run's folder that this job has begun; nothing is said of what is no job.

    Args:
        folder: of the run, which is there.
        resume: the job's argument.
        environment: of this process.

    Raises:
        OSError: it cannot be written.
    """
    line = _line(resume, environment)
    if line is not None and line not in (before := _lines(folder)):
        content = "".join(f"{one}\n" for one in (*before, line))
        write_atomically(folder / BEGUN, content.encode())


def has_begun(folder: Path, resume: str, environment: Mapping[str, str]) -> bool:
    """Whether this job was started again, and had begun before; see `note_begun`.

    Told by the first rank alone: torchrun is another process on every node.
    """
    restarts = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    again = any(int(environment.get(name) or 0) for name in restarts)
    return again and _line(resume, environment) in _lines(folder)


def _line(resume: str, environment: Mapping[str, str]) -> str | None:
    job = environment.get("SLURM_JOB_ID")
    if not job and "TORCHELASTIC_RESTART_COUNT" in environment:
        job = f"{socket.gethostname()}:{os.getppid()}"
    return json.dumps({"job": job, "resume": resume}) if job else None


def _lines(folder: Path) -> list[str]:
    path = folder / BEGUN
    return path.read_text("utf8").splitlines() if path.is_file() else []
