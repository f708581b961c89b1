"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels from 0 to 16, ten classes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.feed.arrow import flat, lists
from tgeokd_ray.tables.card_images import PIXELS
from tgeokd_ray.tables.cards import LABEL, ROW

DIGITS = 1797


def load_digits(asked_by: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(pixels [1797, 64], labels [1797]); ConfigError, which names who asked, without scikit-learn."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError:
        raise ConfigError(
            f"{asked_by} needs scikit-learn", fix="pip install 'tgeokd_ray[dev]', or leave it out"
        ) from None
    pixels, labels = load(return_X_y=True)
    return np.asarray(pixels, dtype=np.float64), np.asarray(labels, dtype=np.int64)


def digits_frame() -> pa.Table:
    """All of them as the readers give rows: `@row`, `@label`, the column of pixels."""
    pixels, labels = load_digits("format.kind: digits")
    rows = np.arange(len(labels))
    return pa.table({ROW: flat(rows), LABEL: flat(labels.astype(np.int32)), PIXELS: lists(pixels.astype(np.uint8))})
