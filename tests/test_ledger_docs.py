"""docs/ledger.md: the check by hand is run as it stands there."""

import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.log import EventLog
from ledger.store import expected_schema
from tests.test_ledger import draft

DOCS = Path(__file__).parent.parent / "docs" / "ledger.md"
# Stands in for the sqlite3 program where it is not installed: prints what a query gives, a newline after each row.
STAND_IN = """#!{python}
import sqlite3, sys
for row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]):
    print("|".join(str(value) for value in row))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with EventLog.create(tmp_path / "ledger.db") as log:
        log.append([draft("zero"), draft('é "quoted"\n\u2028'), draft("two")])
    if shutil.which("sqlite3") is None:
        (tmp_path / "sqlite3").write_text(STAND_IN.format(python=sys.executable))
        (tmp_path / "sqlite3").chmod(0o755)
    return tmp_path


def test_one_event_is_checked_by_hand_as_documented(folder: Path) -> None:
    section = DOCS.read_text().partition("## Check one event by hand")[2]
    script = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert script is not None
    output = subprocess.run(
        ["sh", "-ec", script[1]],
        cwd=folder,
        env={"PATH": f"/usr/bin:/bin:{folder}", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    digests = [line.split()[0] for line in output.splitlines()]
    assert len(digests) == 3
    assert len(set(digests)) == 1


def test_every_table_and_view_is_documented() -> None:
    tables = re.findall(r"^\| `(\w+)`(?: \(view\))? \|", DOCS.read_text(), re.MULTILINE)
    connection = sqlite3.connect(":memory:")
    for statement in expected_schema().values():
        if statement.startswith(("CREATE TABLE", "CREATE VIEW")):
            connection.execute(statement)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
    assert set(tables) == names
