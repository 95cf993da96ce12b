"""A backbone's upper layers with adapters: the states, whatever the cut; sets that do not meet."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from memo.model.memobert import MemoBert
from memo.multitask.encoders import AdapterEncoder, UpperLayers
from memo.multitask.texts import TokenStates
from tests.memo.model.packed import small_spec
from tests.memo.multitask.small_system import pack_texts

CLS = 2
SPEC = small_spec().model_copy(update={"layers": 3})
TEXTS = [[CLS, 3, 4, 5], [CLS, 6], [CLS, 4, 7, CLS, 5, 8]]
DIMS = SPEC.face_dim, SPEC.speech_dim


def states(body: MemoBert, layers: int, number: int, moved: int | None = None) -> Tensor:
    """Of the texts, through one of two sets of adapters; weights of the moved set are drawn."""
    body = deepcopy(body)
    upper = UpperLayers(body, layers, CLS, 2, 4)
    for one in upper.many:
        for at, adapter in enumerate(one.adapters):
            for parameter in adapter.parameters():
                torch.nn.init.normal_(parameter, std=float(at == moved))
    texts = pack_texts(TEXTS, DIMS)
    found: Tensor = AdapterEncoder(upper, number)(TokenStates(body, CLS).rows(texts), texts)
    return found


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_without_a_change_the_state_is_the_mean_of_the_last_layer(layers: int) -> None:
    body = MemoBert(SPEC).eval()
    rows = TokenStates(body, CLS).rows(pack_texts(TEXTS, DIMS))
    expected = torch.stack([one.mean(dim=0) for one in rows.split([len(t) for t in TEXTS])])
    torch.testing.assert_close(states(body, layers, 0), expected)


def test_a_set_changes_its_own_states_alone() -> None:
    body = MemoBert(SPEC).eval()
    untouched = states(body, 2, 0)
    torch.testing.assert_close(states(body, 2, 0, moved=1), untouched)
    assert not torch.allclose(states(body, 2, 1, moved=1), untouched)


def test_no_text_has_no_state() -> None:
    body = MemoBert(SPEC)
    upper, nothing = UpperLayers(body, 1, CLS, 1, 4), pack_texts([], DIMS)
    found = AdapterEncoder(upper, 0)(TokenStates(body, CLS).rows(nothing), nothing)
    assert found.shape == (0, SPEC.hidden)
