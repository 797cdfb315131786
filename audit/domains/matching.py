"""Two versions brought to common names: renamed, moved, extracted and dead definitions no longer tell them apart."""

import ast
import re
from collections import Counter

from audit.domains.canon import DEFINITIONS, FUNCTIONS, Definition, Function, Prints, locals_of
from audit.domains.definitions import CALLED_BY_LIBRARIES, Trees, methods, top_level, words
from audit.domains.dissolve import dissolve_helpers, inline_constants

SIMILAR = 0.6
"""Share of common statements from which two definitions count as one that was renamed and edited."""


def align(old: Trees, new: Trees) -> None:
    """Change both versions in place until only meaning tells them apart. Idempotent."""
    drop_dead(old, new)
    _rename_definitions(old, new)
    _rename_members(old, new)
    for mine, other in ((old, new), (new, old)):
        inline_constants(mine, other)
        dissolve_helpers(mine, other)
    drop_dead(old, new)


# --- dead definitions ---------------------------------------------------------------------------------------


def drop_dead(old: Trees, new: Trees) -> None:
    """Drop definitions that one version alone has and nothing in it refers to.

    What both have stays: somebody outside the recipe may call it.
    """
    names = [{definition.name for _, definition in top_level(trees)} for trees in (old, new)]
    for trees, other in ((old, names[1]), (new, names[0])):
        while _drop_once(trees, other):
            pass


def _drop_once(trees: Trees, other: set[str]) -> bool:
    own = [
        (path, item)
        for path, item in top_level(trees)
        if item.name not in other and not item.decorator_list and not CALLED_BY_LIBRARIES.fullmatch(item.name)
    ]
    used = words(trees.values()) if own else Counter[str]()
    dead = [(path, item) for path, item in own if used[item.name] <= words([item])[item.name]]
    for path, item in dead:
        trees[path].body.remove(item)
    return bool(dead)


# --- renamed definitions ------------------------------------------------------------------------------------


def _rename_definitions(old: Trees, new: Trees) -> None:
    before = {definition.name: definition for _, definition in top_level(old)}
    after = {definition.name: definition for _, definition in top_level(new)}
    _rename_all(new, _pairs(before, after))
    for name, definition in before.items():
        twin = {definition.name: definition for _, definition in top_level(new)}.get(name)
        if isinstance(definition, ast.ClassDef) and isinstance(twin, ast.ClassDef):
            _rename_all(new, _pairs(methods(definition), methods(twin)))


def _pairs(
    before: dict[str, Definition] | dict[str, Function], after: dict[str, Definition] | dict[str, Function]
) -> dict[str, str]:
    """New name -> old name of definitions that are one and the same, or nearly."""
    gone = {name: _shape(node) for name, node in before.items() if name not in after}
    come = {name: _shape(node) for name, node in after.items() if name not in before}
    scored = sorted(
        ((_overlap(gone[a], come[b]), a, b) for a in gone for b in come if type(before[a]) is type(after[b])),
        reverse=True,
    )
    found: dict[str, str] = {}
    for score, a, b in scored:
        if score >= SIMILAR and a not in found.values() and b not in found:
            found[b] = a
    return found


def _shape(node: Definition) -> Counter[int]:
    """Fingerprints of the statements with local names blinded."""
    blind = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(blind, DEFINITIONS)
    for function in [blind] if isinstance(blind, FUNCTIONS) else methods(blind).values():
        rename_names(function, {name: f"v{index}" for index, name in enumerate(locals_of(function))})
    blind.name = "_"
    prints = Prints()
    return Counter(
        prints.of(part) for part in ast.walk(blind) if isinstance(part, ast.expr) and not isinstance(part, ast.Name)
    )


def _overlap(a: Counter[int], b: Counter[int]) -> float:
    total = max(sum(a.values()), sum(b.values()))
    return sum((a & b).values()) / total if total else 0.0


def _rename_all(trees: Trees, names: dict[str, str]) -> None:
    """Rename identifiers wherever they stand: definitions, names, attributes, imports, keywords."""
    if not names:
        return
    for tree in trees.values():
        for node in ast.walk(tree):
            match node:
                case ast.Name(id=name) if name in names:
                    node.id = names[name]
                case ast.Attribute(attr=name) if name in names:
                    node.attr = names[name]
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) if (
                    name in names
                ):
                    node.name = names[name]
                case ast.alias(name=name) if name in names:
                    node.name = names[name]
                case ast.keyword(arg=str(name)) if name in names:
                    node.arg = names[name]


# --- renamed attributes and fields --------------------------------------------------------------------------


def _rename_members(old: Trees, new: Trees) -> None:
    """One attribute gone and one come, stored and read equally often and never spelt in a string: a new name."""
    before, after = _stored_members(old), _stored_members(new)
    gone = [name for name in before if name not in after]
    come = [name for name in after if name not in before]
    if not gone or len(gone) != len(come):
        return
    reads = words(old.values()), words(new.values())
    strings = _strings(old) | _strings(new)
    if all(
        reads[0][a] == reads[1][b] and a not in strings and b not in strings for a, b in zip(gone, come, strict=True)
    ):
        _rename_all(new, dict(zip(come, gone, strict=True)))


def _stored_members(trees: Trees) -> dict[str, None]:
    found: dict[str, None] = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(attr=name, ctx=ast.Store()):
                    found.setdefault(name)
                case ast.ClassDef(body=body):
                    for item in body:
                        if isinstance(item, ast.Assign | ast.AnnAssign):
                            target = item.targets[0] if isinstance(item, ast.Assign) else item.target
                            if isinstance(target, ast.Name):
                                found.setdefault(target.id)
    return found


def _strings(trees: Trees) -> set[str]:
    """Every part of every string that could be a name: `blocks.attn_scale` spells two."""
    return {
        part
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for part in re.findall(r"\w+", node.value)
    }


# --- local names --------------------------------------------------------------------------------------------


def rename_names(function: Function, names: dict[str, str]) -> None:
    """Rename locals and parameters of one function in place."""
    for node in ast.walk(function):
        match node:
            case ast.Name(id=name) if name in names:
                node.id = names[name]
            case ast.arg(arg=name) if name in names:
                node.arg = names[name]
            case ast.FunctionDef(name=name) if node is not function and name in names:
                node.name = names[name]
