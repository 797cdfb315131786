"""Run the code of docs/analysis.md and keep its figures: of a ledger that is given, or of a new toy campaign."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "docs" / "figures"
TRIALS, SEED = 48, 3


def code(ledger: Path) -> str:
    """The guide's Python, with this ledger in the place of `toy.db`."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "analysis.md").read_text(), flags=re.DOTALL)
    return "\n".join(blocks).replace('Ledger.open("toy.db")', f"Ledger.open({str(ledger)!r})")


def draw(ledger: Path, folder: Path) -> list[Path]:
    """Run the guide's code in `folder`; returns the figures that it left. Equal numbers give equal files."""
    matplotlib.use("svg")
    settings = {"svg.hashsalt": "labtrail", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(settings), contextlib.chdir(folder):
        matplotlib.rcParams["savefig.bbox"] = "tight"
        exec(compile(code(ledger.absolute()), "docs/analysis.md", "exec"), {})  # noqa: S102
    figures = sorted(folder.glob("*.svg"))
    for figure in figures:
        text = re.sub(r"\s*<dc:date>.*?</dc:date>", "", figure.read_text(), flags=re.DOTALL)
        figure.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")
    return figures


@contextlib.contextmanager
def campaign() -> Iterator[Path]:
    """A ledger with a campaign of the toy task, run now."""
    with TemporaryDirectory() as folder:
        ledger = Path(folder) / "toy.db"
        command = [sys.executable, "-m", "labtrail", "run", "tests/toy_task", "--ledger", str(ledger)]
        command += ["--trials", str(TRIALS), "--seed", str(SEED)]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "LABTRAIL_HOME": folder}, check=True)
        yield ledger


def main() -> None:
    """Draw the figures of docs/analysis.md."""
    FIGURES.mkdir(exist_ok=True)
    with contextlib.nullcontext(Path(sys.argv[1])) if sys.argv[1:] else campaign() as ledger:
        for figure in draw(ledger, FIGURES):
            print(figure)


if __name__ == "__main__":
    main()
