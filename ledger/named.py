"""The library of named queries: one file of SQL each in ledger/queries, its title in the first comment."""

import difflib
from dataclasses import dataclass
from importlib import resources

from ledger.views import QueryError

FOLDER = resources.files("ledger").joinpath("queries")


@dataclass(frozen=True)
class NamedQuery:
    """A question that is asked often."""

    name: str
    title: str
    note: str
    """What its columns mean; empty where the title says all."""
    sql: str


def query_named(name: str) -> NamedQuery:
    """The query with this name. Raises QueryError with the nearest names."""
    known = library()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
    raise QueryError(f"expected a named query, found {name!r}; there is {', '.join(near)}")


def library() -> dict[str, NamedQuery]:
    """Every named query, by name."""
    files = sorted((file.name, file.read_text()) for file in FOLDER.iterdir() if file.name.endswith(".sql"))
    return {name.removesuffix(".sql"): _parsed(name.removesuffix(".sql"), text) for name, text in files}


def _parsed(name: str, text: str) -> NamedQuery:
    lines = text.splitlines()
    size = next(index for index, line in enumerate(lines) if not line.startswith("--"))
    title, *note = (line.removeprefix("--").strip() for line in lines[:size])
    return NamedQuery(name, title, " ".join(note), "\n".join(lines[size:]).strip())
