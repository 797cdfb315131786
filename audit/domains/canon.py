"""A canonical form of Python code: what may differ between two texts of the same program is taken away."""

import ast
import operator
from collections import Counter
from collections.abc import Callable, Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_SIMPLE = (ast.Assign, ast.AugAssign, ast.Return, ast.Expr)
_FOLD: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def canonical(tree: ast.Module) -> ast.Module:
    """`tree`, changed in place: no docstrings, annotations, dead code or single-use names; constants folded.

    Line numbers stay those of the source.
    """
    _Fold().visit(tree)
    tree.body = _block(tree.body, None)
    return tree


def blocks_of(node: ast.AST) -> Iterator[tuple[str, list[ast.stmt]]]:
    """(field, statements) of every block that hangs directly below `node`."""
    for field in ("body", "orelse", "finalbody"):
        block = getattr(node, field, None)
        if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
            yield field, block


class _Fold(ast.NodeTransformer):
    """Folds arithmetic on number literals, drops annotations, orders keyword arguments."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        match node.left, node.right:
            case ast.Constant(value=int() | float() as left), ast.Constant(value=int() | float() as right):
                folded = _folded(node.op, left, right)
                if folded is not None:
                    return ast.copy_location(ast.Constant(folded), node)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return ast.copy_location(ast.Constant(-value), node)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        # What a parameter is said to be does not change the program, and tells whose fields are read through it.
        node.type_comment = ast.unparse(node.annotation) if node.annotation is not None else None
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if all(keyword.arg for keyword in node.keywords):
            node.keywords.sort(key=lambda keyword: keyword.arg or "")
        return node


def _folded(op: ast.operator, left: float, right: float) -> float | None:
    if isinstance(left, bool) or isinstance(right, bool):
        return None
    if isinstance(op, ast.Pow):
        # A power may be astronomically large, and a literal like 10**9 is not: fold small ones only.
        return left**right if abs(left) <= 1024 and 0 <= right <= 20 else None
    fold = _FOLD.get(type(op))
    if fold is None or (right == 0 and isinstance(op, ast.Div | ast.FloorDiv)):
        return None
    try:
        return fold(left, right)
    except OverflowError:
        return None


def _block(body: list[ast.stmt], owner: ast.AST | None) -> list[ast.stmt]:
    """The statements that are left of one block, the blocks below them included."""
    flat = [piece for statement in body for piece in _statement(statement, owner)]
    return _cut_behind_end(flat)


def _statement(node: ast.stmt, owner: ast.AST | None) -> list[ast.stmt]:
    match node:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return []
        case ast.If(test=ast.Constant(value=test)):
            taken = node.body if test else node.orelse
            return _block(taken, owner)
        case ast.While(test=ast.Constant(value=value)) if not value:
            return []
        case ast.AnnAssign(value=None) if not isinstance(owner, ast.ClassDef):
            return []
        case ast.AnnAssign(value=ast.expr() as value) if not isinstance(owner, ast.ClassDef):
            return [ast.copy_location(ast.Assign([node.target], value), node)]
        case ast.AnnAssign():
            node.annotation = ast.copy_location(ast.Name("_", ast.Load()), node)
            return [node]
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)) if _are_constants(names, values):
            return [
                ast.copy_location(ast.Assign([name], value), node) for name, value in zip(names, values, strict=True)
            ]
    inner = node if isinstance(node, DEFINITIONS) else owner
    for field, block in list(blocks_of(node)):
        kept = _block(block, inner)
        setattr(node, field, kept or ([ast.copy_location(ast.Pass(), block[0])] if field == "body" else []))
    if isinstance(node, ast.Try):
        for handler in node.handlers:
            handler.body = _block(handler.body, owner) or [ast.copy_location(ast.Pass(), handler)]
    if isinstance(node, FUNCTIONS) and owner_is_outermost(owner):
        _simplify_locals(node)
    return _without_else_behind_end(node)


def owner_is_outermost(owner: ast.AST | None) -> bool:
    """Whether a function with this owner is no closure: its locals are seen nowhere else."""
    return owner is None or isinstance(owner, ast.ClassDef)


def _are_constants(names: list[ast.expr], values: list[ast.expr]) -> bool:
    return len(names) == len(values) and all(isinstance(value, ast.Constant) for value in values)


def _without_else_behind_end(node: ast.stmt) -> list[ast.stmt]:
    """`if c: return a` / `else: b` is `if c: return a` followed by `b`."""
    if isinstance(node, ast.If) and node.orelse and isinstance(node.body[-1], _ENDS):
        rest, node.orelse = node.orelse, []
        return [node, *rest]
    return [node]


def _cut_behind_end(body: list[ast.stmt]) -> list[ast.stmt]:
    for index, statement in enumerate(body):
        if isinstance(statement, _ENDS):
            return body[: index + 1]
    return body


def _simplify_locals(function: Function) -> None:
    """Drop locals that are computed without effect and never read; put single-use ones where they are used."""
    loads: Counter[str] = Counter()
    stores: Counter[str] = Counter()
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            (loads if isinstance(node.ctx, ast.Load) else stores)[node.id] += 1
            if isinstance(node.ctx, ast.Store):
                continue
        elif isinstance(node, ast.Global | ast.Nonlocal):
            stores.update(dict.fromkeys(node.names, 2))
    once = {name for name, count in stores.items() if count == 1}
    params = {arg.arg for arg in arguments_of(function)}
    _simplify_block(function, {name for name in once - params if loads[name] <= 1}, loads)


def _simplify_block(node: ast.AST, names: set[str], loads: Counter[str]) -> None:
    for field, block in list(blocks_of(node)):
        kept: list[ast.stmt] = []
        for statement in block:
            if not isinstance(statement, ast.ClassDef):
                _simplify_block(statement, names, loads)
            previous = kept[-1] if kept else None
            if previous is not None and _put_in(previous, statement, names, loads):
                kept.pop()
            kept.append(statement)
        alive = [statement for statement in kept if not _is_idle(statement, names, loads)]
        setattr(node, field, alive or block[:1] if field == "body" else alive)


def _single_name(node: ast.stmt) -> str | None:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
    return None


def _is_idle(node: ast.stmt, names: set[str], loads: Counter[str]) -> bool:
    name = _single_name(node)
    return (
        name in names
        and loads[name or ""] == 0
        and isinstance(node, ast.Assign)
        and not any(isinstance(part, ast.Call | ast.Await | ast.Yield | ast.NamedExpr) for part in ast.walk(node.value))
    )


def _put_in(first: ast.stmt, then: ast.stmt, names: set[str], loads: Counter[str]) -> bool:
    """Replace the only use of the name that `first` assigns, where that use is in the very next statement."""
    name = _single_name(first)
    if name is None or not isinstance(then, _SIMPLE):
        return False
    # Behind a return nobody reads a name, however often it was bound before.
    last = isinstance(then, ast.Return) and isinstance(then.value, ast.Name) and then.value.id == name
    if not last and (name not in names or loads[name] != 1):
        return False
    assert isinstance(first, ast.Assign)
    if _has_call(first.value) and not _runs_first(then, name):
        return False
    put = _Put(name, first.value)
    put.visit(then)
    return put.done


def _has_call(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call) for part in ast.walk(node))


def _runs_first(statement: ast.stmt, name: str) -> bool:
    """Whether no call in `statement` is over before `name` is read: only then may a call stand in its place."""
    done = False
    for node in ordered(statement):
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
            return not done
        if isinstance(node, ast.Call):
            done = not any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))
            if done:
                return False
    return False


class _Put(ast.NodeTransformer):
    """Puts an expression in the place of a name, not inside a function or comprehension that may run it twice."""

    def __init__(self, name: str, value: ast.expr) -> None:
        self.name, self.value, self.done = name, value, False

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id == self.name and isinstance(node.ctx, ast.Load):
            self.done = True
            return self.value
        return node

    def _leave(self, node: ast.AST) -> ast.AST:
        return node

    visit_Lambda = visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _leave


def arguments_of(function: Function) -> list[ast.arg]:
    """Every parameter, in order."""
    args = function.args
    stars = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *stars]


def locals_of(function: Function) -> list[str]:
    """Names that the function binds, its inner functions included, by first appearance; parameters first."""
    found: dict[str, None] = {arg.arg: None for arg in arguments_of(function)}
    shared: set[str] = set()
    for node in ordered(function):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                found.setdefault(name)
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                shared.update(names)
            case ast.arg(arg=name):
                found.setdefault(name)
            case ast.FunctionDef(name=name) if node is not function:
                found.setdefault(name)
    return [name for name in found if name not in shared]


def ordered(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below and with `node` in source order, depth first."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(reversed(list(ast.iter_child_nodes(top))))


class Prints:
    """Structural fingerprints of nodes, remembered; equal for nodes that are the same code. Valid in this process."""

    def __init__(self) -> None:
        self._known: dict[ast.AST, int] = {}

    def of(self, node: ast.AST) -> int:
        """Fingerprint of a node with everything below it; positions and load/store marks do not count."""
        known = self._known.get(node)
        if known is None:
            parts: list[object] = [type(node).__name__]
            for field in node._fields:
                if field in ("ctx", "type_comment", "kind", "type_ignores"):
                    continue
                value = getattr(node, field, None)
                if isinstance(value, list):
                    parts.append(tuple(self.of(item) if isinstance(item, ast.AST) else item for item in value))
                elif isinstance(value, ast.AST):
                    parts.append(self.of(value))
                else:
                    # True == 1 == 1.0 for hash(), and not for a program.
                    parts.append((type(value).__name__, value))
            known = self._known[node] = hash(tuple(parts))
        return known

    def forget(self, node: ast.AST) -> None:
        """After `node` was changed in place: forget it and everything below it."""
        for part in ast.walk(node):
            self._known.pop(part, None)
