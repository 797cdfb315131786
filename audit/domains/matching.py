"""Two versions brought to common names: renamed, moved, extracted and dead definitions no longer tell them apart."""

import ast
import copy
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from audit.domains.canon import DEFINITIONS, FUNCTIONS, Definition, Function, Prints, arguments_of, locals_of

Trees = dict[str, ast.Module]

_CALLED_BY_LIBRARIES = re.compile(
    r"__\w+__|forward|backward|step|setup_context|state_dict|load_state_dict|train|eval|main|extra_repr"
)
SIMILAR = 0.6
"""Share of common statements from which two definitions count as one that was renamed and edited."""


def align(old: Trees, new: Trees) -> None:
    """Change both versions in place until only meaning tells them apart. Idempotent."""
    drop_dead(old, new)
    _rename_definitions(old, new)
    _rename_members(old, new)
    for mine, other in ((old, new), (new, old)):
        _inline_constants(mine, other)
        _dissolve_helpers(mine, other)
    drop_dead(old, new)


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
        if item.name not in other and not item.decorator_list and not _CALLED_BY_LIBRARIES.fullmatch(item.name)
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


# --- constants and helpers that one version alone has -------------------------------------------------------


def _inline_constants(mine: Trees, other: Trees) -> None:
    """Put module constants that the other version does not know where they are read."""
    foreign = {name for tree in other.values() for name in _constants(tree)}
    for tree in mine.values():
        own = {name: node for name, node in _constants(tree).items() if name not in foreign}
        if not own:
            continue
        stores = Counter(n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        once = {name: node for name, node in own.items() if stores[name] == 1}
        _PutConstants({name: node.value for name, node in once.items()}).visit(tree)
        tree.body = [statement for statement in tree.body if statement not in once.values()]


def _constants(tree: ast.Module) -> dict[str, ast.Assign]:
    """Names that are assigned a number at module level."""
    return {
        target.id: statement
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, int | float)
    }


class _PutConstants(ast.NodeTransformer):
    def __init__(self, values: dict[str, ast.expr]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.AST:
        value = self.values.get(node.id)
        if isinstance(value, ast.Constant) and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Constant(value.value), node)
        return node


def _dissolve_helpers(mine: Trees, other: Trees) -> None:
    """Put the body of a helper that the other version does not have where it is called."""
    foreign = {definition.name for _, definition in top_level(other)}
    foreign |= {name for _, item in top_level(other) if isinstance(item, ast.ClassDef) for name in methods(item)}
    owners: list[tuple[ast.Module | ast.ClassDef, Function]] = []
    for tree in mine.values():
        classes: list[ast.Module | ast.ClassDef] = [tree]
        classes += [item for item in tree.body if isinstance(item, ast.ClassDef)]
        owners += [(owner, item) for owner in classes for item in owner.body if isinstance(item, FUNCTIONS)]
    for owner, function in owners:
        if function.name in foreign or function.decorator_list or _CALLED_BY_LIBRARIES.fullmatch(function.name):
            continue
        if _dissolve(function, owner, mine):
            owner.body.remove(function)


def _dissolve(function: Function, owner: ast.Module | ast.ClassDef, trees: Trees) -> bool:
    """Whether every mention of `function` is a call that its body could replace."""
    args = function.args
    if args.vararg or args.kwarg or args.defaults or args.kw_defaults or isinstance(function, ast.AsyncFunctionDef):
        return False
    name = function.name
    mentions = words(trees.values())[name] - words([function])[name]
    match function.body:
        case [ast.Return(value=ast.expr() as value)]:
            put: _PutCall | _PutBody = _PutCall(function, value, isinstance(owner, ast.ClassDef))
        case [*_, ast.Return(value=ast.expr())] | [*_, ast.Expr() | ast.Assign() | ast.AugAssign()]:
            if mentions != 1 or _returns(function) > 1:
                return False
            put = _PutBody(function, isinstance(owner, ast.ClassDef))
        case _:
            return False
    if not mentions or words([function])[name]:
        return False
    probe = _Calls(name, len(arguments_of(function)) - isinstance(owner, ast.ClassDef))
    for tree in trees.values():
        probe.visit(tree)
    if probe.plain != mentions:
        return False
    for tree in trees.values():
        put.visit(tree)
    return put.done


def _returns(function: Function) -> int:
    return sum(isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) for node in ast.walk(function))


def called(call: ast.Call) -> str:
    """Last part of the name that is called; empty for a call of an expression."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


class _Calls(ast.NodeVisitor):
    """Counts calls of one name with exactly so many plain positional arguments."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count, self.plain = name, count, 0

    def visit_Call(self, node: ast.Call) -> None:
        plain = len(node.args) == self.count and not any(isinstance(arg, ast.Starred) for arg in node.args)
        if called(node) == self.name and plain and not node.keywords:
            self.plain += 1
        self.generic_visit(node)


class _PutCall(ast.NodeTransformer):
    """Replaces calls of a one-expression function by the expression."""

    def __init__(self, function: Function, value: ast.expr, method: bool) -> None:
        self.function, self.value, self.method, self.done = function, ast.unparse(value), method, False

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if called(node) != self.function.name:
            return node
        self.done = True
        names = bindings(self.function, node, self.method)
        value = ast.parse(self.value, mode="eval").body
        put: ast.AST = _PutNames(names).visit(value)
        for part in ast.walk(put):
            ast.copy_location(part, node)
        return put


class _PutBody(ast.NodeTransformer):
    """Replaces the statement around the one call of a function by the function's body."""

    def __init__(self, function: Function, method: bool) -> None:
        self.function, self.method, self.done = function, method, False

    def visit(self, node: ast.AST) -> ast.AST:
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                setattr(node, field, [piece for item in block for piece in self._spliced(item)])
        if not self.done and node is not self.function:
            self.generic_visit(node)
        return node

    def _spliced(self, statement: ast.AST) -> list[ast.AST]:
        match statement:
            case (
                ast.Assign(value=ast.Call() as call)
                | ast.Return(value=ast.Call() as call)
                | ast.Expr(value=ast.Call() as call)
            ):
                if called(call) == self.function.name:
                    return self._body(statement, call)
        return [statement]

    def _body(self, statement: ast.Assign | ast.Return | ast.Expr, call: ast.Call) -> list[ast.AST]:
        names = bindings(self.function, call, self.method)
        body = [_PutNames(names).visit(item) for item in self.function.body]
        last = body[-1]
        if isinstance(last, ast.Return):
            if isinstance(statement, ast.Expr):
                body.pop()
            else:
                statement.value = last.value if last.value is not None else ast.Constant(None)
                body[-1] = statement
        elif not isinstance(statement, ast.Expr):
            return [statement]
        self.done = True
        return body


def bindings(function: Function, call: ast.Call, method: bool) -> dict[str, ast.expr]:
    """Parameter -> argument of a call with positional arguments."""
    values = [call.func.value, *call.args] if method and isinstance(call.func, ast.Attribute) else call.args
    return {arg.arg: value for arg, value in zip(arguments_of(function), values, strict=False)}


class _PutNames(ast.NodeTransformer):
    def __init__(self, names: dict[str, ast.expr]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        value = self.names.get(node.id)
        if value is None:
            return node
        if isinstance(node.ctx, ast.Store) and isinstance(value, ast.Name):
            return ast.copy_location(ast.Name(value.id, node.ctx), node)
        # A copy: no node may hang at two places of a tree.
        return copy.deepcopy(value) if isinstance(node.ctx, ast.Load) else node


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
