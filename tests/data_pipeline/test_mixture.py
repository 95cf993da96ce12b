"""Mixtures: exact shares, each dataset in its own order, any position found directly."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from data_pipeline.lengths import LengthLimits, TokenLengths
from data_pipeline.mixture import (
    BLOCK,
    MixedOrder,
    Mixture,
    mixed_features,
    shares_of,
    weights_of_sizes,
)
from data_pipeline.order import Order, StreamState
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.dataset import DatasetInfo, FaceSchema, FeatureSchema, SpeechSchema
from data_pipeline.shards.reader import Split
from data_pipeline.stream import BatchMaker, Placement, StepSize, TrainStream
from data_pipeline.subset import JoinedLengths
from tests.data_pipeline.small_dataset import FACE_DIM, SPEECH_DIM, plain, write_split

SIZES = (700, 70_000, 3_000)
WEIGHTS = (0.2, 0.5, 0.3)
positions = st.lists(st.integers(0, 2 * BLOCK), min_size=1, max_size=9)
weights = st.lists(st.floats(0.1, 100), min_size=1, max_size=8)


def mixed(seed: int) -> tuple[MixedOrder, list[Order]]:
    parts = [Order(seed + at, np.array([size])) for at, size in enumerate(SIZES)]
    return MixedOrder(seed, parts, np.array(SIZES), shares_of(WEIGHTS)), parts


@given(weights)
def test_shares_are_in_proportion_to_the_last_place(given_weights: list[float]) -> None:
    shares = shares_of(given_weights)
    assert shares.sum() == BLOCK
    exact = np.array(given_weights) / sum(given_weights) * BLOCK
    assert np.abs(shares - exact).max() <= 1


def test_a_weight_without_a_place_is_refused() -> None:
    with pytest.raises(UserError, match="the weight 1e-06 is less than 1 / 65536"):
        shares_of([1.0, 1e-6])


@pytest.mark.parametrize(("temperature", "expected"), [(1, [0.1, 0.9]), (2, [0.25, 0.75])])
def test_the_temperature_brings_shares_together(temperature: float, expected: list[float]) -> None:
    shares = shares_of(weights_of_sizes([100, 900], temperature)) / BLOCK
    np.testing.assert_allclose(shares, expected, atol=1e-4)


def test_a_temperature_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(UserError, match=r"temperature=0\.01 is too small for 100,000 samples"):
        weights_of_sizes([3, 100_000], 0.01)


def test_each_dataset_comes_in_its_own_order_as_often_as_its_share() -> None:
    order, parts = mixed(3)
    found = order.visits(np.arange(2 * BLOCK))
    firsts = np.cumsum((0, *SIZES))
    for at, (part, share) in enumerate(zip(parts, shares_of(WEIGHTS).tolist(), strict=True)):
        mine = (firsts[at] <= found.samples) & (found.samples < firsts[at + 1])
        assert mine[:BLOCK].sum() == mine[BLOCK:].sum() == share
        own = part.visits(np.arange(2 * share))
        np.testing.assert_array_equal(found.samples[mine] - firsts[at], own.samples)
        np.testing.assert_array_equal(found.epochs[mine], own.epochs)


def test_the_datasets_are_mixed_well() -> None:
    """In every 1,000 positions the largest share is within five standard deviations."""
    order, _ = mixed(0)
    large = order.visits(np.arange(65_000)).samples
    shares = ((large >= 700) & (large < 70_700)).reshape(65, 1000).mean(axis=1)
    assert np.abs(shares - 0.5).max() < 5 * 0.5 / 1000**0.5


@given(st.integers(0, 1), positions)
def test_any_position_is_found_directly(seed: int, wanted: list[int]) -> None:
    order, _ = mixed(seed)
    together = order.visits(np.array(wanted))
    for at, position in enumerate(wanted):
        alone = order.visits(np.array([position]))
        assert (alone.samples[0], alone.epochs[0]) == (together.samples[at], together.epochs[at])


@pytest.mark.parametrize("position", [0, 1, 1000, BLOCK - 1, BLOCK, BLOCK + 7, 3 * BLOCK])
def test_counts_are_those_of_the_visits(position: int) -> None:
    order, _ = mixed(1)
    samples = order.visits(np.arange(position)).samples
    sources = np.searchsorted(np.cumsum(SIZES), samples, side="right")
    np.testing.assert_array_equal(order.counts(position), np.bincount(sources, minlength=3))


@pytest.fixture
def splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Split]:
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "cache"))
    return [write_split(tmp_path / str(size), size) for size in (11, 4)]


def mixture(splits: Sequence[Split], given_weights: Sequence[float] = (1, 3)) -> Mixture:
    return Mixture(splits, ("large", "small"), shares_of(given_weights), "large+small")


def test_another_share_is_another_mixture(splits: list[Split]) -> None:
    assert mixture(splits).fingerprint == mixture(splits).fingerprint
    assert mixture(splits).fingerprint != mixture(splits, (1, 2)).fingerprint
    assert mixture(splits).fingerprint != mixture(splits[::-1]).fingerprint


def test_samples_of_one_name_are_told_apart(splits: list[Split]) -> None:
    both = mixture(splits)
    assert splits[0].location(2) == splits[1].location(2) == ("valid-000000.tar", "k2")
    assert both.location(2) == ("large/valid-000000.tar", "k2")
    assert both.location(10) == ("large/valid-000002.tar", "k10")
    assert both.location(11 + 2) == ("small/valid-000000.tar", "k2")
    assert [both.shard_of(at) for at in (10, 11)] == [
        "large/valid-000002.tar",
        "small/valid-000000.tar",
    ]


def test_progress_says_what_was_seen(splits: list[Split]) -> None:
    both = mixture(splits)
    samples = both.order(5).visits(np.arange(40)).samples
    small = int((samples >= 11).sum())
    expected = {
        "share/large": 1 - small / 40,
        "share_wanted/large": 0.25,
        "epochs/large": (40 - small) / 11,
        "share/small": small / 40,
        "share_wanted/small": 0.75,
        "epochs/small": small / 4,
    }
    assert both.progress(5, 40) == pytest.approx(expected)
    assert both.progress(5, 0)["share/large"] == 0


def test_a_stream_of_a_mixture_goes_on_on_other_ranks(splits: list[Split], tmp_path: Path) -> None:
    both = mixture(splits)

    def take(rank: int, ranks: int, state: StreamState, steps: int) -> list[list[tuple[int, str]]]:
        limits = LengthLimits(text=10, face=10, speech=10)
        lengths = [TokenLengths(one, lambda text: len(text.split()), "t", limits) for one in splits]
        maker = BatchMaker(
            split=both,
            transform=plain,
            specs={},
            face_dim=FACE_DIM,
            speech_dim=SPEECH_DIM,
            lengths=JoinedLengths(lengths, [11, 4]),
            token_budget=40,
            placement=Placement(rank, ranks),
            quarantine=Quarantine(tmp_path / "quarantine.jsonl", 3),
        )
        with TrainStream(maker, state, StepSize(7)) as stream:
            return [
                [
                    visit
                    for batch in step.micro_batches
                    for visit in zip(batch.samples.tolist(), batch.keys, strict=True)
                ]
                for step in islice(stream, steps)
            ]

    start = StreamState.start(9, both.fingerprint)
    straight = take(0, 1, start, 6)
    resumed = [take(rank, 2, start.advance(3 * 7, len(both)), 3) for rank in range(2)]
    for whole, *parts in zip(straight[3:], *resumed, strict=True):
        assert sorted(whole) == sorted(visit for part in parts for visit in part)
    expected = both.order(9).visits(np.arange(42)).samples
    seen = sorted(sample for step in straight for sample, _ in step)
    assert seen == sorted(expected.tolist())


def info(name: str, face: NDArray[np.float64] | None, speech: NDArray[np.float64]) -> DatasetInfo:
    def statistics(rows: NDArray[np.float64]) -> dict[str, tuple[float, ...]]:
        return {"mean": tuple(rows.mean(axis=0)), "std": tuple(rows.std(axis=0))}

    face_schema = None
    if face is not None:
        face_schema = FaceSchema(
            dim=2, encoder="f", encoder_sha256="", fps=10, classes=("a",), **statistics(face)
        )
    speech_schema = SpeechSchema(
        dim=3, encoder="s", encoder_sha256="", rows_per_s=9, **statistics(speech)
    )
    features = FeatureSchema(face=face_schema, speech=speech_schema)
    return DatasetInfo(name=name, corpus=name, licence="l", features=features, shards=())


def test_the_statistics_are_those_of_rows_in_these_shares() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(1, 2, (30, 3)), rng.normal(-4, 5, (10, 3))
    face = rng.normal(size=(8, 2))
    found = mixed_features([info("a", None, one), info("b", face, other)], np.array([0.25, 0.75]))
    rows = np.concatenate([one, *[other] * 9])  # 30 rows to 90
    assert found.speech is not None
    np.testing.assert_allclose(found.speech.mean, rows.mean(axis=0))
    np.testing.assert_allclose(found.speech.std, rows.std(axis=0))
    assert found.face is not None
    np.testing.assert_allclose(found.face.mean, face.mean(axis=0))
    np.testing.assert_allclose(found.face.std, face.std(axis=0))


def test_a_feature_that_never_varies_has_no_deviation() -> None:
    """To the bit: rows are divided by it unless it is 0."""
    constants = np.array([0.1, -0.3, 23.7])
    infos = [info(str(rows), None, np.tile(constants, (rows, 1))) for rows in (5, 9)]
    parts = [one.features.speech for one in infos if one.features.speech is not None]
    exact = {"mean": tuple(constants), "std": (0.0,) * 3}
    infos = [
        one.model_copy(update={"features": FeatureSchema(speech=part.model_copy(update=exact))})
        for one, part in zip(infos, parts, strict=True)
    ]
    mixed = mixed_features(infos, np.array([0.3, 0.7])).speech
    assert mixed is not None
    assert mixed.std == (0.0,) * 3
    assert mixed.mean == pytest.approx(constants)
    other = parts[1].model_copy(update={"mean": tuple(constants + 1), "std": (0.0,) * 3})
    infos[1] = infos[1].model_copy(update={"features": FeatureSchema(speech=other)})
    apart = mixed_features(infos, np.array([0.3, 0.7])).speech
    assert apart is not None
    assert apart.std == pytest.approx((0.21**0.5,) * 3)


def test_rows_of_other_encoders_are_refused() -> None:
    rows = np.ones((2, 3))
    one, other = info("a", None, rows), info("b", None, rows)
    speech = other.features.speech
    assert speech is not None
    features = FeatureSchema(speech=speech.model_copy(update={"encoder_sha256": "another"}))
    with pytest.raises(UserError, match="build both with the same encoder"):
        mixed_features([one, other.model_copy(update={"features": features})], np.array([0.5, 0.5]))
