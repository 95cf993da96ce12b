"""Seven classifiers: which of them hears of which sample, and which one answers."""

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from memo.heads.trimodal import PooledTags, PooledText, TrimodalNetwork, subsets

NAMES = ("image", "text", "tags")
PATTERNS = [one for one in product([False, True], repeat=3) if any(one)]


def network() -> TrimodalNetwork:
    torch.manual_seed(0)
    return TrimodalNetwork(NAMES, 4, 3)


def test_there_are_seven_subsets() -> None:
    assert subsets(3) == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert [network().name(one) for one in subsets(3)][-2:] == ["text+tags", "image+text+tags"]


def test_a_classifier_hears_of_the_samples_that_have_what_it_needs() -> None:
    model = network()
    present = torch.tensor(PATTERNS)
    states, labels = torch.randn(7, 3, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    found = model(states, present, labels)
    for classifier, subset in zip(model.classifiers, model.subsets, strict=True):
        rows = [at for at, row in enumerate(PATTERNS) if all(row[one] for one in subset)]
        logits = classifier(states[rows][:, list(subset)].flatten(1))
        one = found[model.name(subset)]
        torch.testing.assert_close(one.sum, F.cross_entropy(logits, labels[rows], reduction="sum"))
        assert one.count.item() == len(rows)
        assert one.metric_sum.item() == (logits.argmax(1) == labels[rows]).sum().item()


def test_what_is_absent_gets_no_gradient_and_changes_nothing() -> None:
    model = network()
    present = torch.tensor([[True, False, True]])
    states = torch.randn(1, 3, 4, requires_grad=True)
    losses = model(states, present, torch.tensor([1]))
    torch.stack([one.sum for one in losses.values()]).sum().backward()
    assert states.grad is not None
    assert not states.grad[0, 1].any()
    assert states.grad[0, 0].any()
    other = states.detach().clone()
    other[0, 1] = 9.0
    torch.testing.assert_close(model.predict(states, present), model.predict(other, present))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_classifier_of_what_is_there_answers(pattern: tuple[bool, ...]) -> None:
    model = network()
    states = torch.randn(2, 3, 4)
    subset = tuple(at for at, there in enumerate(pattern) if there)
    expected = model.classifiers[model.subsets.index(subset)](states[:, list(subset)].flatten(1))
    # The other sample of the batch has everything.
    present = torch.tensor([pattern, (True, True, True)])
    found = model.predict(states, present)
    torch.testing.assert_close(found[0], expected[0].softmax(0))
    torch.testing.assert_close(found[1], model.classifiers[-1](states.flatten(1))[1].softmax(0))


def test_tags_have_no_order_and_filling_up_changes_nothing() -> None:
    torch.manual_seed(0)
    tags, text = PooledTags(5, 6), PooledText(5, 2, 6).eval()
    vectors = torch.randn(1, 4, 5)
    length = torch.tensor([4])
    torch.testing.assert_close(tags(vectors, length), tags(vectors.flip(1), length))
    filled = torch.cat([vectors, torch.randn(1, 3, 5)], dim=1)
    for encoder in (tags, text):
        torch.testing.assert_close(encoder(filled, length), encoder(vectors, length))
    assert not torch.allclose(text(vectors, length), text(vectors.flip(1), length))


def test_a_text_is_the_maxima_means_and_minima_of_every_width() -> None:
    torch.manual_seed(0)
    text = PooledText(5, 2, 6).eval()
    vectors, lengths = torch.randn(2, 6, 5), (6, 4)
    rows = []
    for own, length in zip(vectors, lengths, strict=True):
        pooled = []
        for convolution in text.cnn.convolutions:
            assert isinstance(convolution, torch.nn.Conv1d)
            (size,) = convolution.kernel_size
            filled = torch.cat([own[:length], torch.zeros(size - 1, 5)])
            windows = [filled[at : at + size].T for at in range(length)]
            assert convolution.bias is not None
            found = torch.stack(
                [
                    ((convolution.weight * one).sum((1, 2)) + convolution.bias).relu()
                    for one in windows
                ]
            )
            pooled += [found.amax(dim=0), found.sum(dim=0) / length, found.amin(dim=0)]
        rows.append(text.output(torch.cat(pooled)))
    torch.testing.assert_close(text(vectors, torch.tensor(lengths)), torch.stack(rows))
