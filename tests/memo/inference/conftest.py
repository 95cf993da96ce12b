"""A corpus with its backbone, and a model that was exported."""

from pathlib import Path

import pytest

from memo.inference.export import export_model
from tests.memo.inference.small_model import tuned
from tests.memo.tuning.small_tuning import write_backbone, write_corpus, write_task


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inference")
    corpus = write_corpus(folder / "demo")
    write_backbone(corpus, folder / "backbone")
    write_task(folder / "small.yaml", corpus)
    return folder


@pytest.fixture(scope="module")
def exported(place: Path) -> Path:
    run = place / "run-full"
    if not run.exists():
        tuned(place, "full")
    out = place / "exported"
    export_model(run, place / "backbone", out)
    return out
