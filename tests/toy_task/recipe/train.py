"""Fit by stochastic gradient descent with momentum."""

import argparse
from pathlib import Path

import numpy as np
from model import features

LEARNING_RATE = 0.05
MOMENTUM = 0.8
WEIGHT_DECAY = 0.001
BATCH_SIZE = 20
EPOCHS = 6
WARMUP_FRACTION = 0.1  # share of steps with a rising learning rate


def learning_rate(progress: float) -> float:
    """Linear warm-up, then linear decay to zero."""
    if progress < WARMUP_FRACTION:
        return LEARNING_RATE * progress / WARMUP_FRACTION
    return LEARNING_RATE * (1 - progress) / (1 - WARMUP_FRACTION)


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    x, y = features(np.load(options.data / "x.npy")), np.load(options.data / "y.npy")
    draw = np.random.default_rng(options.seed)
    weights = draw.normal(0, 0.1, x.shape[1])
    velocity = np.zeros_like(weights)
    steps = EPOCHS * (len(x) // BATCH_SIZE)
    for step in range(steps):
        batch = draw.integers(0, len(x), BATCH_SIZE)
        error = x[batch] @ weights - y[batch]
        gradient = x[batch].T @ error / BATCH_SIZE + WEIGHT_DECAY * weights
        velocity = MOMENTUM * velocity - learning_rate(step / steps) * gradient
        weights += velocity
    np.save(options.out / "weights.npy", weights)


if __name__ == "__main__":
    main()
