"""golf-cpu: the interpreter's own library as bytes, split by hash of path; bits per byte on the hidden files.

    val_bpb = sum over scored bytes of -log2 p(byte | bytes before it in its window) / scored bytes

A window of T bytes has T - 1 scored bytes: its first byte is given. The recipe hands over logits and never
probabilities; the log-softmax is taken here, so that what it claims always sums to one.

Causality is probed, not read off the code. The first challenge holds the windows as they are. Each further
one holds them in another order, and in every window the bytes from some cut on give way to other text of
the hidden files. Logits before the cut must not notice. The byte at the cut always differs, so that a
position which looks one byte ahead shows itself when the cut falls behind it. A recipe that looks ahead at
a share f of the positions passes one measurement with probability (1 - f) ** (WINDOW_COUNT * PROBE_COUNT):
2e-6 at f = 5 %, 8 % at f = 1 %. Looking at other windows of the batch counts as looking ahead: their order
and their bytes change as well.

This does not stop a recipe that opens the interpreter's library itself: legality and the sandbox have to.
"""

import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evaluators.task import Violation

SKIPPED_FOLDERS = frozenset(
    # Installed packages, tests, caches, applications written in Python; the last two are generated tables.
    (
        *("site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"),
        "__pycache__",
        "encodings",
        "pydoc_data",
    )
)
SEPARATOR = b"\0"
"""Stands after each file; occurs in no Python source."""
VALIDATION_SHARE = 0.06
CERTIFICATION_SHARE = 0.03
"""Shares of the files, by number."""
TRAIN_LIMIT_BYTES = 8_000_000

WINDOW_COUNT = 128
WINDOW_BYTES = 512
PROBE_COUNT = 2
TOLERANCE_NATS = 1e-3
"""Largest change of a log-probability that rounding may explain. Another batch, or other bytes after a mask,
move those of float32 networks by 1e-5 to 1e-4. A recipe that hides foresight under this bound gains at most
0.0015 bit a byte."""
CHUNK_WINDOWS = 8
"""Windows whose logits are in memory at a time: 4 MiB."""

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.generic]


def prepare(public: Path, hidden: Path) -> None:
    """Write `public`/train.bin, `hidden`/validation/text.bin and `hidden`/certification/text.bin.

    Each is source files in the order of their paths, a separator after each. The same interpreter gives the
    same bytes; another patch release is another corpus, which the data digest of the epoch tells.
    """
    library = Path(sysconfig.get_path("stdlib"))
    parts: dict[str, list[bytes]] = {"train": [], "validation": [], "certification": []}
    for path in sorted(_sources(library)):
        parts[_split(path)].append((library / path).read_bytes() + SEPARATOR)
    (public / "train.bin").write_bytes(b"".join(parts["train"])[:TRAIN_LIMIT_BYTES])
    for name in ("validation", "certification"):
        (hidden / name).mkdir()
        (hidden / name / "text.bin").write_bytes(b"".join(parts[name]))


def challenges(hidden: Path, nonce: int) -> list[Array]:
    """1 + PROBE_COUNT arrays, uint8 [WINDOW_COUNT, WINDOW_BYTES]: the windows, then their altered copies."""
    windows, others = _windows(hidden)
    altered: list[Array] = [windows]
    for probe in range(PROBE_COUNT):
        copies = windows.copy()
        for index, cut in enumerate(_cuts(nonce, probe)):
            copies[index, cut:] = _donor(others, nonce, probe, index, int(cut), int(windows[index, cut]))
        altered.append(copies[_order(nonce, probe)])
    return altered


def score(hidden: Path, nonce: int, outputs: list[Array]) -> dict[str, float]:
    """`val_bpb` (see above) and `bytes`, the number of scored bytes.

    `outputs` are the answers to `challenges` with the same nonce: float32 logits [WINDOW_COUNT, WINDOW_BYTES,
    256], where those at t predict byte t + 1. All are finite: a byte that is ruled out has a low logit.

    Raises Violation: no_metric for another shape or type, nonfinite_metric, causality_violation.
    """
    windows, _ = _windows(hidden)
    expected = (WINDOW_COUNT, WINDOW_BYTES, 256)
    if len(outputs) != 1 + PROBE_COUNT:
        raise Violation("no_metric", f"expected {1 + PROBE_COUNT} arrays of logits, found {len(outputs)}")
    for output in outputs:
        if output.shape != expected or output.dtype != np.float32:
            found = f"{output.dtype} {list(output.shape)}"
            raise Violation("no_metric", f"expected float32 {list(expected)}, found {found}")
    claimed = outputs[0].astype(np.float32, copy=False)
    nats = sum(_nats(claimed[rows], windows[rows], rows.start) for rows in _chunks())
    for probe in range(PROBE_COUNT):
        _check_probe(claimed, outputs[1 + probe].astype(np.float32, copy=False), nonce, probe)
    count = WINDOW_COUNT * (WINDOW_BYTES - 1)
    bpb = nats / np.log(2.0) / count
    if not np.isfinite(bpb):
        raise Violation("nonfinite_metric", f"val_bpb is {bpb}: a byte that occurs has probability 0")
    return {"val_bpb": float(bpb), "bytes": float(count)}


def _sources(library: Path, below: str = "") -> Iterator[str]:
    """Relative posix paths of the library's Python files that are part of the corpus."""
    for path in (library / below).iterdir():
        relative = f"{below}/{path.name}" if below else path.name
        if path.is_dir():
            if path.name not in SKIPPED_FOLDERS:
                yield from _sources(library, relative)
        elif path.suffix == ".py":
            yield relative


def _split(path: str) -> str:
    share = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8]) / 2**64
    if share < VALIDATION_SHARE:
        return "validation"
    return "certification" if share < VALIDATION_SHARE + CERTIFICATION_SHARE else "train"


def _windows(hidden: Path) -> tuple[Bytes, Bytes]:
    """The scored windows, evenly spread over the hidden text, and the others: uint8 [., WINDOW_BYTES]."""
    text = np.fromfile(hidden / "text.bin", dtype=np.uint8)
    count = len(text) // WINDOW_BYTES
    if count < 2 * WINDOW_COUNT:
        least = 2 * WINDOW_COUNT
        raise ValueError(f"expected {least} or more windows of {WINDOW_BYTES} bytes, found {count}")
    slots = text[: count * WINDOW_BYTES].reshape(count, WINDOW_BYTES)
    scored = np.arange(WINDOW_COUNT) * count // WINDOW_COUNT
    return slots[scored], np.delete(slots, scored, axis=0)


def _donor(others: Bytes, nonce: int, probe: int, index: int, cut: int, replaced: int) -> Bytes:
    """The bytes from `cut` on of an unscored window whose byte at the cut is not `replaced`.

    Donors are unscored, so that no altered window shows how another one goes on.
    """
    eligible = np.flatnonzero(others[:, cut] != replaced)
    if not len(eligible):
        raise ValueError(f"expected different bytes at position {cut} of the hidden windows, found one")
    return others[eligible[_draw(nonce, "donor", probe, index) % len(eligible)], cut:]


def _cuts(nonce: int, probe: int) -> Integers:
    """First altered position of each window, uniform over the scored bytes: int64 [WINDOW_COUNT]."""
    draws = [_draw(nonce, "cut", probe, index) for index in range(WINDOW_COUNT)]
    return np.array([1 + draw % (WINDOW_BYTES - 1) for draw in draws])


def _order(nonce: int, probe: int) -> Integers:
    """Which window stands at each place of a probe: a permutation, int64 [WINDOW_COUNT]."""
    return np.array(sorted(range(WINDOW_COUNT), key=lambda index: _draw(nonce, "order", probe, index)))


def _draw(nonce: int, purpose: str, probe: int, index: int) -> int:
    """A uniform 64-bit number; SHA-256, so that every library version draws the same."""
    return int.from_bytes(hashlib.sha256(f"{nonce}:{purpose}:{probe}:{index}".encode()).digest()[:8])


def _chunks() -> Iterator[slice]:
    for start in range(0, WINDOW_COUNT, CHUNK_WINDOWS):
        yield slice(start, start + CHUNK_WINDOWS)


def _log_probabilities(logits: Floats) -> Floats:
    """Log-softmax over the last axis, in nats."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total: Floats = np.exp(shifted).sum(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(total), dtype=np.float32)


def _nats(logits: Floats, windows: Bytes, first: int) -> float:
    """Sum of -ln p over the scored bytes of some windows, the first of which has the number `first`."""
    if not np.isfinite(logits).all():
        window, position, byte = (int(axis[0]) for axis in np.nonzero(~np.isfinite(logits)))
        found = logits[window, position, byte]
        place = f"window {first + window}, position {position}, byte {byte}"
        raise Violation("nonfinite_metric", f"{place}: the logit is {found}")
    scored, following = logits[:, :-1], windows[:, 1:].astype(np.int64)[..., None]
    # Logits near the end of float32 overflow to a probability of 0, which the sum shows.
    with np.errstate(over="ignore"):
        chosen = np.take_along_axis(_log_probabilities(scored), following, axis=-1)
    return -float(chosen.sum(dtype=np.float64))


def _check_probe(claimed: Floats, answer: Floats, nonce: int, probe: int) -> None:
    """Raises Violation where logits before the cut differ between the windows and their altered copies."""
    cuts = _cuts(nonce, probe)
    for place, window in enumerate(_order(nonce, probe)):
        cut = cuts[window]
        before, after = claimed[window, :cut], answer[place, :cut]
        # A log-softmax moves by at most twice the largest change of its logits: most need no second look.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.abs(before - after).max() <= TOLERANCE_NATS / 2:
                continue
            changes = np.abs(_log_probabilities(before) - _log_probabilities(after)).max(axis=-1)
        # Written so that NaN fails.
        if not (changes <= TOLERANCE_NATS).all():
            position = int(np.argmax(~(changes <= TOLERANCE_NATS)))
            raise Violation(
                "causality_violation",
                f"window {window}: log-probabilities at position {position} change by"
                f" {changes[position]:.2g} nats when bytes from {cut} on change",
            )
