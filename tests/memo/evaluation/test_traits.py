"""Multi-label scores against scikit-learn's."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from memo.evaluation.traits import score_traits

ROWS = st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=12)


@given(ROWS)
def test_scores_are_those_of_scikit_learn(rows: list[list[bool]]) -> None:
    table = np.array(rows)
    labels, predicted = table[:, :3], table[:, 3:]
    found = score_traits(labels, predicted)
    for average, names in (("micro", ("precision", "recall", "f1")), ("macro", ("macro_f1",))):
        for name in names:
            score = {"precision": precision_score, "recall": recall_score}.get(name, f1_score)
            expected = score(labels, predicted, average=average, zero_division=0)
            np.testing.assert_allclose(getattr(found, name), expected, atol=1e-12)
    expected = [accuracy_score(labels[:, at], predicted[:, at]) for at in range(3)]
    np.testing.assert_allclose(found.of_trait, expected)
    np.testing.assert_allclose(found.accuracy, np.mean(expected))


def test_recall_is_not_divided_by_all_mistakes() -> None:
    labels = np.array([[True], [True], [False], [False]])
    predicted = np.array([[True], [False], [True], [True]])
    found = score_traits(labels, predicted)
    assert (found.precision, found.recall) == (1 / 3, 1 / 2)
