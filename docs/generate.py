"""Rewrite the generated parts of the documentation; `--check` fails where they have drifted."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import pyarrow as pa

import labtrail
from audit.cli import cli as audit_cli
from ledger import dictionary
from ledger.analysis import Ledger
from ledger.answers import table_of
from ledger.catalogue import catalogue
from ledger.log import EventLog
from ledger.named import library
from ledger.terminal import wide
from ledger.views import empty
from ledger.vocabulary import LABEL_RULES
from tests.campaigns import write_campaign

ROOT = Path(__file__).parent.parent
ROOMS = ("ledger", "evaluators", "runners", "agents", "audit")


def tree() -> str:
    """The rooms and what the first line of each module says."""
    lines = ["```"]
    for path in [ROOT / "labtrail.py", *(module for room in ROOMS for module in _modules(room))]:
        text = ast.get_docstring(ast.parse(path.read_text()))
        if text:
            lines.append(f"{path.relative_to(ROOT)!s:<34}{text.splitlines()[0]}")
    return "\n".join([*lines, "```"])


def _modules(room: str) -> Iterator[Path]:
    for path in sorted((ROOT / room).rglob("*.py")):
        if "tasks" not in path.parts:
            yield path


def commands() -> str:
    """Reference of every command, from its own help."""
    parts = ["# Commands", "", "Generated from the programs' own help; `make docs` rewrites it."]
    for name, group in (("labtrail", labtrail.cli), ("audit", audit_cli)):
        parts += ["", f"## {name}"]
        for command in group.commands.values():
            context = click.Context(command, info_name=f"{name} {command.name}", max_content_width=100)
            parts += ["", f"### {name} {command.name}", "", "```", command.get_help(context), "```"]
    return "\n".join(parts) + "\n"


def labels() -> str:
    """The closed set of failure labels with the rule of each."""
    rows = [f"| `{label}` | {rule.phase} | {rule.rule} |" for label, rule in LABEL_RULES.items()]
    head = "# Failure labels\n\nGenerated from `ledger/vocabulary.py`.\n\n| label | found | rule |\n|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def queries() -> str:
    """Every named query with what it answers on a campaign that the tests write: the same one each time."""
    parts = [
        "# Named queries",
        "",
        "Generated from `ledger/queries/`; `make docs` rewrites it. `labtrail sql @NAME --ledger LEDGER` asks one",
        "of your ledger. With several ledgers each is asked by itself, and a column says which row is whose. A new",
        "file in the folder is a new query. The answers below are those of a campaign of 26 trials on a toy task,",
        "written by `tests/campaigns.py` through the real gates and verdicts.",
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "toy.db"
        with EventLog.create(path) as log:
            write_campaign(log, name="toy-1", trials=26, seed=1)
        with Ledger.open(path) as ledger:
            for name, named in library().items():
                parts += ["", f"## @{name}", named.title, *([named.note] if named.note else [])]
                parts += ["", "```sql", named.sql, "```", "", "```", _table(ledger.named(name).arrow), "```"]
    return "\n".join(parts) + "\n"


def _table(answer: pa.Table) -> str:
    return "\n".join(line.rstrip() for line in table_of(answer, wide()).splitlines())


def documents() -> dict[Path, str]:
    """Every generated document with the content that it should have."""
    readme = (ROOT / "README.md").read_text()
    before, _, rest = readme.partition("<!-- tree: generated from the first line of each module -->\n")
    _, _, after = rest.partition("<!-- /tree -->")
    marked = f"{before}<!-- tree: generated from the first line of each module -->\n{tree()}\n<!-- /tree -->{after}"
    return {
        ROOT / "README.md": marked,
        ROOT / "docs" / "cli.md": commands(),
        ROOT / "docs" / "labels.md": labels(),
        ROOT / "docs" / "events.md": catalogue(),
        ROOT / "docs" / "queries.md": queries(),
        ROOT / "docs" / "views.md": dictionary.reference(empty()),
    }


def main() -> None:
    """Write, or with `--check` compare."""
    for path, content in documents().items():
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != content:
                sys.exit(f"{path.relative_to(ROOT)} has drifted; run `make docs`")
        else:
            path.write_text(content)


if __name__ == "__main__":
    main()
