"""How deep one difference goes: a constant's value, the size of what is there, or what is computed."""

import ast
import math

from audit.domains.canon import DEFINITIONS, FUNCTIONS
from audit.domains.difference import Edit
from audit.domains.flow import Flow
from audit.domains.names import LOGGING, is_size, snake
from audit.domains.report import Kind
from audit.domains.votes import Trace
from audit.domains.words import called
from ledger.vocabulary import Domain

_FILLS = frozenset(
    {"zeros", "ones", "full", "empty", "zeros_like", "ones_like", "full_like", "tensor", "randn", "rand", "randn_like"}
)
_ARITHMETIC = frozenset(
    {
        "int",
        "float",
        "max",
        "min",
        "len",
        "round",
        "sqrt",
        "abs",
        "ceil",
        "floor",
        "log",
        "log2",
        "pow",
        "exp",
        "tuple",
        "list",
        "bool",
    }
)
_INITIALISERS = frozenset(
    {
        "mul_",
        "fill_",
        "zero_",
        "copy_",
        "normal_",
        "uniform_",
        "constant_",
        "zeros_",
        "ones_",
        "orthogonal_",
        "trunc_normal_",
        "dirac_",
    }
    | {"kaiming_normal_", "kaiming_uniform_", "xavier_uniform_", "xavier_normal_", "eye_", "div_", "add_"}
)
_FLOAT_SIZES = ("mult", "expand", "width", "epoch", "hidden", "aspect", "data_ratio", "ratio_of", "steps", "tokens")
_PASS_THROUGH = frozenset({"environ", "os", "math", "torch", "np", "sys"})


def kind_of(edit: Edit, domain: Domain, flow: Flow, trace: Trace) -> Kind:
    """The kind of an edit whose surface is known; `flow` is over the version that holds its newer side."""
    node = edit.new if edit.new is not None else edit.old
    assert node is not None
    if edit.old is None or edit.new is None:
        return _one_sided(node, domain, flow, trace)
    if is_value(edit.old, flow, node) and is_value(edit.new, flow, node):
        return _of_values(edit.old, edit.new, domain, flow, trace)
    return _of_code(edit.old, edit.new, domain, flow, trace)


# --- something came or went


def _one_sided(node: ast.AST, domain: Domain, flow: Flow, trace: Trace) -> Kind:
    match node:
        case ast.keyword(value=value) if _is_static(value, flow, node):
            flag = isinstance(value, ast.Constant) and isinstance(value.value, bool)
            return (
                Kind.STRUCTURAL
                if flag and (domain is Domain.ARCH or trace.tested)
                else _size_or_scalar(value, domain, flow, trace)
            )
        case ast.arg():
            return Kind.SCALAR
        case ast.AnnAssign(value=value) | ast.Assign(value=value) if _is_constant(value):
            return _size_or_scalar(node, domain, flow, trace)
        case ast.Constant() if isinstance(flow.program.parent.get(node), ast.Tuple | ast.List | ast.Set):
            return Kind.DIMENSIONAL if isinstance(node.value, int) and trace.shaped else Kind.SCALAR
        case ast.Expr(value=ast.Call() as call) if called(call) in LOGGING:
            return Kind.SCALAR
        case ast.Assert():
            return Kind.SCALAR
    if isinstance(node, ast.stmt) and domain is Domain.ARCH and only_initialises(node, flow):
        return Kind.SCALAR
    return Kind.STRUCTURAL


def only_initialises(node: ast.stmt, flow: Flow) -> bool:
    """Whether a statement of the model only sets initial values or plain numbers: no parameter, no wiring."""
    function = flow.program.function_of(node)
    if function is None or isinstance(node, DEFINITIONS):
        return False
    if flow.roles.is_init(function):
        return True
    if function.name != "__init__":
        return False
    for part in ast.walk(node):
        match part:
            case ast.Call() if called(part) not in _INITIALISERS | _ARITHMETIC | {
                "range",
                "no_grad",
                "enumerate",
                "detach",
            }:
                return False
            case ast.Assign(targets=[target], value=value):
                if not isinstance(target, ast.Attribute | ast.Name | ast.Subscript) or not _is_arithmetic(value):
                    return False
                if isinstance(value, ast.Constant) and not isinstance(value.value, float):
                    # A flag or None set on a part of the model switches what it computes.
                    return False
            case ast.Delete() | ast.Return():
                return False
    return any(isinstance(part, ast.Call | ast.AugAssign | ast.Assign) for part in ast.walk(node))


# --- one value for another


def is_value(node: ast.AST, flow: Flow, at: ast.AST) -> bool:
    """Whether an expression is a plain value known before the first step: numbers, names of settings, arithmetic."""
    return isinstance(node, ast.expr) and _is_static(node, flow, at)


def _is_constant(node: ast.AST | None) -> bool:
    return node is not None and all(
        not isinstance(part, ast.Call) or called(part) in _ARITHMETIC | {"get", "getenv", "field"}
        for part in ast.walk(node)
    )


def _is_arithmetic(node: ast.AST) -> bool:
    return all(not isinstance(part, ast.Call) or called(part) in _ARITHMETIC for part in ast.walk(node))


def _is_static(node: ast.AST, flow: Flow, at: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return True
    if not all(
        not isinstance(part, ast.Call) or called(part) in _ARITHMETIC | {"get", "getenv"} for part in ast.walk(node)
    ):
        return False
    if any(
        isinstance(part, ast.Lambda | ast.ListComp | ast.GeneratorExp | ast.IfExp | ast.Compare | ast.BoolOp)
        for part in ast.walk(node)
    ):
        return False
    function = flow.program.function_of(at)
    role = flow.roles.of(function)
    if (
        function is None
        or role is None
        or function.name == "__init__"
        or (role is Domain.ARCH and flow.roles.is_init(function))
    ):
        return True
    # Inside running code a bare name is a tensor or a state; only fields of settings and of `self` are plain values.
    names = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
    settings = {"self", "args", "h", "hp", "hyp", "cfg", "config", "hparams", *_PASS_THROUGH}
    return all(name.id in settings or name.id.isupper() for name in names)


def _of_values(old: ast.AST, new: ast.AST, domain: Domain, flow: Flow, trace: Trace) -> Kind:
    match old, new:
        case ast.Constant(value=x), ast.Constant(value=y):
            if isinstance(x, bool | str | None) or isinstance(y, bool | str | None):
                return _of_flags(x, y, new, domain, flow, trace)
            if (not x) != (not y) and trace.tested and domain is not Domain.SYS:
                return Kind.STRUCTURAL
            if domain is Domain.ARCH and _picks(new, flow):
                return Kind.STRUCTURAL
    return _size_or_scalar(new, domain, flow, trace)


def _picks(node: ast.AST, flow: Flow) -> bool:
    """Whether a number in the running model picks one of several values: another number is other wiring."""
    above = flow.program.parent.get(node)
    function = flow.program.function_of(node)
    return (
        isinstance(above, ast.Subscript)
        and above.slice is node
        and not (isinstance(above.value, ast.Attribute) and above.value.attr == "shape")
        and function is not None
        and function.name != "__init__"
        and flow.roles.is_forward(node)
    )


def _of_flags(x: object, y: object, node: ast.AST, domain: Domain, flow: Flow, trace: Trace) -> Kind:
    if isinstance(x, str) and isinstance(y, str):
        before, after = _number(x), _number(y)
        if before is not None and after is not None:
            if (not before) != (not after) and trace.tested and domain is not Domain.SYS:
                return Kind.STRUCTURAL
            return _size_or_scalar(node, domain, flow, trace)
        if is_size(flow.target(node) or "") or (x and y and set(x + y) <= set("SLsl")):
            return Kind.DIMENSIONAL
    return Kind.STRUCTURAL if trace.tested and domain is not Domain.SYS else Kind.SCALAR


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() and "." not in text else number


def _size_or_scalar(node: ast.AST, domain: Domain, flow: Flow, trace: Trace) -> Kind:
    name = snake(flow.target(node) or "")
    number = node.value if isinstance(node, ast.Constant) else None
    if isinstance(node, ast.Constant) and isinstance(number, str):
        number = _number(number)
    if isinstance(node, ast.keyword | ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
        number = node.value.value
    if isinstance(number, bool):
        return Kind.SCALAR
    if isinstance(number, float) and (not math.isfinite(number) or number != int(number) or number < 1):
        return Kind.DIMENSIONAL if any(word in name for word in _FLOAT_SIZES) else Kind.SCALAR
    if is_size(name) or (
        trace.shaped
        and domain in (Domain.ARCH, Domain.EVAL, Domain.QUANT, Domain.DATA, Domain.SCHED)
        and isinstance(number, int)
    ):
        return Kind.DIMENSIONAL
    return Kind.SCALAR


# --- one piece of code for another


def _of_code(old: ast.AST, new: ast.AST, domain: Domain, flow: Flow, trace: Trace) -> Kind:
    if isinstance(old, ast.Call) and isinstance(new, ast.Call) and {called(old), called(new)} <= _FILLS:
        return Kind.DIMENSIONAL if _shape(old) != _shape(new) else Kind.SCALAR
    statement = flow.program.statement_of(new)
    if domain is Domain.ARCH and statement is not None and only_initialises(statement, flow):
        return _size_or_scalar(new, domain, flow, trace)
    if isinstance(old, ast.Call) and isinstance(new, ast.Call) and called(old) in LOGGING and called(new) in LOGGING:
        return Kind.SCALAR
    if isinstance(old, ast.JoinedStr) or isinstance(new, ast.JoinedStr):
        return Kind.SCALAR
    if not flow.roles.is_forward(new) and _without_factor(old) == _without_factor(new):
        return Kind.SCALAR
    function = flow.program.function_of(new)
    if (
        domain is Domain.ARCH
        and function is not None
        and function.name == "__init__"
        and _is_arithmetic(old)
        and _is_arithmetic(new)
    ):
        # A size or an initial number computed by another formula.
        return Kind.DIMENSIONAL if trace.shaped or is_size(flow.target(new) or "") else Kind.SCALAR
    return Kind.STRUCTURAL


def _shape(call: ast.Call) -> set[str]:
    """The arguments that say how large the tensor is; `(dim,)` and `dim` are one."""
    size = call.args[:1]
    elements = (
        size[0].elts if size and isinstance(size[0], ast.Tuple) else call.args if called(call) != "full" else size
    )
    return {ast.dump(item) for item in elements}


def _without_factor(node: ast.AST) -> str:
    """The expression without constant factors and offsets, for comparison."""
    match node:
        case ast.BinOp(left=left, right=ast.Constant(), op=ast.Mult() | ast.Div() | ast.Add() | ast.Sub()):
            return _without_factor(left)
        case ast.BinOp(left=ast.Constant(), right=right, op=ast.Mult() | ast.Add()):
            return _without_factor(right)
    return ast.dump(node)


def is_definition(node: ast.AST) -> bool:
    """Whether a whole function or class came or went."""
    return isinstance(node, (*FUNCTIONS, ast.ClassDef))
