"""The house holds its shape: imports point down, modules say what they are, rooms stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("ledger", "evaluators", "runners", "agents", "audit")
MAY_IMPORT = {
    "ledger": set(),
    "evaluators": {"ledger"},
    "runners": {"ledger", "evaluators"},
    "agents": {"ledger", "evaluators", "runners"},
    "audit": {"ledger", "evaluators"},
}
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py") if "tasks" not in path.parts)


def imported_rooms(path: Path) -> set[str]:
    """Top-level names of the project's own packages that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                found |= {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(level=0, module=str(module)):
                found.add(module.partition(".")[0])
            case ast.ImportFrom():
                raise AssertionError(f"{path}: relative import in line {node.lineno}")
    return found & {*ROOMS, "labtrail", "tests", "benchmarks"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    assert imported_rooms(path) <= MAY_IMPORT[room] | {room}


@pytest.mark.parametrize("path", [*MODULES, ROOT / "labtrail.py"], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_in_its_first_line_what_it_is(path: Path) -> None:
    text = path.read_text()
    if path.name == "__init__.py" and not text:
        return
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, f"{path} has no docstring"
    assert docstring.splitlines()[0].endswith("."), f"{path}: the first line is not a sentence"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_imports_inside_a_function(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nested = [inner for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom)]
            assert not nested, f"{path}:{nested[0].lineno} imports inside {node.name}"


def test_an_upward_import_is_caught(tmp_path: Path) -> None:
    module = tmp_path / "bad.py"
    module.write_text('"""Bad."""\nimport agents.search\nfrom ledger.log import EventLog\n')
    assert imported_rooms(module) == {"agents", "ledger"}
    assert not imported_rooms(module) <= MAY_IMPORT["evaluators"]
