"""The Haar cascades' eyes against the formula; `test_face.py` looks for real faces with them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.features.haar import EYE_DISTANCE, EYE_HEIGHT, _squares_of_eyes


@given(
    x=st.floats(80, 120),
    y=st.floats(80, 120),
    distance=st.floats(20, 40),
    angle=st.floats(-0.4, 0.4),
)
def test_eyes_come_to_lie_where_fer2013_has_them(
    x: float, y: float, distance: float, angle: float
) -> None:
    half = np.array([np.cos(angle), np.sin(angle)]) * distance / 2
    left, right = np.array([x, y]) - half, np.array([x, y]) + half
    cx, cy, side, turn = _squares_of_eyes(np.array([[*left, *right]]))[0]
    back = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / side
    for eye, sign in ((left, -1), (right, 1)):
        place = back @ (eye - (cx, cy)) + 0.5  # in sides of the square, from its corner
        np.testing.assert_allclose(place, [0.5 + sign * EYE_DISTANCE / 2, EYE_HEIGHT], atol=1e-9)
