"""The tree: published RFC 6962 vectors, an independent implementation, and proofs that show only what is true."""

from collections.abc import Callable
from hashlib import sha256

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.merkle import (
    EMPTY_ROOT,
    TILE_BITS,
    Frontier,
    ProofError,
    Tree,
    check_consistency,
    check_inclusion,
    leaf_hash,
    node_hash,
    root_of,
)

# The reference data of certificate-transparency (merkletree/merkle_tree_test.cc), which every CT library repeats.
CT_ENTRIES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
B = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
C = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
D = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
E = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
F = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
CT_INCLUSION = {
    (0, 1): [],
    (0, 8): [A, B, C],
    (5, 8): [D, E, CT_ROOTS[4]],
    (2, 3): [CT_ROOTS[2]],
    (1, 5): [CT_ROOTS[1], B, D],
}
CT_CONSISTENCY = {(1, 1): [], (1, 8): [A, B, C], (6, 8): [F, E, CT_ROOTS[4]], (2, 5): [B, D]}


def tree(leaves: list[bytes]) -> Tree:
    """A tree whose upper tile levels are computed from its leaves, as the ledger stores them."""

    def fetch(level: int, start: int, stop: int) -> list[bytes]:
        span = 1 << (level * TILE_BITS)
        return [root_of(leaves[index * span : (index + 1) * span]) for index in range(start, stop)]

    return Tree(len(leaves), fetch)


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(naive_root(leaves[:split]), naive_root(leaves[split:]))


LEAVES = [leaf_hash(b"%d" % index) for index in range(700)]


@pytest.mark.parametrize("size", range(9))
def test_roots_equal_the_published_vectors(size: int) -> None:
    leaves = [leaf_hash(entry) for entry in CT_ENTRIES[:size]]
    assert root_of(leaves).hex() == tree(leaves).root().hex() == CT_ROOTS[size]


@pytest.mark.parametrize(("index", "size"), CT_INCLUSION)
def test_inclusion_proofs_equal_the_published_vectors(index: int, size: int) -> None:
    leaves = [leaf_hash(entry) for entry in CT_ENTRIES]
    proof = tree(leaves[:size]).inclusion_proof(index)
    assert [value.hex() for value in proof] == CT_INCLUSION[index, size]
    check_inclusion(leaves[index], index, size, proof, bytes.fromhex(CT_ROOTS[size]))


@pytest.mark.parametrize(("old", "size"), CT_CONSISTENCY)
def test_consistency_proofs_equal_the_published_vectors(old: int, size: int) -> None:
    leaves = [leaf_hash(entry) for entry in CT_ENTRIES[:size]]
    proof = tree(leaves).consistency_proof(old)
    assert [value.hex() for value in proof] == CT_CONSISTENCY[old, size]
    check_consistency(old, bytes.fromhex(CT_ROOTS[old]), size, bytes.fromhex(CT_ROOTS[size]), proof)


@given(st.lists(st.binary(max_size=40), max_size=70))
def test_roots_equal_the_definition(entries: list[bytes]) -> None:
    leaves = [leaf_hash(entry) for entry in entries]
    assert root_of(leaves) == tree(leaves).root() == naive_root(leaves)


@given(st.data(), st.integers(1, 80))
def test_proofs_equal_those_of_pymerkle(data: st.DataObject, size: int) -> None:
    theirs = pymerkle.InmemoryTree(algorithm="sha256")
    entries = [b"%d" % index for index in range(size)]
    for entry in entries:
        theirs.append_entry(entry)
    ours = tree(LEAVES[:size])
    assert theirs.get_root(size) == ours.root()
    index = data.draw(st.integers(0, size - 1))
    assert theirs.prove_inclusion(index + 1, size).path[1:] == ours.inclusion_proof(index)
    old = data.draw(st.integers(1, size))
    check_consistency(old, theirs.get_root(old), size, theirs.get_root(size), ours.consistency_proof(old))


@given(st.data(), st.integers(1, 700))
def test_every_proof_is_accepted(data: st.DataObject, size: int) -> None:
    ours, root = tree(LEAVES[:size]), root_of(LEAVES[:size])
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    check_inclusion(LEAVES[index], index, size, ours.inclusion_proof(index), root)
    check_consistency(old, root_of(LEAVES[:old]), size, root, ours.consistency_proof(old))


@given(st.data(), st.integers(2, 300))
def test_no_altered_inclusion_proof_is_accepted(data: st.DataObject, size: int) -> None:
    ours, root = tree(LEAVES[:size]), root_of(LEAVES[:size])
    index = data.draw(st.integers(0, size - 1))
    proof = ours.inclusion_proof(index)
    for altered in _alterations(data, proof):
        with pytest.raises(ProofError):
            check_inclusion(LEAVES[index], index, size, altered, root)
    other = data.draw(st.integers(0, size - 1).filter(lambda other: other != index))
    with pytest.raises(ProofError):
        check_inclusion(LEAVES[other], index, size, proof, root)
    with pytest.raises(ProofError):
        check_inclusion(LEAVES[index], other, size, proof, root)


@given(st.data(), st.integers(2, 300))
def test_no_altered_consistency_proof_is_accepted(data: st.DataObject, size: int) -> None:
    old = data.draw(st.integers(1, size - 1))
    roots = root_of(LEAVES[:old]), root_of(LEAVES[:size])
    proof = tree(LEAVES[:size]).consistency_proof(old)
    for altered in _alterations(data, proof):
        with pytest.raises(ProofError):
            check_consistency(old, roots[0], size, roots[1], altered)
    with pytest.raises(ProofError, match=r"old head|tree head"):
        check_consistency(old, sha256(b"another history").digest(), size, roots[1], proof)


def _alterations(data: st.DataObject, proof: list[bytes]) -> list[list[bytes]]:
    """The proof with a bit flipped, a hash too many, a hash too few, a hash cut short."""
    altered = [[*proof, proof[0] if proof else LEAVES[0]]]
    if proof:
        place, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
        flipped = (int.from_bytes(proof[place], "big") ^ (1 << bit)).to_bytes(32, "big")
        altered += [[*proof[:place], flipped, *proof[place + 1 :]], proof[:-1], [*proof[:-1], proof[-1][:31]]]
    return altered


@pytest.mark.parametrize(
    "check",
    [
        lambda: check_inclusion(LEAVES[0], -1, 4, [], LEAVES[0]),
        lambda: check_inclusion(LEAVES[0], 4, 4, [], LEAVES[0]),
        lambda: check_inclusion(LEAVES[0], 0, 0, [], EMPTY_ROOT),
        lambda: check_consistency(0, EMPTY_ROOT, 4, LEAVES[0], []),
        lambda: check_consistency(5, LEAVES[0], 4, LEAVES[0], []),
        lambda: check_consistency(4, LEAVES[0], 4, LEAVES[1], []),
        lambda: check_consistency(3, LEAVES[0], 4, LEAVES[1], []),
    ],
)
def test_impossible_claims_are_refused(check: Callable[[], None]) -> None:
    with pytest.raises(ProofError):
        check()


def test_an_inner_node_does_not_pass_for_an_entry() -> None:
    # Second preimages: without the 0x00 and 0x01 prefixes, two leaves could be presented as one.
    root = root_of(LEAVES[:2])
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != root
    with pytest.raises(ProofError):
        check_inclusion(leaf_hash(LEAVES[0] + LEAVES[1]), 0, 1, [], root)


def test_a_tree_refuses_questions_about_leaves_it_has_not() -> None:
    with pytest.raises(ValueError, match="below 3"):
        tree(LEAVES[:3]).inclusion_proof(3)
    with pytest.raises(ValueError, match="1 to 3"):
        tree(LEAVES[:3]).consistency_proof(0)


@given(st.integers(0, 600), st.integers(0, 100))
def test_a_copied_frontier_grows_on_its_own(size: int, more: int) -> None:
    frontier = Frontier()
    for leaf in LEAVES[:size]:
        frontier.push(leaf)
    twin = frontier.copy()
    for leaf in LEAVES[size : size + more]:
        twin.push(leaf)
    assert frontier.root() == root_of(LEAVES[:size])
    assert twin.root() == root_of(LEAVES[: size + more])
