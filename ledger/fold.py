"""Takes a few events into the typed tables one by one: for them DuckDB would spend longer planning than working.

Imported records are not for it: they come many at a time, and the statements of `ledger.facts` read them.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

import duckdb
from pydantic_core import from_json

from ledger import facts
from ledger.events import Written
from ledger.facts import Fold, How, Record

FEW = 64
"""Up to so many events are taken here, more by the statements of `ledger.facts`: both give the same rows."""
MAX_ROWS_KEPT = 256

Fields = dict[str, Any]
"""One event, flat: the fields of its envelope and of its body."""
_LINK = """
INSERT INTO facts.paths
SELECT t.campaign, t.trial, coalesce(p.depth + 1, 0), list_append(coalesce(p.path, []), t.trial)
FROM facts.trials t LEFT JOIN facts.paths p ON p.campaign = t.campaign AND p.trial = t.parent
WHERE t.campaign = ? AND t.trial = ? AND (t.parent IS NULL OR p.trial IS NOT NULL)
  AND NOT EXISTS (SELECT 1 FROM facts.paths x WHERE x.campaign = t.campaign AND x.trial = t.trial)
"""


class Folder:
    """Folds events into the tables of one connection; the caller holds the transaction."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._statements: dict[str, duckdb.Statement] = {}
        self._rows: dict[tuple[object, ...], list[Any]] = {}
        self._linked: set[tuple[str, int]] = set()

    def forget(self) -> None:
        """Read rows again: the tables were changed by somebody else, or the transaction was rolled back."""
        self._rows.clear()
        self._linked.clear()

    def take(self, batch: Sequence[Written]) -> None:
        """Add the events. Raises ValueError, TypeError, AttributeError or KeyError for an entry that is no event."""
        events = [_flat(written) for written in batch]
        for record in facts.RECORDS:
            self._add(record, events)
        for fold in facts.FOLDS:
            self._merge(fold, events)
        for fields in events:
            if fields["type"] == "hypothesis_proposed" and fields["parent"] < fields["trial"]:
                self._link(fields["campaign"], fields["parent"])

    def _add(self, record: Record, events: Sequence[Fields]) -> None:
        told = [event for event in events if not record.of or event["type"] in record.of]
        if record.each:
            told = list(_each(record.each, told))
        readers = [_reader(says, kind) for _, kind, says in record.columns]
        self._insert(record.table, [[read(event) for read in readers] for event in told])

    def _merge(self, fold: Fold, events: Sequence[Fields]) -> None:
        keys = [_reader(says, kind) for _, kind, says in fold.key]
        columns = [(_reader(c.says, c.type), c.how, c.of) for c in fold.columns]
        fresh: dict[tuple[object, ...], list[Any]] = {}
        for event in events:
            key = tuple(read(event) for read in keys)
            if key[-1] is None:
                continue
            if key not in fresh:
                fresh[key] = self._taken(fold, key)
            row = fresh[key]
            for index, (read, how, of) in enumerate(columns, start=len(key)):
                if not of or event["type"] in of:
                    row[index] = _merged(how, row[index], read(event))
        self._insert(fold.table, list(fresh.values()))
        if len(self._rows) > MAX_ROWS_KEPT:
            self._rows.clear()
        self._rows.update(((fold.table, *key), row) for key, row in fresh.items())

    def _taken(self, fold: Fold, key: tuple[object, ...]) -> list[Any]:
        """The row with this key, taken out of its table; an empty one where there is none."""
        where = " AND ".join(f"{name} = ?" for name, _, _ in fold.key)
        row = self._rows.get((fold.table, *key))
        if row is None:
            found = self._run(f"FROM {fold.table} WHERE {where}", list(key)).fetchone()
            if found is None:
                none = [0 if column.how in (How.SUM, How.COUNT) else None for column in fold.columns]
                return [*key, *none]
            row = list(found)
        self._run(f"DELETE FROM {fold.table} WHERE {where}", list(key))
        return row

    def _insert(self, table: str, rows: list[list[Any]]) -> None:
        if rows:
            row = f"({', '.join('?' * len(rows[0]))})"
            values = ", ".join([row] * len(rows))
            self._run(f"INSERT INTO {table} VALUES {values}", [value for row in rows for value in row])

    def _link(self, campaign: str, parent: int) -> None:
        if (campaign, parent) not in self._linked:
            self._run(_LINK, [campaign, parent])
            self._linked.add((campaign, parent))

    def _run(self, sql: str, parameters: list[Any]) -> duckdb.DuckDBPyConnection:
        """Run a statement that was parsed before: parsing costs as much as running."""
        statement = self._statements.get(sql)
        if statement is None:
            (statement,) = self._connection.extract_statements(sql)
            self._statements[sql] = statement
        return self._connection.execute(statement, parameters)


def _flat(written: Written) -> Fields:
    """Raises ValueError where the entry is not JSON, KeyError where it lacks a field of the envelope."""
    entry = from_json(written.entry)
    texts = from_json(written.texts) if written.texts is not None else {}
    # As in `facts.parse`, a withheld text is nothing.
    fields = {**entry["body"], **texts, **{name: entry[name] for name in facts.ENVELOPE}}
    fields["recorded_at"] = datetime.fromisoformat(fields["recorded_at"].removesuffix("Z"))
    return fields


def _each(field: str, events: Sequence[Fields]) -> Iterator[Fields]:
    for event in events:
        for key, value in event[field].items():
            yield {**event, "measured": {"key": key, "value": value}}


def _merged(how: How, old: Any, new: Any) -> Any:
    if new is None:
        return old
    match how:
        case How.FIRST:
            return new if old is None else old
        case How.SUM:
            return old + new
        case How.COUNT:
            return old + 1
        case How.LEAST:
            return new if old is None else min(old, new)
        case How.MOST:
            return new if old is None else max(old, new)


def _whole(value: float, scale: float) -> int:
    return int(value * scale + 0.5)


def _trained(fields: Mapping[str, Any], clock: str) -> int | None:
    train = fields.get("train")
    return None if train is None else _whole(train[clock], 1e6)


def _predicted(fields: Mapping[str, Any], clock: str) -> int:
    return sum(_whole(facts_[clock], 1e6) for facts_ in fields.get("predict") or ())


def _cpu(fields: Mapping[str, Any]) -> int | None:
    trained = _trained(fields, "cpu_s")
    return None if trained is None else trained + _predicted(fields, "cpu_s")


_COMPUTED: dict[str, Callable[[Fields], Any]] = {
    "*": lambda fields: True,
    facts.PAID: lambda fields: None if fields.get("usd") is None else _whole(float(fields["usd"]), 1e9),
    facts.WAITED: lambda fields: None if fields.get("latency_s") is None else _whole(fields["latency_s"], 1e6),
    facts.TRUST: lambda fields: fields.get("trust"),
    facts.TOLD: lambda fields: None,
    facts.AT: lambda fields: fields["recorded_at"],
    facts.PROPOSER: lambda fields: fields.get("proposer"),
    facts.VERDICT: lambda fields: "baseline" if fields["type"] == "baseline_measured" else fields.get("verdict"),
    facts.TRAINED: lambda fields: _trained(fields, "wall_s"),
    facts.PREDICTED: lambda fields: _predicted(fields, "wall_s"),
    facts.CPU: _cpu,
    facts.ACCELERATED: lambda fields: (
        None if fields.get("accelerator_peak_bytes") is None else _trained(fields, "wall_s")
    ),
    facts.PREDICTED_WALL_S: lambda fields: _predicted(fields, "wall_s") / 1e6,
    facts.PREDICTED_CPU_S: lambda fields: _predicted(fields, "cpu_s") / 1e6,
}
"""What the expressions of `ledger.facts` say that are more than a path, for events that happened here."""
_COALESCE = re.compile(r"coalesce\(([\w.]+), (?:told|about)\.\w+\)")


@cache
def _reader(says: str, kind: str) -> Callable[[Fields], Any]:
    """What an expression of `ledger.facts` gives for one event."""
    if says in _COMPUTED:
        return _COMPUTED[says]
    if native := _COALESCE.fullmatch(says):
        says = native[1]
    first, *rest = says.split(".")

    def read(fields: Fields) -> Any:
        value = fields.get(first)
        for name in rest:
            value = None if value is None else value[name]
        return float(value) if kind == "DOUBLE" and value is not None else value

    return read
