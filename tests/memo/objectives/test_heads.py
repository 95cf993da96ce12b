"""Each head and loss, against its formula in numpy or the published implementation."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_pipeline import cpu_torch
from memo.config import ModelSpec, ObjectiveSettings
from memo.model.memobert import MemoBert
from memo.objectives import Objective, build_objectives, known_objectives
from memo.objectives.masking import MaskedClip

Arrays: TypeAlias = dict[str, NDArray[np.float64]]
NAMES = ("wwmlm", "span_mvfr", "span_mafr", "span_mvfc_kl")


@pytest.fixture
def build(spec: ModelSpec) -> Callable[[str], Objective]:
    """Builds one objective with random weights everywhere, biases and LayerNorms included."""

    def make(name: str) -> Objective:
        objective = build_objectives({name: ObjectiveSettings()}, spec)[name]
        assert isinstance(objective, Objective)
        for parameter in objective.parameters():
            nn.init.normal_(parameter)
        return objective

    return make


@pytest.fixture
def clip(spec: ModelSpec) -> MaskedClip:
    """[CLS] a b [SEP], six frames of which one was not seen, five speech rows."""
    rng = np.random.default_rng(0)
    face = rng.normal(size=(6, spec.face_dim)).astype(np.float16)
    expression = rng.dirichlet(np.ones(spec.face_classes), 6).astype(np.float16)
    face[1] = expression[1] = 0
    speech = rng.normal(size=(5, spec.speech_dim)).astype(np.float16)
    return MaskedClip(
        sample=3,
        key="clip",
        hidden=None,
        text_ids=np.array([2, 4, 6, 3]),
        text_targets=np.array([2, 5, 6, 3]),
        words=np.array([-1, 0, 1, -1]),
        text_masked=np.zeros(4, dtype=bool),
        face=face,
        expression=expression.astype(np.float32),
        face_masked=np.zeros(6, dtype=bool),
        speech=speech,
        speech_masked=np.zeros(5, dtype=bool),
    )


def _mask(length: int, *rows: int) -> NDArray[np.bool_]:
    return np.isin(np.arange(length), rows)


def test_every_objective_of_the_paper_is_found() -> None:
    assert set(NAMES) <= set(known_objectives())


def test_wwmlm_head_equals_transformers(
    build: Callable[[str], Objective], spec: ModelSpec, backbone: MemoBert
) -> None:
    cpu_torch.install()
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLMPredictionHead

    head = build("wwmlm")
    config = BertConfig(hidden_size=spec.hidden, vocab_size=spec.vocab_size, layer_norm_eps=1e-12)
    reference = BertLMPredictionHead(config)
    state = head.state_dict()
    reference.load_state_dict(
        {
            "transform.dense.weight": state["transform.0.weight"],
            "transform.dense.bias": state["transform.0.bias"],
            "transform.LayerNorm.weight": state["transform.2.weight"],
            "transform.LayerNorm.bias": state["transform.2.bias"],
            "decoder.weight": backbone.text.word.weight.detach(),
            "decoder.bias": state["bias"],
            "bias": state["bias"],
        }
    )
    hidden, values = torch.randn(40, spec.hidden), torch.randint(0, spec.vocab_size, (40,))
    logits = reference(hidden)
    scores = head.scores(hidden, values, backbone)
    expected = nn.CrossEntropyLoss(reduction="none")(logits, values)
    torch.testing.assert_close(scores.loss, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(scores.metric, (logits.argmax(1) == values).float())


def _layer_norm(rows: NDArray[np.float64], state: Arrays) -> NDArray[np.float64]:
    centred = rows - rows.mean(1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-12)
    normed: NDArray[np.float64] = scaled * state["transform.2.weight"] + state["transform.2.bias"]
    return normed


def _transformed(head: Objective, hidden: Tensor) -> tuple[NDArray[np.float64], Arrays]:
    """Linear, exact GELU, LayerNorm in numpy; and the head's weights."""
    from scipy.special import erf

    state = {name: value.double().numpy() for name, value in head.state_dict().items()}
    rows = hidden.double().numpy() @ state["transform.0.weight"].T + state["transform.0.bias"]
    return _layer_norm(rows * 0.5 * (1 + erf(rows / np.sqrt(2))), state), state


@pytest.mark.parametrize("name", ["span_mvfr", "span_mafr"])
def test_regression_equals_its_formula(
    name: str, build: Callable[[str], Objective], backbone: MemoBert
) -> None:
    head = build(name)
    embedder = backbone.face if name == "span_mvfr" else backbone.speech
    dim = embedder.mean.numel()
    hidden, values = torch.randn(7, 16), torch.randn(7, dim)
    rows, state = _transformed(head, hidden)
    predicted = rows @ embedder.projection.weight.detach().double().numpy() + state["bias"]
    wanted = ((values - embedder.mean) / embedder.std).double().numpy()
    expected = ((predicted - wanted) ** 2).mean(1)
    scores = head.scores(hidden, values, backbone)
    np.testing.assert_allclose(scores.loss.detach().numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(scores.metric.numpy(), 1 - expected, rtol=1e-4)


def test_kl_equals_its_formula(build: Callable[[str], Objective], backbone: MemoBert) -> None:
    head = build("span_mvfc_kl")
    hidden = torch.randn(9, 16)
    values = torch.distributions.Dirichlet(torch.ones(4)).sample((9,))
    values[0] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # 0 log 0 = 0
    rows, state = _transformed(head, hidden)
    logits = rows @ state["classifier.weight"].T + state["classifier.bias"]
    predicted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    target = values.double().numpy()
    terms = target * np.log(np.where(target > 0, target, 1) / predicted)
    scores = head.scores(hidden, values, backbone)
    np.testing.assert_allclose(scores.loss.detach().numpy(), terms.sum(1), rtol=1e-4)
    assert scores.metric.tolist() == (predicted.argmax(1) == target.argmax(1)).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_sums_add_up_the_positions(
    name: str, build: Callable[[str], Objective], backbone: MemoBert, spec: ModelSpec
) -> None:
    head = build(name)
    target = head.target_spec()
    hidden, values = torch.randn(5, spec.hidden), torch.rand(5, *target.shape).to(target.dtype)
    whole = head(hidden, values, backbone)
    parts = [head(hidden[[row]], values[[row]], backbone) for row in range(5)]
    assert whole.count.item() == 5
    torch.testing.assert_close(whole.sum, torch.stack([part.sum for part in parts]).sum())
    torch.testing.assert_close(
        whole.metric_sum, torch.stack([part.metric_sum for part in parts]).sum()
    )


@pytest.mark.parametrize("name", NAMES)
def test_without_positions_every_weight_has_a_zero_gradient(
    name: str, build: Callable[[str], Objective], backbone: MemoBert, spec: ModelSpec
) -> None:
    head = build(name)
    target = head.target_spec()
    hidden = torch.zeros(0, spec.hidden, requires_grad=True)
    loss = head(hidden, torch.zeros(0, *target.shape, dtype=target.dtype), backbone)
    assert (loss.sum.item(), loss.count.item(), loss.metric_sum.item()) == (0, 0, 0)
    loss.sum.backward()
    tied = {
        "wwmlm": [backbone.text.word.weight],
        "span_mvfr": [backbone.face.projection.weight],
        "span_mafr": [backbone.speech.projection.weight],
        "span_mvfc_kl": [],
    }[name]
    for parameter in [*head.parameters(), *tied]:
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_targets_of_text(build: Callable[[str], Objective], clip: MaskedClip) -> None:
    assert build("wwmlm").targets(clip) is None
    targets = build("wwmlm").targets(replace(clip, hidden="text", text_masked=_mask(4, 1)))
    assert targets is not None
    assert (targets.positions.tolist(), targets.values.tolist()) == ([1], [5])


def test_targets_of_frames_are_the_stored_rows(
    build: Callable[[str], Objective], clip: MaskedClip
) -> None:
    face = replace(clip, hidden="face", face_masked=_mask(6, 2, 3))
    targets = build("span_mvfr").targets(face)
    assert targets is not None
    assert targets.positions.tolist() == [6, 7]
    assert np.array_equal(targets.values, clip.face[2:4])
    assert build("span_mafr").targets(face) is None
    targets = build("span_mafr").targets(replace(clip, hidden="speech", speech_masked=_mask(5, 4)))
    assert targets is not None
    assert targets.positions.tolist() == [4 + 6 + 4]
    assert np.array_equal(targets.values, clip.speech[4:])


def test_targets_of_expressions_sum_to_one_and_leave_out_unknown_ones(
    build: Callable[[str], Objective], clip: MaskedClip
) -> None:
    expression = clip.expression.copy()
    expression[3] = 0
    face = replace(clip, hidden="face", face_masked=_mask(6, 2, 3), expression=expression)
    targets = build("span_mvfc_kl").targets(face)
    assert targets is not None
    assert targets.positions.tolist() == [6]
    assert targets.values.dtype == np.float32
    assert targets.values.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(targets.values[0], clip.expression[2], atol=1e-3)
    unknown = replace(face, expression=np.zeros_like(expression))
    assert build("span_mvfc_kl").targets(unknown) is None


def test_baselines_of_frames_are_errors_of_simple_predictors(
    build: Callable[[str], Objective], clip: MaskedClip, backbone: MemoBert
) -> None:
    face = replace(clip, hidden="face", face_masked=_mask(6, 2, 3))
    rows = (clip.face - backbone.face.mean.numpy()) / backbone.face.std.numpy()
    mean = rows[[0, 4, 5]].mean(0)  # row 1 was not seen
    line = [rows[0] + (rows[4] - rows[0]) * share for share in (0.5, 0.75)]
    found = build("span_mvfr").baselines(face, backbone)
    assert found["clip mean"] == pytest.approx(((rows[2:4] - mean) ** 2).mean(1).sum(), rel=1e-4)
    assert found["interpolation"] == pytest.approx(
        ((rows[2:4] - line) ** 2).mean(1).sum(), rel=1e-4
    )


def test_baseline_of_expressions_is_the_divergence_of_the_visible_mean(
    build: Callable[[str], Objective], clip: MaskedClip, backbone: MemoBert
) -> None:
    face = replace(clip, hidden="face", face_masked=_mask(6, 2, 3))
    posteriors = clip.expression / np.maximum(clip.expression.sum(1, keepdims=True), 1e-9)
    mean = posteriors[[0, 4, 5]].mean(0)
    expected = sum((posteriors[row] * np.log(posteriors[row] / mean)).sum() for row in (2, 3))
    found = build("span_mvfc_kl").baselines(face, backbone)
    assert found == {"clip mean": pytest.approx(expected, rel=1e-4)}
