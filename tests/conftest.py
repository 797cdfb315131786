"""Fixtures that more than one room's tests use."""

import signal
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from ledger.keys import SigningKey
from ledger.log import EventLog

# A shell starts what it puts into the background with SIGINT ignored, and so would be every program under test.
signal.signal(signal.SIGINT, signal.default_int_handler)

TOY = Path(__file__).parent / "toy_task"


def copy_toy(target: Path) -> Path:
    """A copy of the toy task that a test may edit."""
    return copytree(TOY, target, ignore=ignore_patterns("__pycache__"))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    """A new, empty ledger, open for writing."""
    with EventLog.create(tmp_path / "ledger.db") as log:
        yield log


@pytest.fixture
def evaluator_key(tmp_path: Path) -> SigningKey:
    """A fresh evaluator key in a file of its own folder."""
    return SigningKey.create(tmp_path / "keys" / "evaluator.key", "test-evaluator")
