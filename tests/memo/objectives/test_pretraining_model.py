"""One forward pass serves every objective."""

import numpy as np
import pytest
import torch

from data_pipeline.clip import Clip
from data_pipeline.packing import Example, PackedBatch, pack
from memo.config import ModelSpec, PretrainConfig
from memo.model.memobert import MemoBert
from memo.objectives import LossSum, build_objectives
from memo.objectives.pretraining_model import PretrainingModel
from memo.objectives.transform import PretrainTransform
from memo.tokenizer import Tokenizer

CONFIG = PretrainConfig()


@pytest.fixture
def model(backbone: MemoBert, spec: ModelSpec) -> PretrainingModel:
    torch.manual_seed(1)
    return PretrainingModel(backbone, build_objectives(CONFIG.objectives, spec))


@pytest.fixture
def examples(model: PretrainingModel, letters: Tokenizer, spec: ModelSpec) -> list[Example]:
    rng = np.random.default_rng(0)
    ratios = {name: one.ratio for name, one in CONFIG.objectives.items()}
    transform = PretrainTransform(
        letters, CONFIG.limits, CONFIG.masking, model.by_name, ratios, seed=0
    )
    return [
        transform(
            Clip(
                key=str(sample),
                text="set blue now",
                face=rng.normal(size=(20, spec.face_dim)).astype(np.float16),
                expression=rng.dirichlet(np.ones(spec.face_classes), 20).astype(np.float16),
                speech=rng.normal(size=(25, spec.speech_dim)).astype(np.float16),
            ),
            sample,
            0,
        )
        for sample in range(12)
    ]


def _pack(model: PretrainingModel, examples: list[Example]) -> PackedBatch:
    specs = {name: one.target_spec() for name, one in model.by_name.items()}
    return pack(examples, specs, model.backbone.spec.face_dim, model.backbone.spec.speech_dim)


def test_a_batch_gives_the_sums_of_its_clips(
    model: PretrainingModel, examples: list[Example]
) -> None:
    model.eval()
    together = model(_pack(model, examples))
    alone = [model(_pack(model, [example])) for example in examples]
    for name, sums in together.items():
        columns = zip(*(one[name] for one in alone), strict=True)
        expected = LossSum(*(torch.stack(column).sum() for column in columns))
        torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-4)
        assert sums.count == sum(
            len(example.targets[name].positions) for example in examples if name in example.targets
        )


def test_every_parameter_has_a_gradient_whatever_is_missing(
    model: PretrainingModel, examples: list[Example]
) -> None:
    text_alone = [example for example in examples if "wwmlm" in example.targets]
    for batch in (text_alone, []):
        model.zero_grad()
        losses = model(_pack(model, batch))
        torch.autograd.backward([loss.sum for loss in losses.values()])
        gradients = {name: one.grad for name, one in model.named_parameters()}
        assert losses["span_mafr"].count == 0
        for name, gradient in gradients.items():
            assert gradient is not None, name
            assert not (name.startswith("objectives.span_mafr") and gradient.any())


def test_all_losses_fall_on_a_batch_seen_again_and_again(
    model: PretrainingModel, examples: list[Example]
) -> None:
    batch = _pack(model, examples)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    means: list[dict[str, float]] = []
    for _ in range(60):
        losses = model(batch)
        optimizer.zero_grad()
        torch.autograd.backward([loss.sum / loss.count for loss in losses.values()])
        optimizer.step()
        means.append({name: (loss.sum / loss.count).item() for name, loss in losses.items()})
    for name, last in means[-1].items():
        assert last < 0.6 * means[0][name], name
