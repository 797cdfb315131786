"""Serve a ledger with Datasette: the log itself, read-only, and its views as plain tables that follow it."""

import importlib.util
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from ledger import dictionary
from ledger.log import EventLog
from ledger.views import Views

PAGES = tuple(view for view in dictionary.DOCS if view != "events")
"""Views that become tables of the site; the log itself is there beside them."""
REFRESH_S = 2.0
METADATA = Path(__file__).with_name("metadata.json")


class BrowseError(Exception):
    """The site cannot be served; the message says what to do."""


def project(views: Views, target: Path) -> None:
    """Write the views into the SQLite file `target`, replacing what stood there in one transaction."""
    with Database(target) as database, database.atomic():
        for page in PAGES:
            answer = views.query(f"FROM {page}")
            database.execute(f"DROP TABLE IF EXISTS {page}")
            if answer.rows:
                database.table(page).insert_all(_plain(record) for record in answer.records())
            else:
                database.table(page).create(dict.fromkeys(answer.columns, str))


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """Values that SQLite stores: lists and times become text."""
    return {key: value if isinstance(value, int | float | str | None) else str(value) for key, value in record.items()}


def serve(ledger: Path, host: str, port: int, open_browser: bool) -> int:
    """Run Datasette until it ends; returns its exit code. Raises BrowseError where it is not installed."""
    if importlib.util.find_spec("datasette") is None:
        raise BrowseError("Datasette is not installed; run `pip install 'labtrail[browse]'`")
    with tempfile.TemporaryDirectory(prefix="labtrail-browse-") as folder:
        target = Path(folder) / "views.db"
        with EventLog.read_only(ledger) as log:
            _refresh(log, Views(log), target)
        command = [sys.executable, "-m", "datasette", "serve", str(ledger), str(target), "--metadata", str(METADATA)]
        command += ["--host", host, "--port", str(port), "--setting", "sql_time_limit_ms", "3000"]
        command += ["--open"] if open_browser else []
        site = subprocess.Popen(command)
        stop = threading.Event()
        follower = threading.Thread(target=_follow, args=(ledger, target, stop), daemon=True)
        follower.start()
        try:
            return site.wait()
        except KeyboardInterrupt:
            site.terminate()
            site.wait()
            return 0
        finally:
            stop.set()
            follower.join()


def _follow(ledger: Path, target: Path, stop: threading.Event) -> None:
    """Project again whenever the log has grown."""
    shown = -1
    while not stop.wait(REFRESH_S):
        # Opened anew each time: the file was immutable at first where no writer was there.
        with EventLog.read_only(ledger) as log:
            if log.size != shown:
                _refresh(log, Views(log), target)
                shown = log.size


def _refresh(log: EventLog, views: Views, target: Path) -> None:
    views.catch_up()
    project(views, target)
    views.close()
