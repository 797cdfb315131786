"""The event catalogue as Markdown, generated from the body types: what `make docs` writes to docs/events.md."""

import ast
import inspect
import types
from collections.abc import Iterator
from enum import Enum
from textwrap import dedent
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from ledger import bodies, imported
from ledger.bodies import BODIES
from ledger.events import Event
from ledger.parts import Body, Count, Decimal, Digest, Part, Seconds, Text


def catalogue() -> str:
    """Every event type with its version, meaning and fields, then the parts that bodies share."""
    sources = "`ledger/bodies.py`, `ledger/imported.py` and `ledger/events.py`"
    lines = ["# Events", "", f"Generated from {sources}; `make docs` rewrites it.", ""]
    lines += ["## The envelope", "", "Every entry is one JSON object with these fields in this order.", ""]
    lines += [
        "Of a *redactable text* the entry holds SHA-256(salt || text); text and salt stand beside it (see ledger.md).",
        "",
    ]
    lines += _table(Event, list(Event.__annotations__))
    for body in BODIES:
        lines += ["", f"## {body.TYPE}", "", f"Version {body.VERSION}. {_summary(body)}", ""]
        lines += _table(body, list(body.model_fields))
    lines += ["", "## Shared parts"]
    for part in _parts():
        lines += ["", f"### {part.__name__}", "", _summary(part), "", *_table(part, list(part.model_fields))]
    return "\n".join(lines) + "\n"


def _table(model: type, names: list[str]) -> list[str]:
    said = _field_docs(model)
    rows = [f"| `{name}` | {_type_of(model.__annotations__[name])} | {said.get(name, '')} |" for name in names]
    return ["| field | type | meaning |", "|---|---|---|", *rows]


def _summary(model: type) -> str:
    return " ".join((inspect.getdoc(model) or "").split())


def _field_docs(model: type) -> dict[str, str]:
    """The string that stands under each field in the source."""
    (definition,) = ast.parse(dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            found[field.target.id] = " ".join(ast.literal_eval(after.value).split())
    return found


_ALIASES = ((Digest, "digest"), (Decimal, "decimal"), (Count, "count"), (Seconds, "seconds"))
_PLAIN = {str: "text", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def _type_of(annotation: Any) -> str:
    for alias, name in _ALIASES:
        if annotation == alias:
            return name
    if any(isinstance(mark, Text) for mark in getattr(annotation, "__metadata__", ())):
        return "redactable text" + (" (not empty)" if len(annotation.__metadata__) > 1 else "")
    if hasattr(annotation, "__metadata__"):
        return f"{_type_of(annotation.__origin__)} (not empty)"
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " · ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_of(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {_type_of(arguments[0])}"
    if arguments:
        return f"map from {_type_of(arguments[0])} to {_type_of(arguments[1])}"
    if issubclass(annotation, Enum):
        return " · ".join(f"`{value.value}`" for value in annotation)
    return annotation.__name__ if annotation is not Body else "the type's fields, below"


def _parts() -> Iterator[type[BaseModel]]:
    for value in (*vars(bodies).values(), *vars(imported).values()):
        if isinstance(value, type) and Part in value.__bases__ and value is not Body:
            yield value
