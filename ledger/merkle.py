"""The Merkle tree over entries: tree hash, inclusion and consistency proofs of RFC 6962 / RFC 9162."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()
TILE_BITS = 8
"""A stored node covers 256 nodes of the level below, as a hash tile of C2SP tlog-tiles does."""
TILE_WIDTH = 1 << TILE_BITS


class ProofError(ValueError):
    """A proof does not show what it claims to show."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry): RFC 6962, section 2.1."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right): RFC 6962, section 2.1."""
    return sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Tree hash over node hashes of one level, in O(n): level by level, a last node without a sibling moves up."""
    level = list(hashes)
    while len(level) > 1:
        last = level[-1:] if len(level) & 1 else []
        level = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        level += last
    return level[0] if level else EMPTY_ROOT


class Frontier:
    """The right edge of a growing tree: roots of the complete subtrees, largest first.

    Pushing is amortised O(1), the root O(log n). The size's binary digits are the sizes of the subtrees.
    """

    def __init__(self) -> None:
        self.size = 0
        self._roots: list[bytes] = []

    def push(self, leaf: bytes, width: int = 1) -> None:
        """Add one leaf, or the root of a complete subtree of `width` leaves (a power of two dividing the size)."""
        roots, carry = self._roots, leaf
        full = self.size // width
        while full & 1:
            carry = node_hash(roots.pop(), carry)
            full >>= 1
        roots.append(carry)
        self.size += width

    @property
    def roots(self) -> Sequence[bytes]:
        """Roots of the complete subtrees, largest first."""
        return self._roots

    def root(self) -> bytes:
        """Tree hash of everything pushed."""
        if not self._roots:
            return EMPTY_ROOT
        roots = reversed(self._roots)
        value = next(roots)
        for left in roots:
            value = node_hash(left, value)
        return value

    def copy(self) -> "Frontier":
        """An independent frontier in the same state."""
        twin = Frontier()
        twin.size, twin._roots = self.size, self._roots.copy()
        return twin


Fetch = Callable[[int, int, int], list[bytes]]
"""(level, start, stop) -> hashes of the nodes start..stop at tile level `level`; level 0 are leaves."""


@dataclass(frozen=True)
class Tree:
    """A tree of `size` leaves whose nodes are read on demand: proofs cost O(log n) reads."""

    size: int
    fetch: Fetch

    def root(self) -> bytes:
        """Tree hash of all leaves."""
        return self._subtree(0, self.size) if self.size else EMPTY_ROOT

    def inclusion_proof(self, index: int) -> list[bytes]:
        """Audit path of leaf `index` (RFC 6962, 2.1.1), nearest sibling first."""
        if not 0 <= index < self.size:
            raise ValueError(f"expected a leaf below {self.size}, found {index}")
        path: list[bytes] = []
        start, stop = 0, self.size
        while stop - start > 1:
            middle = start + _split(stop - start)
            if index < middle:
                path.append(self._subtree(middle, stop))
                stop = middle
            else:
                path.append(self._subtree(start, middle))
                start = middle
        return path[::-1]

    def consistency_proof(self, old_size: int) -> list[bytes]:
        """Proof that the first `old_size` leaves are a prefix (RFC 6962, 2.1.2)."""
        if not 0 < old_size <= self.size:
            raise ValueError(f"expected an old size of 1 to {self.size}, found {old_size}")
        path: list[bytes] = []
        start, stop, whole = 0, self.size, True
        while old_size != stop:
            middle = start + _split(stop - start)
            if old_size <= middle:
                path.append(self._subtree(middle, stop))
                stop = middle
            else:
                path.append(self._subtree(start, middle))
                start, whole = middle, False
        if not whole:
            path.append(self._subtree(start, stop))
        return path[::-1]

    def _subtree(self, start: int, stop: int) -> bytes:
        """Hash over leaves start..stop, where start is a multiple of the largest power of two below the width."""
        frontier = Frontier()
        while start < stop:
            width = 1 << ((stop - start).bit_length() - 1)
            frontier.push(self._complete(start, width), width)
            start += width
        return frontier.root()

    def _complete(self, start: int, width: int) -> bytes:
        level = (width.bit_length() - 1) // TILE_BITS
        span = 1 << (level * TILE_BITS)
        return root_of(self.fetch(level, start // span, (start + width) // span))


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """RFC 9162, 2.1.3.2. Raises ProofError unless `leaf` is leaf `index` of the tree with this size and root."""
    if not 0 <= index < size:
        raise ProofError(f"expected a leaf index below {size}, found {index}")
    _expect_hashes(leaf, root, *proof)
    fn, sn, value = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise ProofError("the inclusion proof is too long")
        if fn & 1 or fn == sn:
            value = node_hash(sibling, value)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            value = node_hash(value, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise ProofError("the inclusion proof is too short")
    if value != root:
        raise ProofError(f"the inclusion proof leads to root {value.hex()}, the tree head says {root.hex()}")


def check_consistency(old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """RFC 9162, 2.1.4.2. Raises ProofError unless the larger tree extends the smaller one."""
    if not 0 < old_size <= size:
        raise ProofError(f"expected an old size of 1 to {size}, found {old_size}")
    _expect_hashes(old_root, root, *proof)
    if old_size == size:
        if proof or old_root != root:
            raise ProofError(f"two roots for the same size {size}: {old_root.hex()} and {root.hex()}")
        return
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise ProofError("the consistency proof is empty")
    fn, sn = old_size - 1, size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old_value = value = path[0]
    for sibling in path[1:]:
        if sn == 0:
            raise ProofError("the consistency proof is too long")
        if fn & 1 or fn == sn:
            old_value, value = node_hash(sibling, old_value), node_hash(sibling, value)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            value = node_hash(value, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise ProofError("the consistency proof is too short")
    if old_value != old_root:
        raise ProofError(
            f"the old head does not lead to this log: calculated {old_value.hex()}, it says {old_root.hex()}"
        )
    if value != root:
        raise ProofError(f"the proof leads to root {value.hex()}, the tree head says {root.hex()}")


def _expect_hashes(*values: bytes) -> None:
    # Siblings of other lengths could make a leaf's bytes pass for an inner node's.
    for value in values:
        if len(value) != 32:
            raise ProofError(f"expected hashes of 32 bytes, found one of {len(value)}")


def _split(width: int) -> int:
    """Largest power of two smaller than `width`."""
    return 1 << ((width - 1).bit_length() - 1)
