"""Polynomial features."""

import numpy as np

DEGREE = 2  # highest power


def features(x: np.ndarray) -> np.ndarray:
    """[N] -> [N, DEGREE + 1]."""
    return np.stack([x**power for power in range(DEGREE + 1)], axis=1)
