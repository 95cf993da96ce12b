"""Text models of others as checkpoints: their states, what is refused, and tuning on them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_pipeline.errors import UserError
from memo.model.memobert import MemoBert
from memo.training import saving
from memo.training.checkpoint import open_checkpoint
from memo.training.import_text import import_text
from memo.tuning.run import finetune
from tests.memo.model.packed import random_batch
from tests.memo.model.test_pretrained import save_random, transformers_class
from tests.memo.multitask.small_system import FILLERS, MOODS, system_config, write_sog
from tests.memo.tuning.small_tuning import tuning_config, write_corpus, write_task

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*SPECIAL, *FILLERS, *" ".join(MOODS.values()).split(), *"bcefijklmnpqrstuvwxyz"]


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    save_random(folder, "BertForMaskedLM", vocab_size=len(PIECES))
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return folder


@pytest.fixture(scope="module")
def imported(text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("imported") / "run"
    import_text(text_model, run)
    return run


def test_the_states_are_those_of_transformers(text_model: Path, imported: Path) -> None:
    checkpoint = open_checkpoint(imported)
    model = MemoBert(checkpoint.spec).eval()
    below = {
        name.removeprefix("backbone."): one
        for name, one in checkpoint.weights().items()
        if name.startswith("backbone.")
    }
    model.load_state_dict(below)
    theirs = transformers_class("BertModel").from_pretrained(text_model).eval()  # type: ignore[attr-defined]
    batch = random_batch(checkpoint.spec, [(9, 0, 0)])
    with torch.no_grad():
        wanted = theirs(batch.text_ids[None]).last_hidden_state[0]
        torch.testing.assert_close(model(batch), wanted, atol=1e-5, rtol=0)


def test_a_table_of_more_words_than_the_tokenizer_has_is_cut(tmp_path: Path) -> None:
    """As that of multilingual-e5-small, which was rounded up."""
    save_random(tmp_path / "bert", "BertForMaskedLM", vocab_size=len(PIECES) + 7)
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    checkpoint = open_checkpoint(import_text(tmp_path / "bert", tmp_path / "run"))
    assert checkpoint.spec.vocab_size == len(PIECES)
    theirs = load_file(tmp_path / "bert" / "model.safetensors")
    words = checkpoint.weights()["backbone.text.word.weight"]
    assert torch.equal(words, theirs["bert.embeddings.word_embeddings.weight"][: len(PIECES)])


def test_a_system_is_tuned_on_it(imported: Path, tmp_path: Path) -> None:
    task = write_sog(tmp_path)
    changes = ["backbone=memo", f"pretrained={imported}", "training.epochs=1"]
    assert finetune(system_config(task, tmp_path / "run", *changes)) == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["backbone"] == "memo"


def test_a_tokenizer_that_does_not_fit_and_a_full_disk_leave_nothing(
    text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(text_model, other)
    (other / "vocab.txt").write_text("\n".join([*PIECES, "more"]) + "\n")
    with pytest.raises(UserError, match=f"has {len(PIECES) + 1} pieces, its model {len(PIECES)}"):
        import_text(other, tmp_path / "new")

    def full_disk(folder: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(saving, "_write_manifest", full_disk)
    with pytest.raises(UserError, match="no space left"):
        import_text(text_model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_it_has_not_learned_is_refused(imported: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "demo")
    task = write_task(tmp_path / "task.yaml", corpus)
    with pytest.raises(UserError, match="has been trained on no face"):
        finetune(tuning_config(task, imported, tmp_path / "run", "full"))
    with pytest.raises(UserError, match="exists already"):
        import_text(imported, tmp_path)
    with pytest.raises(UserError, match="not a Hugging Face checkpoint"):
        import_text(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()
