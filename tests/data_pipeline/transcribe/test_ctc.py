import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from data_pipeline import cpu_torch
from data_pipeline.errors import UserError
from data_pipeline.registry import ModelChoice
from data_pipeline.transcribe.base import ALIGNERS, Miss
from data_pipeline.transcribe.ctc import CtcAligner

RATE = 16_000
VOCABULARY = {"<pad>": 0, "<s>": 1, "|": 2, "A": 3, "B": 4, "C": 5}
PITCHES = {"A": 500, "B": 1100, "C": 2300}


def small_net(folder: Path) -> Any:  # noqa: ANN401
    """Transformers' network with random weights, saved in the folder with its letters."""
    cpu_torch.install()
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    more = {"intermediate_size": 16, "conv_dim": (24,) * 7, "vocab_size": len(VOCABULARY)}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    net = Wav2Vec2ForCTC(Wav2Vec2Config(**sizes, **more, **positions, pad_token_id=0)).eval()
    net.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY))
    return net


def tones(text: str) -> NDArray[np.float32]:
    """A fifth of a second of a tone for each letter, and of near silence for each space."""
    times = np.arange(RATE // 5) / RATE
    parts = [0.5 * np.sin(2 * np.pi * PITCHES.get(letter, 0) * times) for letter in text]
    noise = np.random.default_rng(0).normal(0, 1e-3, len(text) * len(times))
    return (np.concatenate(parts) + noise).astype(np.float32)


def teach(folder: Path) -> CtcAligner:
    """Fit the head, by logistic regression on the network's rows, to hear the tones."""
    from sklearn.linear_model import LogisticRegression

    aligner = CtcAligner(folder)
    text = " A B C  CBA ACB BAC CAB "
    rows = aligner._net.encode(tones(text))
    classes = [VOCABULARY.get(text[at * len(text) // len(rows)], 0) for at in range(len(rows))]
    fit = LogisticRegression(C=100, max_iter=2000).fit(rows, classes)
    weight, bias = np.zeros((len(VOCABULARY), rows.shape[1])), np.full(len(VOCABULARY), -20.0)
    weight[fit.classes_], bias[fit.classes_] = fit.coef_, fit.intercept_
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.from_numpy(weight).float()
    tensors["lm_head.bias"] = torch.from_numpy(bias).float()
    save_file(tensors, folder / "model.safetensors")
    return CtcAligner(folder)


def test_log_probs_are_transformers(tmp_path: Path) -> None:
    net = small_net(tmp_path)
    aligner = ALIGNERS.load(ModelChoice("ctc", tmp_path))
    assert isinstance(aligner, CtcAligner)
    sound = tones("AB C")
    with torch.inference_mode():
        expected = net(torch.from_numpy(sound)[None]).logits[0].log_softmax(dim=-1)
    np.testing.assert_allclose(aligner.log_probs(sound), expected.numpy(), atol=1e-4)


def test_words_are_found_where_their_letters_sound(tmp_path: Path) -> None:
    small_net(tmp_path)
    aligner = teach(tmp_path)
    spans = aligner.align(tones("  AB   CA B "), ["“ab”,", "C-a", "B!"])
    assert not isinstance(spans, Miss)
    expected = [(0.4, 0.8), (1.4, 1.8), (2.0, 2.2)]
    np.testing.assert_allclose(spans, expected, atol=0.06)


def test_what_does_not_fit_has_no_times(tmp_path: Path) -> None:
    small_net(tmp_path)
    aligner = teach(tmp_path)
    sound = tones("  AB   CA B ")
    assert aligner.align(sound, ["ab", "7"]) is Miss.UNKNOWN_WORD
    assert aligner.align(sound, ["CCC", "BBB"]) is Miss.MISFIT
    assert aligner.align(tones("      "), ["AB"]) is Miss.MISFIT
    assert aligner.align(sound[:1600], ["ABCABC"]) is Miss.MISFIT  # five frames
    assert aligner.align(sound[:50], ["A"]) is Miss.MISFIT
    assert aligner.align(sound[:0], ["A"]) is Miss.MISFIT


def test_a_blank_of_one_sign_spells_nothing(tmp_path: Path) -> None:
    small_net(tmp_path)
    teach(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({**VOCABULARY, "_": 0}))
    config = {"pad_token": "_"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    aligner, sound = CtcAligner(tmp_path), tones(" AB C ")
    spans = aligner.align(sound, ["AB", "C"])
    assert not isinstance(spans, Miss)
    assert aligner.align(sound, ["A_B", "_C_"]) == spans


def test_the_tokenizers_file_names_blank_and_delimiter(tmp_path: Path) -> None:
    small_net(tmp_path)
    teach(tmp_path)
    before = CtcAligner(tmp_path)
    renamed = {"[B]": 0, "/": 2, **{name: VOCABULARY[name] for name in ("<s>", "A", "B", "C")}}
    (tmp_path / "vocab.json").write_text(json.dumps(renamed))
    with pytest.raises(UserError, match=r"has no vocabulary of a CTC model \('<pad>'\)"):
        CtcAligner(tmp_path)
    config = {"pad_token": "[B]", "word_delimiter_token": "/", "do_lower_case": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    after, sound = CtcAligner(tmp_path), tones(" AB C ")
    assert after.align(sound, ["AB", "C"]) == before.align(sound, ["AB", "C"])
    assert after.sha256 != before.sha256


def test_a_blank_that_looks_like_a_letter_is_none(tmp_path: Path) -> None:
    small_net(tmp_path)
    teach(tmp_path)
    before = CtcAligner(tmp_path)
    renamed = {"-": 0, **{name: at for name, at in VOCABULARY.items() if at}}
    (tmp_path / "vocab.json").write_text(json.dumps(renamed))
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "-"}')
    after, sound = CtcAligner(tmp_path), tones(" AB C ")
    assert after.align(sound, ["-A-B-", "C"]) == before.align(sound, ["AB", "C"])


def test_unusable_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has none of model\.safetensors and pytorch"):
        CtcAligner(tmp_path)
    small_net(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({**VOCABULARY, "D": 6}))
    with pytest.raises(UserError, match="no lm_head for the 7 letters"):
        CtcAligner(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for bad in (torch.zeros(6, 31), torch.zeros(5, 32), None):
        head = {} if bad is None else {"lm_head.weight": bad}
        kept = {name: one for name, one in tensors.items() if name != "lm_head.weight"}
        save_file({**kept, **head}, tmp_path / "model.safetensors")
        with pytest.raises(UserError, match="no lm_head over rows of 32 numbers"):
            CtcAligner(tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    for content in ("[1]", '{"A": "one"}', "{", '{"A": 1}'):
        (tmp_path / "vocab.json").write_text(content)
        with pytest.raises(UserError, match="no vocabulary"):
            CtcAligner(tmp_path)
