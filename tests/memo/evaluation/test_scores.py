import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from memo.evaluation.scores import majority_scores, rows_scores, score, text_scores

CLASSES = 4


@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T
    found = score(labels, predicted, CLASSES)
    occurring = np.unique(labels)
    assert found.wa == pytest.approx(accuracy_score(labels, predicted))
    assert found.uar == pytest.approx(balanced_accuracy_score(labels, predicted))
    weighted = f1_score(labels, predicted, average="weighted", zero_division=0)
    assert found.weighted_f1 == pytest.approx(weighted)
    macro = f1_score(labels, predicted, labels=occurring, average="macro", zero_division=0)
    assert found.macro_f1 == pytest.approx(macro)
    expected = confusion_matrix(labels, predicted, labels=range(CLASSES))
    assert np.array_equal(found.confusion, expected)
    for name in range(CLASSES):
        assert np.isnan(found.recall[name]) == (name not in occurring)


def test_a_class_that_does_not_occur_is_none_in_json() -> None:
    record = score(np.array([0, 0]), np.array([0, 1]), 2).to_json()
    assert record["recall"] == [0.5, None]
    assert record["confusion"] == [[1, 1], [0, 0]]


def test_the_majority_is_that_of_the_training_part() -> None:
    found = majority_scores(np.array([1, 1, 0]), np.array([0, 0, 1]), 2)
    assert found.wa == pytest.approx(1 / 3)
    assert found.uar == 0.5


def test_the_text_baseline_reads_words_of_any_language() -> None:
    train = ["정말 기쁨 가득", "너무 슬픔 가득"] * 4
    found = text_scores(
        train, np.array([0, 1] * 4), ["기쁨", "슬픔", "슬픔"], np.array([0, 1, 1]), 2
    )
    assert found.wa == 1


def test_rows_are_standardised_and_told_apart() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    rows = rng.normal(size=(90, 4)).astype(np.float32)
    rows[:, 1] += labels
    rows *= np.array([1, 1e-3, 1, 1], np.float32)  # what tells the classes is small
    rows[:, 0] += 1e3
    found = rows_scores(rows[:60], labels[:60], rows[60:], labels[60:], 3)
    assert found.uar > 0.5
    chance = rows_scores(rows[:60, 2:], labels[:60], rows[60:, 2:], labels[60:], 3)
    assert chance.uar < 0.5
