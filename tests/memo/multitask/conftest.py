"""Small systems, and a small backbone for them."""

from pathlib import Path

import pytest

from tests.memo.multitask.small_system import write_asp, write_sog
from tests.memo.tuning.small_tuning import write_backbone, write_corpus


@pytest.fixture(scope="module")
def sog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sog(tmp_path_factory.mktemp("sog"))


@pytest.fixture(scope="module")
def asp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_asp(tmp_path_factory.mktemp("asp"))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    return write_backbone(write_corpus(folder / "demo"), folder / "run")
