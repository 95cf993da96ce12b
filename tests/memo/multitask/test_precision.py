"""Systems in bfloat16, as DeepSpeed casts them: losses are float32, nothing is mixed."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from data_pipeline.clip import Clip
from data_pipeline.packing import PackedBatch, PackedTargets, TargetSpec, pack
from memo.heads.asp_mtl import AspNetwork
from memo.model.memobert import MemoBert
from memo.multitask.asp_mtl import AspSystem
from memo.multitask.base import System, TaskKind
from memo.multitask.batches import JointBatch, TaskBatch
from memo.multitask.config import AspSettings, ImageSettings, SogSettings, TrimodalSettings
from memo.multitask.encoders import AdapterEncoder, UpperLayers, WordEncoder
from memo.multitask.images import ImageNetwork
from memo.multitask.posts import (
    CLIP,
    POST,
    ClipEncoder,
    Losing,
    PostEncoder,
    PostTransform,
    post_specs,
)
from memo.multitask.sog import SogSystem
from memo.multitask.texts import TokenStates, WordStates
from memo.multitask.trimodal import TrimodalSystem
from memo.words.encoders import WordEmbedding
from memo.words.vocabulary import Vocabulary
from tests.memo.model.packed import random_batch, small_spec
from tests.memo.multitask.small_system import cast_parameters, pack_texts

KINDS = [TaskKind("one", 2, multi_label=False), TaskKind("two", 2, multi_label=False)]
DIMS = (6, 5)


def words() -> WordStates:
    return WordStates(WordEmbedding(torch.randn(9, 5), frozen=False))


def asp(system: str) -> System:
    settings = AspSettings(hidden=4)
    if system == "asp on words":
        states = words()
        network = AspNetwork(states, lambda: WordEncoder(5, settings), [2, 2], "asp")
        return AspSystem(KINDS, network, settings)
    body = MemoBert(small_spec())
    upper = UpperLayers(body, 1, 2, 3, 4)
    numbers, tokens = iter(range(3)), TokenStates(body, 2)
    network = AspNetwork(tokens, lambda: AdapterEncoder(upper, next(numbers)), [2, 2], "asp")
    return AspSystem(KINDS, network, settings)


def images() -> ImageNetwork:
    torch.manual_seed(0)
    return ImageNetwork(ImageSettings(model="test_resnet", size=32))


def trimodal(system: str) -> System:
    _, _, inputs, fusion = system.split()
    settings = TrimodalSettings.model_validate({"width": 8, "fusion": fusion})
    if inputs == "clips":
        return TrimodalSystem(KINDS[:1], ClipEncoder(MemoBert(small_spec()), 8), CLIP, settings)
    network = images()
    posts = PostEncoder(
        network, network.width, words(), tags=9, tag_width=4, filters=4, width=8, dropout=0.5
    )
    return TrimodalSystem(KINDS[:1], posts, POST, settings)


def build(system: str) -> System:
    if system.startswith("asp"):
        return asp(system)
    if system.startswith("trimodal"):
        return trimodal(system)
    below = words() if system == "sog on words" else TokenStates(MemoBert(small_spec()), 2)
    return SogSystem(KINDS, below, SogSettings(filters=4), (1, 2))


def posts() -> PackedBatch:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3)).astype(np.uint8)
    pictures = [bytes(cv2.imencode(".jpg", one)[1]) for one in pixels]
    transform = PostTransform(
        lambda text: np.array([2, len(text)]),
        Vocabulary(["sunny"]),
        longest_tags=3,
        labels=np.array([0, 1, 0]),
        rows=None,
        size=32,
        losing=Losing(0, 0),
    )
    clips = [
        Clip("a", text="hello", tags=("sunny",), image=pictures[0]),
        Clip("b", image=pictures[1]),
        Clip("c", text="you", image=pictures[2]),
    ]
    examples = [transform(clip, at, 0) for at, clip in enumerate(clips)]
    return pack(examples, post_specs(TargetSpec(torch.uint8, (3, 32, 32))), 0, 0)


def batch_of(system: str) -> PackedBatch:
    if system.startswith("trimodal on posts"):
        return posts()
    if not system.startswith("trimodal"):
        return pack_texts([[2, 3, 4], [2, 5]], DIMS)
    batch = random_batch(small_spec(), [(3, 2, 4), (2, 0, 1)])
    present = torch.tensor([[True, True, True], [True, False, True]])
    places = batch.cu_seqlens[:-1].long()
    beside = {
        "present": PackedTargets(places, present),
        "label": PackedTargets(places, torch.tensor([[0], [1]])),
    }
    return replace(batch, targets=beside)


SYSTEMS = [
    "asp on words", "asp on tokens", "sog on words", "sog on tokens",
    *(f"trimodal on {inputs} {how}"
      for inputs in ("clips", "posts") for how in ("seven", "concat", "mean", "late")),
]  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_losses_and_answers_are_float32(name: str) -> None:
    torch.manual_seed(0)
    system, batch = build(name), batch_of(name)
    cast_parameters(system)
    counts = system.counts(0, batch, labelled=True)
    own = TaskBatch(0, batch, labelled=True, counts=counts)
    losses = system(JointBatch((own,)) if name.startswith("asp") else own)
    assert set(losses) == set(system.weights)
    total = torch.stack([one.sum for one in losses.values()]).sum()
    assert total.dtype == torch.float32
    assert torch.isfinite(total)
    total.backward()
    assert any(one.grad is not None for one in system.parameters())
    system.eval()
    with torch.no_grad():
        system.calibrate([batch], lambda own: own)
        for answers in system.answers(batch, 0).values():
            assert answers.dtype == torch.float32


def test_running_statistics_are_those_of_float32() -> None:
    whole, half = images(), images()
    cast_parameters(half)
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=rng)
    kept, expected = (dict(one.body.named_buffers()) for one in (half, whole))
    first = next(name for name in kept if name.endswith("running_var"))
    for _ in range(60):  # as far as they go
        whole(pixels)
        half(pixels)
        torch.testing.assert_close(kept[first], expected[first], rtol=5e-3, atol=0)
    assert all(half.body.get_buffer(name) is one for name, one in kept.items())
    before = kept[first].clone()
    half.eval()(pixels)
    assert torch.equal(kept[first], before)
