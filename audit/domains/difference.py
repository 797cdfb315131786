"""The edits between two aligned versions: the smallest pieces of syntax that differ, definition by definition."""

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from audit.domains.canon import DEFINITIONS, FUNCTIONS, Definition, Function, Prints, blocks_of, locals_of
from audit.domains.definitions import Trees
from audit.domains.matching import rename_names

_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try)
_ALIKE = 0.35
"""Share of common parts from which two statements at one place count as one that was changed."""


@dataclass(frozen=True)
class Edit:
    """One difference: the syntax that was there and the syntax that is there; one of them may be missing."""

    file: str
    symbol: str
    old: ast.AST | None
    new: ast.AST | None


def edits(old: Trees, new: Trees) -> list[Edit]:
    """All differences between two aligned versions, in the order of the new one; empty for the same program."""
    return _Difference().between(old, new)


class _Difference:
    def __init__(self) -> None:
        self.prints = Prints()
        self.found: list[Edit] = []
        self.file = ""

    def between(self, old: Trees, new: Trees) -> list[Edit]:
        before, after = _definitions(old), _definitions(new)
        for key, (file, node) in after.items():
            self.file = file
            if key in before:
                self._definition(before[key][1], node)
            else:
                self._add(_qualified(key), None, node)
        for key, (file, node) in before.items():
            if key not in after:
                self.file = file
                self._add(_qualified(key), node, None)
        for path in sorted(old.keys() | new.keys()):
            self.file = path
            a, b = old.get(path), new.get(path)
            self._imports(a, b, old.keys() | new.keys())
            self._block("", _plain(a.body) if a else [], _plain(b.body) if b else [])
        return [edit for edit in self.found if not self._is_move(edit)]

    def _add(self, symbol: str, old: ast.AST | None, new: ast.AST | None) -> None:
        self.found.append(Edit(self.file, symbol, old, new))

    def _same(self, a: ast.AST, b: ast.AST) -> bool:
        return self.prints.of(a) == self.prints.of(b)

    # --- definitions

    def _definition(self, a: Definition, b: Definition, prefix: str = "") -> None:
        if type(a) is not type(b):
            self._add(prefix + b.name, a, b)
        elif not self._same(a, b):
            if isinstance(a, ast.ClassDef) and isinstance(b, ast.ClassDef):
                self._class(a, b, prefix + b.name)
            elif isinstance(a, FUNCTIONS) and isinstance(b, FUNCTIONS):
                self._function(a, b, prefix + b.name)

    def _class(self, a: ast.ClassDef, b: ast.ClassDef, symbol: str) -> None:
        for field in ("bases", "keywords", "decorator_list"):
            self._lists(symbol, getattr(a, field), getattr(b, field))
        before, after = _fields(a), _fields(b)
        for name in dict.fromkeys([*after, *before]):
            old, new = before.get(name), after.get(name)
            if old is not None and new is not None:
                self._statement(f"{symbol}.{name}", old, new)
            else:
                self._add(f"{symbol}.{name}", old, new)
        theirs = {item.name: item for item in a.body if isinstance(item, DEFINITIONS)}
        for item in b.body:
            if isinstance(item, DEFINITIONS):
                if item.name in theirs:
                    self._definition(theirs.pop(item.name), item, symbol + ".")
                else:
                    self._add(f"{symbol}.{item.name}", None, item)
        for name, item in theirs.items():
            self._add(f"{symbol}.{name}", item, None)
        self._block(symbol, _loose(a), _loose(b))

    def _function(self, a: Function, b: Function, symbol: str) -> None:
        self._rename_locals(a, b)
        if self._same(a, b):
            return
        self._lists(symbol, a.decorator_list, b.decorator_list)
        self._parameters(symbol, a.args, b.args)
        self._block(symbol, a.body, b.body)

    def _rename_locals(self, a: Function, b: Function) -> None:
        """Give locals of `b` their names in `a` where that makes the functions more alike."""
        mine, theirs = locals_of(a), locals_of(b)
        gone = [name for name in mine if name not in theirs]
        come = [name for name in theirs if name not in mine]
        if not gone or len(gone) != len(come):
            return
        names = dict(zip(come, gone, strict=True))
        before = self._distance(a, b)
        rename_names(b, names)
        self.prints.forget(b)
        if self._distance(a, b) >= before:
            rename_names(b, {value: key for key, value in names.items()})
            self.prints.forget(b)

    def _distance(self, a: ast.AST, b: ast.AST) -> int:
        x, y = (Counter(self.prints.of(n) for n in ast.walk(f) if isinstance(n, ast.stmt)) for f in (a, b))
        return sum(((x - y) + (y - x)).values())

    def _parameters(self, symbol: str, a: ast.arguments, b: ast.arguments) -> None:
        before, after = dict(_defaults(a)), dict(_defaults(b))
        for name in dict.fromkeys([*after, *before]):
            old, new = before.get(name), after.get(name)
            if name in before and name in after:
                if old is not None and new is not None:
                    self._expression(f"{symbol}({name})", old, new)
                elif old is not new:
                    self._add(f"{symbol}({name})", old, new)
            else:
                args = {arg.arg: arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs)}
                others = {arg.arg: arg for arg in (*b.posonlyargs, *b.args, *b.kwonlyargs)}
                self._add(f"{symbol}({name})", args.get(name), others.get(name))

    # --- statements

    def _block(self, symbol: str, a: Sequence[ast.stmt], b: Sequence[ast.stmt]) -> None:
        x, y = [self.prints.of(item) for item in a], [self.prints.of(item) for item in b]
        if x == y:
            return
        for tag, i1, i2, j1, j2 in SequenceMatcher(None, x, y, autojunk=False).get_opcodes():
            if tag != "equal":
                self._aligned(symbol, a[i1:i2], b[j1:j2])

    def _aligned(self, symbol: str, a: Sequence[ast.stmt], b: Sequence[ast.stmt]) -> None:
        """Pair statements that look alike, in order; the rest has come or gone."""
        start = 0
        for old in a:
            scored = [(self._likeness(old, new), -index) for index, new in enumerate(b[start:], start)]
            score, index = max(scored, default=(0.0, 0))
            if score < _ALIKE:
                self._add(symbol, old, None)
                continue
            for new in b[start:-index]:
                self._add(symbol, None, new)
            self._statement(symbol, old, b[-index])
            start = 1 - index
        for new in b[start:]:
            self._add(symbol, None, new)

    def _likeness(self, a: ast.stmt, b: ast.stmt) -> float:
        if type(a) is not type(b):
            return 0.0
        if isinstance(a, FUNCTIONS) and isinstance(b, FUNCTIONS):
            return 1.0 if a.name == b.name else 0.0
        x, y = (Counter(self.prints.of(part) for part in ast.walk(item) if part is not item) for item in (a, b))
        common = sum((x & y).values()) / max(sum(x.values()), sum(y.values()), 1)
        same_target = _target(a) is not None and _target(a) == _target(b)
        return min(1.0, common + (0.35 if same_target else 0.0))

    def _statement(self, symbol: str, a: ast.stmt, b: ast.stmt) -> None:
        if self._same(a, b):
            return
        if isinstance(a, DEFINITIONS) and isinstance(b, DEFINITIONS):
            self._definition(a, b, symbol + "." if symbol else "")
        elif type(a) is type(b) and isinstance(a, _BLOCKS):
            for field in a._fields:
                if field not in ("body", "orelse", "finalbody", "type_comment"):
                    self._field(symbol, getattr(a, field), getattr(b, field), a, b)
            mine, theirs = dict(blocks_of(a)), dict(blocks_of(b))
            for field in ("body", "orelse", "finalbody"):
                self._block(symbol, mine.get(field, []), theirs.get(field, []))
        else:
            self._expression(symbol, a, b)

    # --- expressions

    def _expression(self, symbol: str, a: ast.AST, b: ast.AST) -> None:
        if self._same(a, b):
            return
        if type(a) is not type(b) or not _descends(a, b):
            self._add(symbol, a, b)
            return
        if isinstance(a, ast.Call) and isinstance(b, ast.Call):
            self._expression(symbol, a.func, b.func)
            self._keywords(symbol, a.keywords, b.keywords)
            self._lists(symbol, a.args, b.args)
        elif isinstance(a, ast.Dict) and isinstance(b, ast.Dict):
            self._dicts(symbol, a, b)
        else:
            for field in a._fields:
                if field not in ("ctx", "type_comment", "kind"):
                    self._field(symbol, getattr(a, field), getattr(b, field), a, b)

    def _field(self, symbol: str, x: object, y: object, a: ast.AST, b: ast.AST) -> None:
        if isinstance(x, list) and isinstance(y, list):
            self._lists(symbol, x, y)
        elif isinstance(x, ast.AST) and isinstance(y, ast.AST):
            self._expression(symbol, x, y)
        elif isinstance(x, ast.AST) or isinstance(y, ast.AST):
            self._add(symbol, x if isinstance(x, ast.AST) else None, y if isinstance(y, ast.AST) else None)
        elif x != y or type(x) is not type(y):
            self._add(symbol, a, b)

    def _lists(self, symbol: str, a: Sequence[ast.AST], b: Sequence[ast.AST]) -> None:
        if len(a) == len(b):
            for x, y in zip(a, b, strict=True):
                self._expression(symbol, x, y)
            return
        x_hashes, y_hashes = ([self.prints.of(item) for item in items] for items in (a, b))
        for tag, i1, i2, j1, j2 in SequenceMatcher(None, x_hashes, y_hashes, autojunk=False).get_opcodes():
            if tag == "equal":
                continue
            for x, y in zip(a[i1:i2], b[j1:j2], strict=False):
                self._expression(symbol, x, y)
            paired = min(i2 - i1, j2 - j1)
            for x in a[i1 + paired : i2]:
                self._add(symbol, x, None)
            for y in b[j1 + paired : j2]:
                self._add(symbol, None, y)

    def _keywords(self, symbol: str, a: list[ast.keyword], b: list[ast.keyword]) -> None:
        before, after = {item.arg: item for item in a}, {item.arg: item for item in b}
        for name in dict.fromkeys([*after, *before]):
            old, new = before.get(name), after.get(name)
            if old is not None and new is not None:
                self._expression(symbol, old.value, new.value)
            else:
                self._add(symbol, old, new)

    def _dicts(self, symbol: str, a: ast.Dict, b: ast.Dict) -> None:
        before, after = _items(a, self.prints), _items(b, self.prints)
        for key in dict.fromkeys([*after, *before]):
            old, new = before.get(key), after.get(key)
            if old is not None and new is not None:
                self._expression(symbol, old, new)
            else:
                self._add(symbol, old, new)

    # --- imports and moves

    def _imports(self, a: ast.Module | None, b: ast.Module | None, files: Sequence[str] | set[str]) -> None:
        inside = {path.rpartition("/")[2].removesuffix(".py") for path in files}
        before, after = dict(_bound(a, inside)), dict(_bound(b, inside))
        for name in before.keys() & after.keys():
            if before[name][0] != after[name][0]:
                self._add(name, before[name][1], after[name][1])

    def _is_move(self, edit: Edit) -> bool:
        """Whether a statement only changed its place among statements that neither read nor write what it does."""
        if (edit.old is None) == (edit.new is None) or not isinstance(edit.old or edit.new, ast.stmt):
            return False
        node = edit.old or edit.new
        assert isinstance(node, ast.stmt)
        return any(
            (other.old is None) == (edit.new is None)
            and (other.old is None) != (edit.old is None)
            and other.symbol == edit.symbol
            and self._same(node, other.old or other.new or node)
            for other in self.found
            if other is not edit and isinstance(other.old or other.new, ast.stmt)
        ) and _commutes(node)


def _commutes(node: ast.stmt) -> bool:
    """Whether the statement only binds names from constants or attributes: its place among others hardly matters."""
    match node:
        case ast.Assign(targets=[ast.Name() | ast.Attribute()], value=value):
            return not isinstance(value, ast.Name) and not any(
                isinstance(part, ast.Name)
                and part.id not in ("self", "nn", "torch", "F", "math", "np")
                and not part.id.isupper()
                for part in ast.walk(value)
                if isinstance(part, ast.Name) and not _is_parameter_like(part.id)
            )
    return False


def _is_parameter_like(name: str) -> bool:
    return name in ("config", "cfg", "args", "h", "hyp", "hparams", "opt")


def _descends(a: ast.AST, b: ast.AST) -> bool:
    """Whether two expressions of one type are the same operation, so that the difference lies below."""
    match a, b:
        case ast.Call(), ast.Call():
            return _same_callee(a.func, b.func)
        case ast.BinOp(), ast.BinOp():
            return type(a.op) is type(b.op)
        case ast.UnaryOp(), ast.UnaryOp():
            return type(a.op) is type(b.op)
        case ast.Compare(), ast.Compare():
            return [type(op) for op in a.ops] == [type(op) for op in b.ops]
        case ast.BoolOp(), ast.BoolOp():
            return type(a.op) is type(b.op)
        case (ast.Attribute(attr=x), ast.Attribute(attr=y)):
            return x == y
        case (ast.Constant(), ast.Constant()) | (ast.Name(), ast.Name()) | (ast.JoinedStr(), ast.JoinedStr()):
            return False
        case ast.AugAssign(), ast.AugAssign():
            return type(a.op) is type(b.op) and ast.dump(a.target) == ast.dump(b.target)
    return True


def _same_callee(a: ast.expr, b: ast.expr) -> bool:
    """Whether both are the same function, or the same method of whatever two expressions give."""
    if (
        isinstance(a, ast.Attribute)
        and isinstance(b, ast.Attribute)
        and isinstance(a.value, ast.Call | ast.Subscript | ast.BinOp)
    ):
        return a.attr == b.attr
    return ast.dump(a) == ast.dump(b)


def _target(node: ast.stmt) -> str | None:
    match node:
        case ast.Assign(targets=[target]) | ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            return ast.dump(target)
    return None


def _definitions(trees: Trees) -> dict[tuple[str, str], tuple[str, Definition]]:
    """Top-level definitions by name; by file too where several files define one name."""
    counts = Counter(item.name for tree in trees.values() for item in tree.body if isinstance(item, DEFINITIONS))
    return {
        (path if counts[item.name] > 1 else "", item.name): (path, item)
        for path, tree in trees.items()
        for item in tree.body
        if isinstance(item, DEFINITIONS)
    }


def _qualified(key: tuple[str, str]) -> str:
    return key[1]


def _plain(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    return [item for item in body if not isinstance(item, (*DEFINITIONS, ast.Import, ast.ImportFrom))]


def _fields(node: ast.ClassDef) -> dict[str, ast.stmt]:
    """Class-level assignments by name: their order means nothing."""
    found: dict[str, ast.stmt] = {}
    for item in node.body:
        match item:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = item
    return found


def _loose(node: ast.ClassDef) -> list[ast.stmt]:
    named = set(_fields(node).values())
    return [item for item in node.body if item not in named and not isinstance(item, (*DEFINITIONS, ast.Pass))]


def _defaults(args: ast.arguments) -> Iterator[tuple[str, ast.expr | None]]:
    """(parameter, default) in order."""
    positional = [*args.posonlyargs, *args.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
    yield from zip((arg.arg for arg in positional), [*missing, *args.defaults], strict=True)
    yield from zip((arg.arg for arg in args.kwonlyargs), args.kw_defaults, strict=True)


def _items(node: ast.Dict, prints: Prints) -> dict[int, ast.expr]:
    return {
        prints.of(key) if key is not None else prints.of(value): value
        for key, value in zip(node.keys, node.values, strict=True)
    }


def _bound(tree: ast.Module | None, inside: set[str]) -> Iterator[tuple[str, tuple[str, ast.stmt]]]:
    """(bound name, (origin, statement)) of imports from outside the recipe."""
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    alias.asname or alias.name.partition(".")[0],
                    (alias.name if alias.asname else alias.name.partition(".")[0], node),
                )
        elif (
            isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").rpartition(".")[2] not in inside
        ):
            for alias in node.names:
                yield alias.asname or alias.name, (f"{node.module}.{alias.name}", node)
