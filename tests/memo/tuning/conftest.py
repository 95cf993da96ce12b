from pathlib import Path

import pytest

from tests.memo.tuning.small_tuning import write_backbone, write_corpus, write_task


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "demo")


@pytest.fixture(scope="session")
def backbone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(corpus, tmp_path_factory.mktemp("backbone") / "run")


@pytest.fixture(scope="session")
def task(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("task") / "small.yaml", corpus)
