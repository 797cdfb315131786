"""A recipe version as syntax with an index: parents, definitions, and where every name is read."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from audit.domains.canon import DEFINITIONS, FUNCTIONS, Function, arguments_of, canonical
from audit.domains.definitions import Trees, methods
from audit.domains.names import snake
from audit.domains.words import called


def parse(files: Mapping[str, str]) -> tuple[Trees, dict[str, str]]:
    """Canonical trees of the Python files, and path -> why not for those that do not parse."""
    trees: Trees = {}
    problems: dict[str, str] = {}
    for path, text in files.items():
        if not path.endswith(".py"):
            continue
        try:
            trees[path] = canonical(ast.parse(text, path))
        except SyntaxError as error:
            problems[path] = f"{path}: not Python: {error.msg} in line {error.lineno}"
        except (ValueError, RecursionError, MemoryError) as error:
            problems[path] = f"{path}: not Python that can be read: {error}"
    return trees, problems


@dataclass
class Program:
    """Trees of one version with what is needed to follow a value through them. Read-only once built."""

    trees: Trees
    parent: dict[ast.AST, ast.AST] = field(default_factory=dict)
    loads: dict[str, list[ast.Name]] = field(default_factory=lambda: defaultdict(list))
    """Name -> where it is read."""
    members: dict[str, list[ast.AST]] = field(default_factory=lambda: defaultdict(list))
    """Member -> where it is read: `x.member`, `x["member"]`, `getattr(x, "member")`."""
    functions: dict[str, list[Function]] = field(default_factory=lambda: defaultdict(list))
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    calls: dict[str, list[ast.Call]] = field(default_factory=lambda: defaultdict(list))
    """Last part of the called name -> calls."""
    files: dict[ast.AST, str] = field(default_factory=dict)
    """Module node -> path."""

    def __post_init__(self) -> None:
        for path, tree in self.trees.items():
            self.files[tree] = path
            stack: list[ast.AST] = [tree]
            while stack:
                node = stack.pop()
                for child in ast.iter_child_nodes(node):
                    self.parent[child] = node
                    stack.append(child)
                self._index(node)

    def _index(self, node: ast.AST) -> None:
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                self.loads[name].append(node)
            case ast.Attribute(attr=name, ctx=ast.Load()):
                self.members[snake(name)].append(node)
            case ast.Subscript(slice=ast.Constant(value=str(name)), ctx=ast.Load()):
                self.members[snake(name)].append(node)
            case ast.Call():
                self.calls[called(node)].append(node)
                if called(node) in ("getattr", "get") and node.args:
                    for argument in node.args[:2]:
                        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                            self.members[snake(argument.value)].append(node)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.functions[node.name].append(node)
            case ast.ClassDef():
                self.classes[node.name] = node

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """Parents of `node`, the nearest first."""
        while (above := self.parent.get(node)) is not None:
            yield above
            node = above

    def function_of(self, node: ast.AST) -> Function | None:
        """The innermost function that `node` stands in."""
        return next((above for above in self.ancestors(node) if isinstance(above, FUNCTIONS)), None)

    def class_of(self, node: ast.AST) -> ast.ClassDef | None:
        """The innermost class that `node` stands in."""
        return next((above for above in self.ancestors(node) if isinstance(above, ast.ClassDef)), None)

    def statement_of(self, node: ast.AST) -> ast.stmt | None:
        """The innermost statement that `node` is or stands in."""
        if isinstance(node, ast.stmt):
            return node
        return next((above for above in self.ancestors(node) if isinstance(above, ast.stmt)), None)

    def symbol_of(self, node: ast.AST) -> str:
        """Dotted name of the definitions around `node`."""
        names = [above.name for above in (node, *self.ancestors(node)) if isinstance(above, DEFINITIONS)]
        return ".".join(reversed(names))

    def reads(self, name: str, near: ast.AST) -> Iterator[ast.Name]:
        """Where the variable `name`, bound next to `near`, is read: in its function, or in the whole file."""
        scope = self.function_of(near)
        outer = self.function_of(scope) if scope is not None else None
        for load in self.loads.get(name, ()):
            above = list(self.ancestors(load))
            if (
                (scope is None and above[-1:] and self._sees(near, load, above))
                or scope in above
                or (outer in above and outer)
            ):
                yield load

    def _sees(self, near: ast.AST, load: ast.Name, above: list[ast.AST]) -> bool:
        """Whether a module-level name is meant, not a local of the same name."""
        functions = [node for node in above if isinstance(node, FUNCTIONS)]
        return not any(load.id in self.bound[function] for function in functions)

    @cached_property
    def bound(self) -> dict[ast.AST, set[str]]:
        """Function -> names that it binds."""
        found: dict[ast.AST, set[str]] = {}
        for functions in self.functions.values():
            for function in functions:
                stores = {
                    node.id
                    for node in ast.walk(function)
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
                }
                found[function] = stores | {arg.arg for arg in arguments_of(function)}
        return found

    def may_belong(self, read: ast.AST, owner: ast.ClassDef) -> bool:
        """Whether `x.member` may read a field of `owner`: not where parameter `x` is said to be of another class."""
        if not (isinstance(read, ast.Attribute) and isinstance(read.value, ast.Name)):
            return True
        function = self.function_of(read)
        said = {arg.arg: arg.type_comment or "" for arg in arguments_of(function)} if function is not None else {}
        named = {name for name in self.classes if name in re.findall(r"\w+", said.get(read.value.id, ""))}
        return not named or owner.name in named

    def callee(self, call: ast.Call) -> Function | ast.ClassDef | None:
        """The recipe's own definition that a call goes to, where its name is not ambiguous."""
        name = called(call)
        if name in self.classes and isinstance(call.func, ast.Name | ast.Attribute):
            return self.classes[name]
        found = self.functions.get(name, [])
        return found[0] if len(found) == 1 else None

    def parameter(
        self, definition: Function | ast.ClassDef, call: ast.Call, argument: ast.AST
    ) -> tuple[Function, str] | None:
        """(function, parameter) that takes an argument of a call."""
        function = self.constructor(definition) if isinstance(definition, ast.ClassDef) else definition
        if function is None:
            return None
        names = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args)]
        if names[:1] in (["self"], ["cls"]):
            names = names[1:]
        if isinstance(argument, ast.keyword):
            everything = {arg.arg for arg in arguments_of(function)}
            return (function, argument.arg) if argument.arg in everything and argument.arg else None
        index = next((index for index, arg in enumerate(call.args) if arg is argument), None)
        return (function, names[index]) if index is not None and index < len(names) else None

    def constructor(self, node: ast.ClassDef) -> Function | None:
        """`__init__` of a class or of the nearest base class that is the recipe's own."""
        own = methods(node).get("__init__")
        if own is not None:
            return own
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in self.classes and base.id != node.name:
                return self.constructor(self.classes[base.id])
        return None
