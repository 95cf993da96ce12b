"""Where the real corpora are looked for."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with `data/` and `weights/`; a test that needs it is skipped without it."""
    place = Path(os.environ.get("MEMO_SHARED", Path(__file__).parents[2] / "shared"))
    if not (place / "data").is_dir():
        pytest.skip(f"the real corpora are not at {place / 'data'} (set MEMO_SHARED)")
    return place
