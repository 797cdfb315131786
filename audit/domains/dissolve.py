"""Helpers and constants that one version alone has, put where they are used: extracting code changes no meaning."""

import ast
import copy
from collections import Counter

from audit.domains.canon import FUNCTIONS, Function, arguments_of
from audit.domains.definitions import CALLED_BY_LIBRARIES, Trees, methods, top_level, words
from audit.domains.words import called


def inline_constants(mine: Trees, other: Trees) -> None:
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


def dissolve_helpers(mine: Trees, other: Trees) -> None:
    """Put the body of a helper that the other version does not have where it is called."""
    foreign = {definition.name for _, definition in top_level(other)}
    foreign |= {name for _, item in top_level(other) if isinstance(item, ast.ClassDef) for name in methods(item)}
    owners: list[tuple[ast.Module | ast.ClassDef, Function]] = []
    for tree in mine.values():
        classes: list[ast.Module | ast.ClassDef] = [tree]
        classes += [item for item in tree.body if isinstance(item, ast.ClassDef)]
        owners += [(owner, item) for owner in classes for item in owner.body if isinstance(item, FUNCTIONS)]
    for owner, function in owners:
        if function.name in foreign or function.decorator_list or CALLED_BY_LIBRARIES.fullmatch(function.name):
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
