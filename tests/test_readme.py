"""The README is true: its quick start runs, its tree and the generated documents are current."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def quick_start() -> list[str]:
    """Commands of the block that the README marks as executed."""
    block = re.search(r"<!-- quickstart:.*?-->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert block
    return block[1].strip().splitlines()


@pytest.mark.slow
def test_the_quick_start_runs_as_written(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "LABTRAIL_HOME": str(tmp_path / "home")}
    commands = quick_start()
    assert len(commands) >= 5
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert "SOUND" in done.stdout


def test_generated_documents_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.generate", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
