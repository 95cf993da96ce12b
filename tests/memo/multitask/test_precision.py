"""Systems in bfloat16, as DeepSpeed casts them on a GPU: losses are float32, nothing is mixed."""

from dataclasses import replace

import pytest
import torch

from data_pipeline.packing import PackedBatch, PackedTargets
from memo.heads.asp_mtl import AspNetwork
from memo.model.memobert import MemoBert
from memo.multitask.asp_mtl import AspSystem
from memo.multitask.base import System, TaskKind
from memo.multitask.batches import JointBatch, TaskBatch
from memo.multitask.config import AspSettings, SogSettings, TrimodalSettings
from memo.multitask.encoders import AdapterEncoder, UpperLayers, WordEncoder
from memo.multitask.posts import CLIP, ClipEncoder
from memo.multitask.sog import SogSystem
from memo.multitask.texts import TokenStates, WordStates
from memo.multitask.trimodal import TrimodalSystem
from memo.words.encoders import WordEmbedding
from tests.memo.model.packed import random_batch, small_spec
from tests.memo.multitask.small_system import pack_texts

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


def build(system: str) -> System:
    if system.startswith("asp"):
        return asp(system)
    if system == "trimodal on clips":
        settings = TrimodalSettings(width=8)
        return TrimodalSystem(KINDS[:1], ClipEncoder(MemoBert(small_spec()), 8), CLIP, settings)
    below = words() if system == "sog on words" else TokenStates(MemoBert(small_spec()), 2)
    return SogSystem(KINDS, below, SogSettings(filters=4), (1, 2))


def batch_of(system: str) -> PackedBatch:
    if system != "trimodal on clips":
        return pack_texts([[2, 3, 4], [2, 5]], DIMS)
    batch = random_batch(small_spec(), [(3, 2, 4), (2, 0, 1)])
    present = torch.tensor([[True, True, True], [True, False, True]])
    places = batch.cu_seqlens[:-1].long()
    beside = {
        "present": PackedTargets(places, present),
        "label": PackedTargets(places, torch.tensor([[0], [1]])),
    }
    return replace(batch, targets=beside)


SYSTEMS = ["asp on words", "asp on tokens", "sog on words", "sog on tokens", "trimodal on clips"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_losses_and_answers_are_float32(name: str) -> None:
    torch.manual_seed(0)
    system, batch = build(name).to(torch.bfloat16), batch_of(name)
    counts = system.counts(0, batch, labelled=True)
    own = TaskBatch(0, batch, labelled=True, counts=counts)
    losses = system(JointBatch((own,)) if name.startswith("asp") else own)
    assert set(losses) == set(system.weights)
    total = torch.stack([one.sum for one in losses.values()]).sum()
    assert total.dtype == torch.float32
    assert torch.isfinite(total)
    total.backward()
    assert any(one.grad is not None for one in system.parameters())
    for answers in system.answers(batch, 0).values():
        assert answers.dtype == torch.float32
