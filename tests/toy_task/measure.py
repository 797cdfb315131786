"""Measuring code of the toy task: mean squared error on points that the recipe never sees."""

from pathlib import Path

import numpy as np

from evaluators.task import Violation


def _points(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    x = draw.uniform(-1, 1, count)
    return x.astype(np.float64), (2 * x**2 - x + 0.5 + draw.normal(0, 0.1, count)).astype(np.float64)


def prepare(public: Path, hidden: Path) -> None:
    """Training points in `public`, those of both splits in `hidden`."""
    for folder, seed, count in ((public, 1, 200), (hidden / "validation", 2, 100), (hidden / "certification", 3, 100)):
        folder.mkdir(exist_ok=True)
        x, y = _points(seed, count)
        np.save(folder / "x.npy", x)
        np.save(folder / "y.npy", y)


def challenges(hidden: Path, nonce: int) -> list[np.ndarray]:
    """The validation points, shuffled by the nonce."""
    x = np.load(hidden / "x.npy")
    return [x[np.random.default_rng(nonce).permutation(len(x))]]


def score(hidden: Path, nonce: int, outputs: list[np.ndarray]) -> dict[str, float]:
    """{"val_mse": mean squared error}."""
    y = np.load(hidden / "y.npy")
    y = y[np.random.default_rng(nonce).permutation(len(y))]
    if len(outputs) != 1 or outputs[0].shape != y.shape or outputs[0].dtype != np.float64:
        raise Violation("no_metric", f"expected float64 [{len(y)}], found {[output.shape for output in outputs]}")
    if not np.isfinite(outputs[0]).all():
        raise Violation("nonfinite_metric", "a prediction is NaN or infinite")
    return {"val_mse": float(np.mean((outputs[0] - y) ** 2))}
