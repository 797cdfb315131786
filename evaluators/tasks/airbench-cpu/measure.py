"""airbench-cpu: handwritten digits, split and distorted by hash; accuracy on images with hidden labels.

The images are scikit-learn's bundled digits (1,797 of 8x8, values 0..16). As they come they are too easy: the
nearest neighbour needs no training and is right on 99 % of them, so that "train as briefly as you can" has
the answer zero. Every image is therefore turned, stretched and shifted a little, by amounts that SHA-256
draws; the nearest neighbour then falls to 92 %. No hidden image is in the public data set byte by byte. This
does not stop a recipe that opens scikit-learn's copy and looks for the closest original: legality and the
sandbox keep it from that.

Bytes are the same on every machine and library version: SHA-256 draws all, and the resampling is exact in
binary floating point, because coordinates are multiples of 1/512 and pixels are integers.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from evaluators.task import Violation

TRAIN_COUNT = 1_000
VALIDATION_COUNT = 500
"""Images after these two parts are the certification split (297)."""
HIDDEN_VIEWS = 4
"""Distorted copies of each hidden image: more of them measure the same model with less noise."""
UNIT = 256
"""Distortions are drawn in steps of 1/256."""
TURN_MAX = 48
STRETCH_MAX = 32
SHIFT_MAX = 128
"""Largest turn (tangent), stretch (per axis, relative) and shift (pixels), in steps."""
CLASS_COUNT = 10

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def prepare(public: Path, hidden: Path) -> None:
    """Write the training split into `public`, the validation and certification splits into `hidden`.

    Each split is a pair in a folder of its name: images.npy, float32 [N,1,8,8] in 0..1, and labels.npy, int64 [N];
    the training split's are train_images.npy and train_labels.npy.
    """
    digits = load_digits()
    pixels: npt.NDArray[np.float64] = digits.images
    labels: Integers = digits.target.astype(np.int64)
    order = sorted(range(len(pixels)), key=lambda index: _digest("split", index))
    first_hidden, first_certification = TRAIN_COUNT, TRAIN_COUNT + VALIDATION_COUNT
    _write(public, "train_", pixels, labels, order[:first_hidden], views=1)
    _write(
        _made(hidden / "validation"), "", pixels, labels, order[first_hidden:first_certification], views=HIDDEN_VIEWS
    )
    _write(_made(hidden / "certification"), "", pixels, labels, order[first_certification:], views=HIDDEN_VIEWS)


def challenges(hidden: Path, nonce: int) -> list[npt.NDArray[np.generic]]:
    """One array, float32 [M,1,8,8]: the images of the split in an order that `nonce` decides."""
    images: Floats = np.load(hidden / "images.npy")
    return [images[_order(len(images), nonce)]]


def score(hidden: Path, nonce: int, outputs: list[npt.NDArray[np.generic]]) -> dict[str, float]:
    """`accuracy` of the answers to `challenges(hidden, nonce)`, `correct` and `total`.

    Raises Violation, label no_metric, unless the answers are one int64 [M] of class ids.
    """
    labels: Integers = np.load(hidden / "labels.npy")
    expected = labels[_order(len(labels), nonce)]
    if len(outputs) != 1:
        raise Violation("no_metric", f"expected 1 answer, found {len(outputs)}")
    answer = outputs[0]
    if answer.dtype != np.int64 or answer.shape != expected.shape:
        found = f"{answer.dtype} {list(answer.shape)}"
        raise Violation("no_metric", f"expected class ids as int64 {list(expected.shape)}, found {found}")
    lowest, highest = int(answer.min()), int(answer.max())
    if lowest < 0 or highest >= CLASS_COUNT:
        expected_ids = f"class ids 0 to {CLASS_COUNT - 1}"
        raise Violation("no_metric", f"expected {expected_ids}, found {lowest} to {highest}")
    correct = int((answer == expected).sum())
    return {"accuracy": correct / len(expected), "correct": correct, "total": len(expected)}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _write(
    folder: Path, prefix: str, pixels: npt.NDArray[np.float64], labels: Integers, indices: list[int], views: int
) -> None:
    """Store one split; the views of an image follow one another."""
    images = [_distorted(pixels[index], index, view) for index in indices for view in range(views)]
    np.save(folder / f"{prefix}images.npy", np.stack(images)[:, None].astype(np.float32))
    np.save(folder / f"{prefix}labels.npy", np.repeat(labels[indices], views))


def _distorted(image: npt.NDArray[np.float64], index: int, view: int) -> npt.NDArray[np.float64]:
    """`image` [8,8] in 0..16 -> [8,8] in 0..1, resampled bilinearly at the points of a random affine map."""
    turn, stretch_row, stretch_column, shift_row, shift_column = _draws(
        f"view {view}", index, (TURN_MAX, STRETCH_MAX, STRETCH_MAX, SHIFT_MAX, SHIFT_MAX)
    )
    size = len(image)
    middle = (size - 1) / 2
    row, column = np.meshgrid(np.arange(size) - middle, np.arange(size) - middle, indexing="ij")
    source_row = middle + (1 + stretch_row) * row - turn * column + shift_row
    source_column = middle + (1 + stretch_column) * column + turn * row + shift_column
    # A border of zeros wider than any distortion makes each of the four neighbours exist.
    border = size
    padded = np.pad(image, border)
    top = np.floor(source_row).astype(np.int64)
    left = np.floor(source_column).astype(np.int64)
    down, right = source_row - top, source_column - left
    result: npt.NDArray[np.float64] = np.zeros_like(image)
    for add_row, weight_row in ((0, 1 - down), (1, down)):
        for add_column, weight_column in ((0, 1 - right), (1, right)):
            result += weight_row * weight_column * padded[top + border + add_row, left + border + add_column]
    return result / 16


def _draws(purpose: str, index: int, bounds: tuple[int, ...]) -> list[float]:
    """One number for each bound, uniform over the multiples of 1/UNIT from -bound/UNIT to bound/UNIT."""
    digest = _digest(purpose, index)
    words = (int.from_bytes(digest[4 * place : 4 * place + 4]) for place in range(len(bounds)))
    return [(word % (2 * bound + 1) - bound) / UNIT for word, bound in zip(words, bounds, strict=True)]


def _order(count: int, nonce: int) -> list[int]:
    """A permutation of `count` indices; the same for the same `nonce`."""
    return sorted(range(count), key=lambda index: _digest(f"order {nonce}", index))


def _digest(purpose: str, index: int) -> bytes:
    """32 bytes that depend on nothing but their arguments."""
    return hashlib.sha256(f"airbench-cpu {purpose} {index}".encode()).digest()
