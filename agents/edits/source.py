"""A recipe read for editing: syntax trees with byte positions, imports, networks and training loops."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from agents.edits.edit import Splice

NN, FUNCTIONAL, OPTIM = "torch.nn", "torch.nn.functional", "torch.optim"


class Module:
    """One Python file. Raises SyntaxError where it does not parse."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.content = text.encode()
        self.tree = ast.parse(text, path)
        self._starts = [0]
        for line in self.content.split(b"\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)
        self.nodes: list[ast.AST] = []
        self.parents: dict[ast.AST, ast.AST] = {}
        todo: list[ast.AST] = [self.tree]
        while todo:
            node = todo.pop()
            self.nodes.append(node)
            children = list(ast.iter_child_nodes(node))
            for child in children:
                self.parents[child] = node
            todo += reversed(children)
        self.calls = [node for node in self.nodes if isinstance(node, ast.Call)]
        self.functions = [node for node in self.nodes if isinstance(node, ast.FunctionDef)]
        self.words = {node.id for node in self.nodes if isinstance(node, ast.Name)}

    # Positions

    def span(self, node: ast.expr | ast.stmt | ast.keyword) -> tuple[int, int]:
        """Byte offsets of the node's first byte and of the byte after its last."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.expr | ast.stmt | ast.keyword) -> str:
        """Source of the node."""
        start, end = self.span(node)
        return self.content[start:end].decode()

    def span_with_brackets(self, node: ast.expr) -> tuple[int, int]:
        """Like `span`, with the round brackets around the node that the tree leaves out."""
        start, end = self.span(node)
        while True:
            before, after = self.content[:start].rstrip(), self.content[end:]
            if (
                not (before.endswith(b"(") and after.lstrip().startswith(b")"))
                or before[-2:-1].isalnum()
                or before[-2:-1] in (b"_", b"]", b")")
            ):
                return start, end
            start, end = len(before) - 1, end + len(after) - len(after.lstrip()) + 1

    def replace(self, node: ast.expr | ast.stmt | ast.keyword, text: str) -> tuple[str, Splice]:
        """The splice that puts `text` in the node's place."""
        return self.path, Splice(*self.span(node), text)

    def before(self, statement: ast.stmt, *lines: str) -> tuple[str, Splice]:
        """The splice that puts lines above a statement, at its indentation. The statement must start its line."""
        start = self._starts[statement.lineno - 1]
        return self.path, Splice(start, start, self._block(statement, lines))

    def after(self, statement: ast.stmt, *lines: str) -> tuple[str, Splice]:
        """The splice that puts lines below a statement, at its indentation. The statement must end its line."""
        assert statement.end_lineno is not None
        at = self._starts[statement.end_lineno]
        if at > len(self.content):
            return self.path, Splice(len(self.content), len(self.content), "\n" + self._block(statement, lines))
        return self.path, Splice(at, at, self._block(statement, lines))

    def _block(self, statement: ast.stmt, lines: tuple[str, ...]) -> str:
        start = self._starts[statement.lineno - 1]
        indent = self.content[start : start + statement.col_offset].decode()
        return "".join(f"{indent}{line}\n" for line in lines)

    def owns_lines(self, statement: ast.stmt) -> bool:
        """Whether nothing but blanks and a comment shares the statement's lines."""
        start, end = self.span(statement)
        assert statement.end_lineno is not None
        rest = self.content[end : self._starts[statement.end_lineno]].strip()
        return not self.content[self._starts[statement.lineno - 1] : start].strip() and rest[:1] in (b"", b"#")

    @cached_property
    def reads(self) -> dict[str, list[ast.expr]]:
        """Places that read a name or an attribute, by its last word."""
        found: dict[str, list[ast.expr]] = {}
        for node in self.nodes:
            match node:
                case ast.Name(id=word, ctx=ast.Load()) | ast.Attribute(attr=word, ctx=ast.Load()):
                    found.setdefault(word, []).append(node)
        return found

    # Surroundings

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """Parents of a node, nearest first."""
        while (above := self.parents.get(node)) is not None:
            yield above
            node = above

    def function(self, node: ast.AST) -> ast.FunctionDef | None:
        """The function around a node."""
        return next((above for above in self.ancestors(node) if isinstance(above, ast.FunctionDef)), None)

    def statement(self, node: ast.AST) -> ast.stmt:
        """The statement around an expression."""
        return next(above for above in self.ancestors(node) if isinstance(above, ast.stmt))

    def place(self, node: ast.AST, name: str) -> str:
        """`file:Class.function.name`, with a count where that is not the first of its name there."""
        scope = tuple(
            above.name for above in self.ancestors(node) if isinstance(above, (ast.FunctionDef, ast.ClassDef))
        )
        return f"{self.path}:{'.'.join((*reversed(scope), name))}"

    # Names

    @cached_property
    def imports(self) -> dict[str, str]:
        """Local name -> what it stands for, dotted."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.split(".")[0]
                    found[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return found

    def full(self, node: ast.AST) -> str:
        """Dotted name of an expression with imports resolved: `F.gelu` -> `torch.nn.functional.gelu`; else empty."""
        if isinstance(node, ast.Attribute):
            base = self.full(node.value)
            return f"{base}.{node.attr}" if base else ""
        return self.imports.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    def reach(self, target: str) -> str | None:
        """How this file can write the dotted module `target`; None where it imports no way to it."""
        best: str | None = None
        for local, meaning in self.imports.items():
            if target == meaning or target.startswith(f"{meaning}."):
                way = local + target[len(meaning) :]
                best = way if best is None or len(way) < len(best) else best
        return best

    def importing(self, target: str) -> tuple[tuple[str, Splice], ...]:
        """The splice that imports a top-level module, or none where it is there already."""
        if target in self.imports:
            return ()
        plain = (
            node
            for node in self.tree.body
            if isinstance(node, (ast.Import, ast.ImportFrom)) and getattr(node, "module", "") != "__future__"
        )
        first = next(plain, None)
        return (self.before(first, f"import {target}"),) if first is not None else ()

    def fresh(self, name: str) -> str:
        """`name`, or a longer one that the file does not use."""
        while name in self.words:
            name += "_"
        return name

    @cached_property
    def is_inference(self) -> bool:
        """Whether the file applies a network and trains none."""
        attributes = {node.attr for node in self.nodes if isinstance(node, ast.Attribute)}
        return "backward" not in attributes and bool(attributes & {"inference_mode", "no_grad", "eval"})


def sans_gradient(module: Module, node: ast.AST) -> bool:
    """Whether the node stands in a function or block that turns gradients off or the network to evaluation."""
    function = module.function(node)
    around = ast.walk(function) if function is not None else iter(())
    return any(
        isinstance(item, ast.Attribute) and item.attr in ("inference_mode", "no_grad", "eval") for item in around
    )


@dataclass(frozen=True)
class Network:
    """A class that derives from nn.Module."""

    module: Module
    node: ast.ClassDef
    init: ast.FunctionDef | None
    forward: ast.FunctionDef | None
    layers: Mapping[str, ast.Call]
    """Attributes that __init__ assigns a call to."""

    def layer_type(self, name: str) -> str:
        """Full dotted name of what the attribute is made of; empty where unknown."""
        return self.module.full(self.layers[name].func) if name in self.layers else ""

    @property
    def calls(self) -> list[tuple[str, ast.Call]]:
        """(attribute, call) of every `self.attribute(...)` in forward, in source order."""
        found = []
        for node in ast.walk(self.forward) if self.forward is not None else ():
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                    found.append((name, node))
        return sorted(found, key=lambda pair: self.module.span(pair[1])[1])

    @property
    def inputs(self) -> list[str]:
        """Names of forward's arguments after self."""
        return [argument.arg for argument in self.forward.args.args[1:]] if self.forward is not None else []

    def at_end_of_init(self, *lines: str) -> tuple[str, Splice]:
        """The splice that puts lines at the end of __init__."""
        assert self.init is not None
        return self.module.after(self.init.body[-1], *lines)


@dataclass(frozen=True)
class Step:
    """A place where an optimiser steps."""

    module: Module
    function: ast.FunctionDef
    statement: ast.stmt
    """The step itself, or the loop over several optimisers that holds nothing else."""
    parameters: str
    """Source of a list of all weights that it trains."""
    loop: ast.For | ast.While | None
    """The outermost loop of the function around it."""


class Program:
    """All Python files of a recipe that parse."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.modules: list[Module] = []
        for path, text in sorted(files.items()):
            if path.endswith(".py"):
                try:
                    self.modules.append(Module(path, text))
                except (SyntaxError, ValueError, RecursionError):
                    # Such a file is the gate's business; the others can still be edited.
                    continue

    @cached_property
    def networks(self) -> list[Network]:
        """Every network class, in order of file and line."""
        return [
            _network(module, node)
            for module in self.modules
            for node in module.nodes
            if isinstance(node, ast.ClassDef) and any(_is_module_base(module, base) for base in node.bases)
        ]

    @cached_property
    def inner(self) -> frozenset[str]:
        """Names of network classes that another network is built from."""
        names = {network.node.name for network in self.networks}
        used: set[str] = set()
        for network in self.networks:
            mentioned = {node.id for node in ast.walk(network.node) if isinstance(node, ast.Name)}
            used |= (mentioned & names) - {network.node.name}
        return frozenset(used)

    @property
    def whole(self) -> list[Network]:
        """Networks that are not part of another."""
        return [network for network in self.networks if network.node.name not in self.inner]

    def uses(self, *names: str) -> bool:
        """Whether any file calls something of these full dotted names."""
        return any(module.full(call.func) in names for module in self.modules for call in module.calls)

    @cached_property
    def steps(self) -> list[Step]:
        """Every optimiser step whose optimiser is at hand."""
        return [step for module in self.modules for call in module.calls if (step := _step(module, call)) is not None]

    @cached_property
    def losses(self) -> list[tuple[Module, ast.Call]]:
        """Cross-entropies that are trained on."""
        return [
            (module, call)
            for module in self.modules
            if not module.is_inference
            for call in module.calls
            if module.full(call.func) == f"{FUNCTIONAL}.cross_entropy" and not sans_gradient(module, call)
        ]


def _is_module_base(module: Module, base: ast.expr) -> bool:
    return module.full(base) in (f"{NN}.Module", f"{NN}.modules.Module")


def _network(module: Module, node: ast.ClassDef) -> Network:
    methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    layers: dict[str, ast.Call] = {}
    for item in ast.walk(methods["__init__"]) if "__init__" in methods else ():
        match item:
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=ast.Call() as call):
                layers[name] = call
    return Network(module, node, methods.get("__init__"), methods.get("forward"), layers)


def _step(module: Module, call: ast.Call) -> Step | None:
    match call:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="step"), args=[], keywords=[]):
            pass
        case _:
            return None
    statement, function = module.parents[call], module.function(call)
    if not isinstance(statement, ast.Expr) or function is None or not module.owns_lines(statement):
        return None
    touched = {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    }
    if not touched & {"zero_grad", "param_groups"} and "opt" not in name.lower():
        return None
    loops: list[ast.For | ast.While] = []
    anchor: ast.stmt = statement
    source = f"for group in {name}.param_groups"
    for above in module.ancestors(statement):
        if above is function:
            break
        if isinstance(above, ast.For) and isinstance(above.target, ast.Name) and above.target.id == name:
            if not isinstance(above.iter, ast.Name):
                return None
            # One loop over several optimisers counts as one step of all of them.
            source = f"for {name} in {above.iter.id} for group in {name}.param_groups"
            anchor = above
        elif isinstance(above, (ast.For, ast.While)):
            loops.append(above)
    parameters = f'[weight {source} for weight in group["params"]]'
    return Step(module, function, anchor, parameters, loops[-1] if loops else None)
