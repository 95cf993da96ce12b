"""Where the real corpora are looked for."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with `data/` and `weights/`; a test that asks for it is skipped where it is absent."""
    place = Path(os.environ.get("MEMO_SHARED", Path(__file__).parents[2] / "shared"))
    if not (place / "data").is_dir():
        pytest.skip(f"the real corpora are not at {place / 'data'} (set MEMO_SHARED)")
    return place
