"""The definitions of one version: which there are, and how often each identifier is read."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from audit.domains.canon import DEFINITIONS, FUNCTIONS, Definition, Function

Trees = dict[str, ast.Module]

CALLED_BY_LIBRARIES = re.compile(
    r"__\w+__|forward|backward|step|setup_context|state_dict|load_state_dict|train|eval|main|extra_repr"
)


def top_level(trees: Trees) -> Iterator[tuple[str, Definition]]:
    """(file, definition) of every function and class that stands at module level."""
    for path, tree in trees.items():
        for statement in tree.body:
            if isinstance(statement, DEFINITIONS):
                yield path, statement


def methods(node: ast.ClassDef) -> dict[str, Function]:
    """Methods by name."""
    return {item.name: item for item in node.body if isinstance(item, FUNCTIONS)}


def words(nodes: Iterable[ast.AST]) -> Counter[str]:
    """How often each identifier is read below `nodes`: names, attributes, imports, keywords and strings."""
    found: Counter[str] = Counter()
    for root in nodes:
        for node in ast.walk(root):
            match node:
                case ast.Name(id=word, ctx=ast.Load()) | ast.Attribute(attr=word) | ast.keyword(arg=str(word)):
                    found[word] += 1
                case ast.Constant(value=str(word)) if word.isidentifier():
                    found[word] += 1
                case ast.alias(name=word):
                    found[word.rpartition(".")[2]] += 1
    return found
