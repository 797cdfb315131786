"""Every view as a file of a folder: Parquet for fleets and object stores, CSV for spreadsheets."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from ledger.analysis import ORIGIN
from ledger.answers import csv_of, parquet_of
from ledger.export.places import CARD, own_folder
from ledger.log import EventLog
from ledger.views import Views


def export_parquet(log: EventLog, views: Views, target: Path) -> str:
    """One Parquet file a view in the folder `target`; `read_parquet('fleet/*/trials.parquet')` reads many ledgers."""
    return _export(log, views, target, ".parquet", parquet_of)


def export_csv(log: EventLog, views: Views, target: Path) -> str:
    """One CSV file a view in the folder `target`."""
    return _export(log, views, target, ".csv", lambda table: csv_of(table).encode(errors="replace"))


def _export(log: EventLog, views: Views, target: Path, suffix: str, encoded: Callable[[pa.Table], bytes]) -> str:
    origin = log.meta()["origin"]
    names = views.names
    head = {"ledger": origin, "events": views.position, "root": log.tree(views.position).root().hex()}
    rows = 0
    with own_folder(target, origin) as folder:
        for name in names:
            table = views.arrow(f"FROM {name}")
            table = table.add_column(0, ORIGIN, pa.array([origin] * table.num_rows, pa.string()))
            card = {f"labtrail.{key}": str(value) for key, value in head.items()}
            (folder / f"{name}{suffix}").write_bytes(encoded(table.replace_schema_metadata(card)))
            rows += table.num_rows
        files = [f"{name}{suffix}" for name in names]
        (folder / CARD).write_text(json.dumps({**head, "files": files}, indent=2) + "\n")
    return f"{target}: {len(names)} tables, {rows:,} rows"
