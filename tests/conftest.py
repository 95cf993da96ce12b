"""Where the real corpora are looked for, and an environment in which tests are quick."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before torch is imported: two test processes with all cores each would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch

from tests.undrawn import undrawn

# Nothing is fetched; without this, transformers asks its hub again and again for a minute.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The tests' own servers are not behind a proxy.
os.environ["no_proxy"] = "127.0.0.1"

# A busy machine is no defect of the code.
settings.register_profile("memo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("memo")


@pytest.fixture(autouse=True)
def _denormal_numbers() -> None:
    """A run in this process has set them to zero for good; hypothesis draws some."""
    torch.set_flush_denormal(False)


@pytest.fixture(autouse=True, scope="module")
def _little_to_collect() -> None:
    """DeepSpeed collects garbage again and again, half a second for all that is imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _undrawn(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("draws"):
        yield
    else:
        with undrawn():
            yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with `data/` and `weights/`; a test that needs it is skipped without it."""
    place = Path(os.environ.get("MEMO_SHARED", Path(__file__).parents[2] / "shared"))
    if not (place / "data").is_dir():
        pytest.skip(f"the real corpora are not at {place / 'data'} (set MEMO_SHARED)")
    return place
