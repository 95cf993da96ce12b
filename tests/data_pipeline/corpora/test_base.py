"""Every corpus has the same form, and its place in the documentation."""

import sys
from pathlib import Path

import pytest

from data_pipeline.corpora.base import corpora

DOCUMENT = Path(__file__).parents[3] / "docs" / "corpora.md"


@pytest.mark.parametrize("name", sorted(corpora()))
def test_a_corpus_says_what_it_is_and_how_it_is_built(name: str) -> None:
    corpus = corpora()[name]
    about = sys.modules[corpus.__module__].__doc__ or ""
    for part in ("\nLayout", "\nLabels: ", "\nSpeakers"):
        assert part in about, f"the docstring of {name} has no part {part.strip()!r}"
    assert "plit" in about, f"the docstring of {name} does not speak of splits"
    assert corpus.licence
    command = f"memo data build {name} --source "
    assert command in DOCUMENT.read_text("utf8")
