"""A cluster for each test file, where Slurm is installed."""

from collections.abc import Iterator

import pytest

from tests.cluster.slurm import Cluster, missing_programs


@pytest.fixture(scope="module")
def silence_s() -> int:
    """After how many seconds a node that says nothing has failed: not before a busy one answers."""
    return 300


@pytest.fixture(scope="module")
def cluster(silence_s: int) -> Iterator[Cluster]:
    missing = missing_programs()
    if missing:
        pytest.skip(f"no {', '.join(missing)} here (Debian: apt-get install slurm-wlm munge)")
    with Cluster(silence_s) as running:
        yield running
