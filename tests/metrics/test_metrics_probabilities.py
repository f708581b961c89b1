"""What is done on two columns has the digits of numpy's reductions over an axis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tgeokd_ray.metrics.probabilities import log_softmax, predicted_class

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


def by_axis(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("num_classes", [2, 3, 8])
@given(st.data())
def test_the_same_digits(num_classes: int, data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 40))
    logits = data.draw(arrays(np.float32, (rows, num_classes), elements=FINITE))
    np.testing.assert_array_equal(log_softmax(logits), by_axis(logits))
    predicted = predicted_class(logits)
    assert predicted.dtype == np.int64
    np.testing.assert_array_equal(predicted, logits.argmax(axis=1))


def test_of_equal_logits_the_first() -> None:
    assert predicted_class(np.array([[1, 1], [0, -0.0], [-1, 2]], np.float32)).tolist() == [0, 0, 1]
