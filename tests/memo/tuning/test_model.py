"""Modes, adapters, prompts and heads, on a small model of random weights."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from data_pipeline.errors import UserError
from data_pipeline.packing import PackedBatch, pack
from memo.heads.base import LABEL
from memo.heads.classifier import Classifier, LayerMix, mean_of_sequences
from memo.heads.verbalizer import Verbalizer
from memo.tuning.adapter import merge_low_rank
from memo.tuning.base import known_modes, parse_mode
from memo.tuning.model import TaskModel, balanced_weights
from memo.tuning.setup import Setup, build_model, set_up
from memo.tuning.transform import SPECS, Pattern, TuneTransform, patterns
from tests.memo.tuning.small_tuning import tuning_config, write_backbone, write_task


def setup_of(task: Path, backbone: Path, tmp_path: Path, mode: str, *changes: str) -> Setup:
    return set_up(tuning_config(task, backbone, tmp_path / "run", mode, *changes))


def batch_of(setup: Setup, samples: range, pattern: Pattern = ()) -> PackedBatch:
    visible = [one for one in patterns(("text", "face", "speech")) if not pattern or one == pattern]
    transform = TuneTransform(
        setup.backbone.tokenizer,
        setup.config.limits,
        setup.backbone.spec,
        setup.data.labels,
        visible[:1],
        setup.inputs.prompts,
        "en",
        0,
    )
    examples = [transform(setup.data.samples.read(at), at, 0) for at in samples]
    spec = setup.backbone.spec
    return pack(examples, SPECS, spec.face_dim, spec.speech_dim)


def model_of(setup: Setup) -> TaskModel:
    return build_model(setup.inputs, 1, torch.ones(7)).eval()


def trained(model: TaskModel) -> set[str]:
    return {name for name, one in model.named_parameters() if one.requires_grad}


LINEAR = {
    "head.mix.weights",
    "head.standard.centre",
    "head.standard.scale",
    "head.output.weight",
    "head.output.bias",
}


def test_known_modes() -> None:
    assert list(known_modes()) == ["adapter", "full", "linear", "prompt"]
    assert [one.name for one in parse_mode("prompt+adapter")] == ["prompt", "adapter"]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (
            "ful",
            r"there is no 'ful'; did you mean 'full'\? "
            r"\(known: adapter, full, linear, prompt, prompt\+adapter\)",
        ),
        ("full+adapter", r"makes no sense together; possible is prompt\+adapter"),
        ("prompt+adapter+linear", "makes no sense together"),
    ],
)
def test_what_is_no_mode_is_refused(mode: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_mode(mode)


def test_what_each_mode_trains(task: Path, backbone: Path, tmp_path: Path) -> None:
    found = {}
    for mode in ("full", "linear", "prompt", "adapter", "prompt+adapter"):
        model = model_of(setup_of(task, backbone, tmp_path, mode))
        found[mode] = trained(model)
        everything = {name for name, _ in model.named_parameters()}
        if mode in ("full", "prompt"):
            assert found[mode] == everything
    assert found["linear"] == LINEAR
    norms = {
        f"backbone.encoder.layers.0.{norm}.{part}"
        for norm in ("attention_norm", "norm")
        for part in ("weight", "bias")
    }
    adapters = {
        f"backbone.encoder.layers.0.{place}.adapter.{side}.{part}"
        for place in ("attention", "feed_forward")
        for side in ("down", "up")
        for part in ("weight", "bias")
    }
    assert found["prompt+adapter"] == norms | adapters
    heads = {name for name in found["adapter"] if name.startswith("head.")}
    assert found["adapter"] - heads == norms | adapters
    assert heads


@pytest.mark.parametrize("mode", ["adapter", "prompt+adapter"])
def test_low_rank_updates_leave_all_else_as_it_is(
    task: Path, backbone: Path, tmp_path: Path, mode: str
) -> None:
    model = model_of(setup_of(task, backbone, tmp_path, mode, "adapter.kind=lora"))
    found = {name for name in trained(model) if not name.startswith("head.")}
    assert found == {
        f"backbone.encoder.layers.0.attention.{place}.adapter.{side}.weight"
        for place in ("qkv", "output")
        for side in ("down", "up")
    }


def test_the_lowest_layers_can_stay_as_they_are(task: Path, backbone: Path, tmp_path: Path) -> None:
    model = model_of(setup_of(task, backbone, tmp_path, "full", "frozen_layers=1"))
    everything = {name for name, _ in model.named_parameters()}
    below = ("backbone.text.", "backbone.face.", "backbone.speech.", "backbone.encoder.layers.0.")
    assert trained(model) == {name for name in everything if not name.startswith(below)}
    with pytest.raises(UserError, match=r"frozen_layers=9: .* has 1 layers"):
        setup_of(task, backbone, tmp_path, "full", "frozen_layers=9")
    with pytest.raises(UserError, match="frozen_layers is for --mode full"):
        setup_of(task, backbone, tmp_path, "adapter", "frozen_layers=1")


def test_soft_prompts_train_their_vectors_alone(task: Path, backbone: Path, tmp_path: Path) -> None:
    setup = setup_of(task, backbone, tmp_path, "prompt", "prompt.soft=3")
    model = model_of(setup)
    assert trained(model) == {"backbone.text.word.prompt"}
    batch = batch_of(setup, range(2))
    ids = batch.text_ids.tolist()
    assert ids.count(-1) == ids.count(-2) == ids.count(-3) == 2
    F.cross_entropy(model.logits(batch), torch.tensor([0, 1])).backward()
    prompt = model.backbone.text.word.prompt
    assert isinstance(prompt, torch.Tensor)
    assert prompt.grad is not None
    assert (prompt.grad != 0).any(dim=1).all()


@pytest.mark.parametrize("kind", ["houlsby", "lora"])
def test_new_adapters_leave_the_pretrained_model_as_it_is(
    task: Path, backbone: Path, tmp_path: Path, kind: str
) -> None:
    plain = setup_of(task, backbone, tmp_path, "prompt")
    adapted = setup_of(task, backbone, tmp_path, "prompt+adapter", f"adapter.kind={kind}")
    batch = batch_of(plain, range(6))
    with torch.no_grad():
        before, after = model_of(plain).logits(batch), model_of(adapted).logits(batch)
    torch.testing.assert_close(before, after, atol=0.01 if kind == "houlsby" else 1e-6, rtol=0)


def test_merged_low_rank_updates_do_the_same(task: Path, backbone: Path, tmp_path: Path) -> None:
    setup = setup_of(task, backbone, tmp_path, "adapter", "adapter.kind=lora", "adapter.scale=2")
    model, batch = model_of(setup), batch_of(setup, range(6))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".adapter." in name:
                parameter.normal_(std=0.3)
        before = model.logits(batch)
        merge_low_rank(model)
        assert not any(".adapter." in name for name, _ in model.named_parameters())
        torch.testing.assert_close(model.logits(batch), before, atol=1e-5, rtol=1e-5)


def test_label_words_are_scored_by_the_pretrained_head_alone(
    task: Path, backbone: Path, tmp_path: Path
) -> None:
    """Against the logits over the whole vocabulary, looked up piece by piece."""
    setup = setup_of(task, backbone, tmp_path, "prompt")
    model, batch = model_of(setup), batch_of(setup, range(5))
    head = model.head
    assert isinstance(head, Verbalizer)
    with torch.no_grad():
        hidden = model.backbone(batch)
        found = model.logits(batch)
    tokenizer = setup.backbone.tokenizer
    for row, position in enumerate(batch.targets[LABEL].positions.tolist()):
        with torch.no_grad():
            at_mask = head.mlm.transform(hidden[position])
            whole = model.backbone.text.word.weight @ at_mask + head.mlm.bias  # (V,)
        assert setup.inputs.prompts is not None
        for at, words in enumerate(setup.inputs.prompts.words[0]):
            pieces = tokenizer.encode(words[0]).ids.tolist()
            expected = sum(float(whole[piece]) for piece in pieces) / len(pieces)
            assert float(found[row, at]) == pytest.approx(expected, abs=1e-5)


def test_the_prompt_follows_the_utterance_and_stays_without_text(
    task: Path, backbone: Path, tmp_path: Path
) -> None:
    setup = setup_of(task, backbone, tmp_path, "prompt")
    tokenizer = setup.backbone.tokenizer
    clip = setup.data.samples.read(3)
    expected: dict[Pattern, str] = {("text",): f"{clip.text}. i am", ("speech",): "i am"}
    for pattern, text in expected.items():
        batch = batch_of(setup, range(3, 4), pattern)
        ids = batch.text_ids.tolist()
        place = ids.index(tokenizer.mask_id)
        assert batch.targets[LABEL].positions.tolist() == [place]
        assert (ids[0], ids[-1]) == (tokenizer.cls_id, tokenizer.sep_id)
        assert tokenizer.decode(ids[1:place]) == tokenizer.decode(tokenizer.encode(text).ids)
        assert tokenizer.decode(ids[place + 1 : -1]) == "."
        assert (len(batch.face), len(batch.speech) > 0) == (0, pattern == ("speech",))


def test_patterns_are_the_seven_cases() -> None:
    assert patterns(("speech", "text", "face")) == [
        ("text", "face", "speech"),
        ("text", "face"),
        ("text", "speech"),
        ("face", "speech"),
        ("text",),
        ("face",),
        ("speech",),
    ]
    alone: Pattern = ("speech",)
    assert patterns(alone) == [alone]


def test_pooling_is_the_mean_of_each_sequence() -> None:
    hidden = torch.randn(9, 4)
    found = mean_of_sequences(hidden, torch.tensor([0, 2, 3, 9], dtype=torch.int32))
    expected = torch.stack([hidden[:2].mean(0), hidden[2], hidden[3:].mean(0)])
    torch.testing.assert_close(found, expected)
    assert mean_of_sequences(hidden[:0], torch.zeros(1, dtype=torch.int32)).shape == (0, 4)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_clip_is_classified_alike_alone_and_in_a_batch(
    task: Path, backbone: Path, tmp_path: Path, pool: str
) -> None:
    setup = setup_of(task, backbone, tmp_path, "full", f"head.pool={pool}")
    model = model_of(setup)
    assert isinstance(model.head, Classifier)
    with torch.no_grad():
        together = model.logits(batch_of(setup, range(4)))
        alone = [model.logits(batch_of(setup, range(at, at + 1))) for at in range(4)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_weighted_cross_entropy(task: Path, backbone: Path, tmp_path: Path) -> None:
    setup = setup_of(task, backbone, tmp_path, "linear")
    weights = torch.rand(7) + 0.5
    model = build_model(setup.inputs, 1, weights).eval()
    batch = batch_of(setup, range(8))
    labels = batch.targets[LABEL].values[:, 0]
    assert labels.tolist() == setup.data.labels[:8].tolist()
    found = model(batch)[LABEL]
    chances = model.logits(batch).softmax(1)[torch.arange(8), labels]
    torch.testing.assert_close(found.sum, -(chances.log() * weights[labels]).sum())
    assert int(found.count) == 8


def test_balanced_classes_weigh_the_same_in_all() -> None:
    counts = torch.tensor([10, 30, 60])
    weights = balanced_weights(counts)
    torch.testing.assert_close(weights * counts, torch.full((3,), 100 / 3))


def test_direct_starts_without_pretraining_but_with_its_units(
    task: Path, corpus: Path, tmp_path: Path
) -> None:
    other = write_backbone(corpus, tmp_path / "other", "seed=99")
    pretrained = model_of(setup_of(task, other, tmp_path, "full"))
    direct = model_of(setup_of(task, other, tmp_path, "full", "direct=true"))
    ours, theirs = dict(direct.backbone.named_parameters()), pretrained.backbone.named_parameters()
    drawn = [name for name, one in theirs if one.ndim > 1 and torch.equal(one, ours[name])]
    assert drawn == []
    assert torch.equal(direct.backbone.speech.mean, pretrained.backbone.speech.mean)
    assert np.isfinite(direct.backbone.speech.mean.numpy()).all()


def test_words_that_cannot_answer_are_refused(corpus: Path, backbone: Path, tmp_path: Path) -> None:
    words = {name: [name] for name in ("angry", "disgust", "fear", "happy", "neutral", "sad")}

    def refused(surprise: str, template: str, message: str) -> None:
        wording = {"en": {"template": template, "words": {**words, "surprise": [surprise]}}}
        path = write_task(tmp_path / "t.yaml", corpus, wording=wording)
        with pytest.raises(UserError, match=message):
            setup_of(path, backbone, tmp_path, "prompt")

    refused("놀람", "i am [MASK].", "the label word '놀람' is not in the tokenizer's vocabulary")
    refused("sad", "i am [MASK].", "the label words sad and sad are the same pieces")
    swapped = {"en": {"template": "i am [MASK].", "words": {**words, "surprise": ["wow"]}}}
    path = write_task(tmp_path / "t.yaml", corpus, wording=swapped, language="ko")
    with pytest.raises(UserError, match="is in language 'ko', its wording in en"):
        setup_of(path, backbone, tmp_path, "prompt")
    refused("wow", "i am.", r"must have \[MASK\] exactly once")


def test_layers_are_mixed_by_learned_shares() -> None:
    states = [torch.randn(4, 3) for _ in range(3)]
    mix = LayerMix(3)
    torch.testing.assert_close(mix(states), torch.stack(states).mean(dim=0))
    mix.weights.data = torch.tensor([0.0, 1.0, -1.0])
    shares = torch.tensor([1.0, math.e, 1 / math.e])
    expected = sum(share * one for share, one in zip(shares / shares.sum(), states, strict=True))
    torch.testing.assert_close(mix(states), expected)


@pytest.mark.parametrize("layers", ["last", "mixed"])
def test_a_new_classifier_sees_standardised_states(
    task: Path, backbone: Path, tmp_path: Path, layers: str
) -> None:
    setup = setup_of(task, backbone, tmp_path, "linear", f"head.layers={layers}")
    model = model_of(setup)
    batch = batch_of(setup, range(12))
    model.standardise([batch])
    assert isinstance(model.head, Classifier)
    states = model.backbone.states(batch)
    pooled = mean_of_sequences(
        states[-1] if layers == "last" else torch.stack(states).mean(dim=0), batch.cu_seqlens
    )
    expected = (pooled - pooled.mean(dim=0)) / pooled.std(dim=0)
    torch.testing.assert_close(
        model.head.standard(model.head.pooled(states, batch)), expected, atol=1e-4, rtol=1e-3
    )
    torch.testing.assert_close(
        model.eval().logits(batch), model.head.output(expected), atol=1e-4, rtol=1e-3
    )
    torch.testing.assert_close(model.backbone(batch), states[-1])
