"""The words in a piece of syntax: what it names, what its value is given to, which flag stands before it."""

import ast

from audit.domains.names import domain_of_name, is_time
from ledger.vocabulary import Domain


def has_time(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Name | ast.Attribute) and is_time(word_of(part) or "") for part in ast.walk(node))


def assigns_loss(node: ast.AST) -> bool:
    if not isinstance(node, ast.Assign | ast.AugAssign):
        return False
    target = target_word(node.targets[0] if isinstance(node, ast.Assign) else node.target)
    return target is not None and domain_of_name(target) is Domain.LOSS


def word_of(node: ast.AST) -> str | None:
    match node:
        case ast.Name(id=word) | ast.Attribute(attr=word) | ast.keyword(arg=str(word)) | ast.arg(arg=word):
            return word
        case ast.Subscript(slice=ast.Constant(value=str(word))):
            return word
    return None


def target_word(node: ast.AST) -> str | None:
    match node:
        case ast.Name(id=word) | ast.Attribute(attr=word) | ast.Subscript(slice=ast.Constant(value=str(word))):
            return word
        case ast.Subscript(value=value) | ast.Starred(value=value):
            return target_word(value)
    return None


def keys_of(node: ast.AST) -> set[str]:
    match node:
        case ast.Dict(keys=keys):
            return {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
        case ast.Call(keywords=keywords):
            return {keyword.arg for keyword in keywords if keyword.arg}
    return set()


def flag_before(line: ast.List | ast.Tuple, value: ast.AST) -> str | None:
    """The flag that a value of a command line follows, `["--head-dim", "64"]`, or stands in, `["--head-dim=64"]`."""
    index = next((index for index, item in enumerate(line.elts) if item is value), None)
    for item in [value, *(line.elts[index - 1 : index] if index else [])]:
        if isinstance(item, ast.Constant) and isinstance(item.value, str) and item.value.startswith("--"):
            return item.value.lstrip("-").partition("=")[0].replace("-", "_")
    return None


def flag_of(call: ast.Call) -> str | None:
    flags = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return max(flags, key=len).lstrip("-").replace("-", "_") if flags else None


def defaults_of(args: ast.arguments) -> list[tuple[str, ast.expr | None]]:
    positional = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
    return [
        *zip(positional, [*missing, *args.defaults], strict=True),
        *zip((arg.arg for arg in args.kwonlyargs), args.kw_defaults, strict=True),
    ]


def called(call: ast.Call) -> str:
    """Last part of the name that is called; empty for a call of an expression."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""
