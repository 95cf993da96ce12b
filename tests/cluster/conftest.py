"""A cluster for each test file, where Slurm is installed."""

from collections.abc import Iterator

import pytest

from tests.cluster.slurm import Cluster, missing_programs


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    missing = missing_programs()
    if missing:
        pytest.skip(f"no {', '.join(missing)} here (Debian: apt-get install slurm-wlm munge)")
    with Cluster() as running:
        yield running
