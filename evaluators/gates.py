"""Legality before a run: empty, outside the surface, syntax, size, forbidden constructs, duplicates."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from evaluators.task import Contract, Legality, Specialist
from ledger.recipes import Recipe, parsed
from ledger.vocabulary import FailureLabel


@dataclass(frozen=True)
class Rejection:
    """Why a trial is refused before it costs a run."""

    label: FailureLabel
    detail: str


def check(
    contract: Contract, specialist: Specialist, parent: Recipe, child: Recipe, programs: Mapping[str, int]
) -> Rejection | None:
    """The first gate that refuses `child`, or None. `programs` maps known program digests to their trials."""
    if child.digest == parent.digest:
        return Rejection(FailureLabel.EMPTY_DIFF, "the recipe equals its parent")
    if detail := _outside_surface(contract, specialist, parent, child):
        return Rejection(FailureLabel.FORBIDDEN_EDIT, detail)
    try:
        program = child.program
    except (SyntaxError, ValueError, RecursionError) as error:
        return Rejection(FailureLabel.SYNTAX_ERROR, str(error))
    if child.size_bytes > contract.recipe.max_bytes:
        limit = contract.recipe.max_bytes
        detail = f"expected at most {limit:,} bytes of source, found {child.size_bytes:,}"
        return Rejection(FailureLabel.SIZE_OVER_LIMIT, detail)
    for path, text in child.files.items():
        if path.endswith(".py") and (detail := forbidden(contract.legality, path, text)):
            return Rejection(FailureLabel.FORBIDDEN_EDIT, detail)
    if program in programs:
        return Rejection(FailureLabel.DUPLICATE_RECIPE, f"the same program as trial {programs[program]}")
    return None


def _outside_surface(contract: Contract, specialist: Specialist, parent: Recipe, child: Recipe) -> str | None:
    paths = parent.files.keys() | child.files.keys()
    for path in sorted(paths):
        if path not in contract.recipe.files:
            return f"{path} is not a recipe file"
        if path not in child.files:
            return f"{path} is missing"
        if parent.files.get(path) != child.files[path] and path not in specialist.files:
            return f"{path} is outside the surface of specialist {specialist.name} ({', '.join(specialist.files)})"
    return None


@lru_cache(maxsize=64)
def forbidden(legality: Legality, path: str, text: str) -> str | None:
    """The first forbidden construct in a Python file, as `path:line: what`.

    A check of the text, not a sandbox: what it misses is still measured outside the recipe's process.
    Answers are kept: from one version to the next most files stay as they are.
    """
    for line, name, kind in _constructs(parsed(path, text)):
        banned = legality.forbidden_imports if kind == "import" else legality.forbidden_calls
        # `import a.b` is covered by a ban on `a`.
        if any(name == entry or name.startswith(f"{entry}.") for entry in banned):
            return f"{path}:{line}: {kind} of {name} is forbidden by the task"
    return None


def _constructs(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """(line, dotted name, 'import' or 'use') of everything the legality table can name."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, alias.name, "import"
            case ast.ImportFrom(module=module, names=names):
                yield node.lineno, module or ".", "import"
                for alias in names:
                    yield node.lineno, f"{module}.{alias.name}", "import"
            case ast.Name(id=name):
                yield node.lineno, name, "use"
            case ast.Attribute():
                # `network.eval()` is not the builtin; `builtins.eval` is.
                yield node.lineno, ast.unparse(node).removeprefix("builtins.").removeprefix("__builtins__."), "use"
