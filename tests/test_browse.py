"""Browsing: a real Datasette over real HTTP on a ledger, read-only and following it."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.log import EventLog
from tests.campaigns import write_campaign

pytest.importorskip("datasette")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address of a site on a ledger, and the ledger's path."""
    ledger = tmp_path / "toy.db"
    with EventLog.create(ledger) as log:
        write_campaign(log, name="toy-1", trials=8, seed=0)
    command = [sys.executable, "-m", "labtrail", "browse", "--ledger", str(ledger), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stderr is not None
    address = None
    for line in process.stderr:
        if found := re.search(r"running on (http://\S+)", line):
            address = found[1]
            break
    assert address, "the site did not start"
    yield address, ledger
    process.send_signal(2)
    process.wait(20)


def get(address: str, path: str) -> str:
    with urllib.request.urlopen(f"{address}{path}", timeout=20) as answer:
        text: str = answer.read().decode()
        return text


def test_the_site_shows_trials_and_the_raw_log_and_follows_it(site: tuple[str, Path]) -> None:
    address, ledger = site
    with EventLog.read_only(ledger) as log:
        size = log.size
    assert "trials" in get(address, "/views")
    trials = json.loads(get(address, "/views/trials.json?_shape=array&_size=max"))
    assert {trial["trial"] for trial in trials} == set(range(len(trials)))
    events = json.loads(get(address, "/toy/events.json?_size=1"))
    assert events["filtered_table_rows_count"] == size
    assert json.loads(get(address, "/views/champions.json?_shape=array"))
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{address}/toy?sql=delete+from+events", timeout=20)
    with EventLog.open(ledger) as log:
        write_campaign(log, name="toy-2", trials=3, seed=5)
    for _ in range(40):
        if len(json.loads(get(address, "/views/campaigns.json?_shape=array"))) == 2:
            break
        time.sleep(0.5)
    else:
        raise AssertionError("the site did not follow the log")


def test_hostile_text_is_escaped(tmp_path: Path, site: tuple[str, Path]) -> None:
    address, _ = site
    page = get(address, "/views?sql=" + urllib.request.quote("select '<script>alert(1)</script>' as x"))
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
