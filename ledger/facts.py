"""The typed tables that the log is folded into, and the statements that take a batch of entries in.

A batch is parsed once into `facts.batch`, and every statement reads it from there. A row is only ever added to: the
first value that an event gave stands, but of observations the last; counts and sums are of whole numbers (microseconds,
nano-dollars). So the rows are the same however the log is split into batches.
"""

import json
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from ledger.bodies import BODIES
from ledger.parts import Count, Decimal, Seconds
from ledger.texts import REDACTABLE


class How(StrEnum):
    """How a column of a folded row takes what a new batch says."""

    FIRST = "any_value({})"
    SUM = "coalesce(sum({}), 0)::BIGINT"
    COUNT = "count({})"
    LEAST = "min({})"
    MOST = "max({})"
    LAST = "max_by({}, seq)"


_MERGED = {
    How.FIRST: "coalesce(old.{0}, new.{0})",
    How.SUM: "old.{0} + new.{0}",
    How.COUNT: "old.{0} + new.{0}",
    How.LEAST: "least(old.{0}, new.{0})",
    How.MOST: "greatest(old.{0}, new.{0})",
    How.LAST: "coalesce(new.{0}, old.{0})",
}


@dataclass(frozen=True)
class Column:
    """One column of a folded table: what of an event it holds, of events of these types or of any."""

    name: str
    type: str
    says: str
    how: How = How.FIRST
    of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fold:
    """A table with one row a key, into which every event with that key is merged."""

    table: str
    key: tuple[tuple[str, str, str], ...]
    """Name, type, and where an event has it; an event without the last one is not of this table."""
    columns: tuple[Column, ...]

    @property
    def ddl(self) -> str:
        """The empty table."""
        columns = [f"{name} {kind}" for name, kind, _ in self.key]
        return f"CREATE TABLE {self.table} ({', '.join(columns + [f'{c.name} {c.type}' for c in self.columns])})"

    @property
    def take(self) -> str:
        """Merge the batch."""
        names = [name for name, _, _ in self.key]
        told = [f"{says} AS {name}" for name, _, says in self.key]
        for column in self.columns:
            when = f" FILTER (type IN {_listed(column.of)})" if column.of else ""
            value = column.how.value.format(column.says)
            if when and column.how is How.SUM:
                value = f"coalesce(sum({column.says}){when}, 0)::BIGINT"
                when = ""
            told.append(f"{value}{when} AS {column.name}")
        merged = ", ".join(f"{c.name} = {_MERGED[c.how].format(c.name)}" for c in self.columns)
        return (
            f"MERGE INTO {self.table} AS old USING (SELECT {', '.join(told)} FROM facts.batch "
            f"WHERE {self.key[-1][2]} IS NOT NULL GROUP BY {', '.join(says for _, _, says in self.key)}) AS new "
            f"ON {' AND '.join(f'old.{name} = new.{name}' for name in names)} "
            f"WHEN MATCHED THEN UPDATE SET {merged} WHEN NOT MATCHED THEN INSERT BY NAME"
        )


@dataclass(frozen=True)
class Record:
    """A table with one row an event of these types."""

    table: str
    columns: tuple[tuple[str, str, str], ...]
    """Name, type, and where an event has it."""
    of: tuple[str, ...] = ()
    each: str | None = None
    """The map of the event that gives one row an entry, as `measured`."""
    only: str = ""
    """A further condition on the event."""

    @property
    def ddl(self) -> str:
        """The empty table."""
        return f"CREATE TABLE {self.table} ({', '.join(f'{name} {kind}' for name, kind, _ in self.columns)})"

    @property
    def take(self) -> str:
        """Add the batch."""
        where = f" WHERE type IN {_listed(self.of)}" if self.of else ""
        where += f" AND ({self.only})" if self.only else ""
        told = ", ".join(says for _, _, says in self.columns)
        source = (
            f"(SELECT *, unnest(map_entries({self.each})) AS measured FROM facts.batch)" if self.each else "facts.batch"
        )
        return f"INSERT INTO {self.table} SELECT {told} FROM {source}{where}"


def _listed(kinds: tuple[str, ...]) -> str:
    return "(" + ", ".join(f"'{kind}'" for kind in kinds) + ")"


def _trained(clock: str) -> str:
    return f"floor(train.{clock} * 1e6 + 0.5)::BIGINT"


def _predicted(clock: str) -> str:
    return f"coalesce(list_sum(list_transform(predict, lambda p: floor(p.{clock} * 1e6 + 0.5)::BIGINT)), 0)"


PAID = "floor(usd * 1e9 + 0.5)::BIGINT"
WAITED = "floor(latency_s * 1e6 + 0.5)::BIGINT"
VERDICT = "CASE type WHEN 'baseline_measured' THEN 'baseline' ELSE coalesce(verdict, told.verdict) END"
TRUST = "CASE WHEN told.score IS NOT NULL THEN 'self_reported' ELSE trust END"
TOLD = "floor(told.seconds * 1e6 + 0.5)::BIGINT"
AT = "CASE type WHEN 'record_imported' THEN try_cast(told.\"at\" AS TIMESTAMP) ELSE recorded_at END"
PROPOSER = "CASE type WHEN 'record_imported' THEN actor ELSE proposer END"
TRAINED = _trained("wall_s")
PREDICTED = _predicted("wall_s")
CPU = f"{_trained('cpu_s')} + {_predicted('cpu_s')}"
ACCELERATED = f"CASE WHEN accelerator_peak_bytes IS NOT NULL THEN {TRAINED} END"
PREDICTED_WALL_S = f"{PREDICTED} / 1e6"
PREDICTED_CPU_S = f"{_predicted('cpu_s')} / 1e6"
_JUDGED = ("verdict_reached", "baseline_measured", "record_imported")
_PROPOSED = ("hypothesis_proposed", "record_imported")

EVENTS = Record(
    "events",
    (
        ("seq", "BIGINT NOT NULL", "seq"),
        ("campaign", "VARCHAR", "campaign"),
        ("trial", "BIGINT", "trial"),
        ("type", "VARCHAR NOT NULL", "type"),
        ("version", "INTEGER NOT NULL", "version"),
        ("actor", "VARCHAR NOT NULL", "actor"),
        ("recorded_at", "TIMESTAMP NOT NULL", "recorded_at"),
    ),
)
CAMPAIGNS = Record(
    "facts.campaigns",
    (
        ("seq", "BIGINT", "seq"),
        ("campaign", "VARCHAR", "campaign"),
        ("type", "VARCHAR", "type"),
        ("recorded_at", "TIMESTAMP", "recorded_at"),
        ("task", "VARCHAR", "coalesce(task, about.name)"),
        *((name, "VARCHAR", f"coalesce({name}, about.{name})") for name in ("metric", "unit", "direction")),
        ("proposer", "VARCHAR", PROPOSER),
        *((name, "VARCHAR", name) for name in ("isolation", "program", "reason", "detail")),
        ("epoch", 'STRUCT(task VARCHAR, evaluator VARCHAR, "data" VARCHAR, environment VARCHAR)', "epoch"),
    ),
    ("campaign_started", "campaign_resumed", "campaign_stopped", "record_imported"),
    only="type <> 'record_imported' OR about IS NOT NULL",
)
SESSIONS = Fold(
    "facts.sessions",
    (("campaign", "VARCHAR", "campaign"), ("session", "VARCHAR", "session")),
    (
        Column("specialist", "VARCHAR", "specialist"),
        Column("domain", "VARCHAR", "domain"),
        Column("proposer", "VARCHAR", "proposer"),
        Column("model", "VARCHAR", "model", of=("session_started",)),
        Column("started_at", "TIMESTAMP", "recorded_at", of=("session_started",)),
        Column("ended_at", "TIMESTAMP", "recorded_at", of=("session_ended",)),
        Column("outcome", "VARCHAR", "outcome"),
        Column("detail", "VARCHAR", "detail", of=("session_ended",)),
        Column("as_of", "BIGINT", "as_of"),
        Column("trial", "BIGINT", "trial", of=("hypothesis_proposed",)),
        Column("model_calls", "BIGINT", "*", How.COUNT, ("model_called",)),
        Column("input_tokens", "BIGINT", "input_tokens", How.SUM),
        Column("output_tokens", "BIGINT", "output_tokens", How.SUM),
        Column("nano_usd", "BIGINT", PAID, How.SUM),
        Column("latency_us", "BIGINT", WAITED, How.SUM),
    ),
)
TRIALS = Fold(
    "facts.trials",
    (("campaign", "VARCHAR", "campaign"), ("trial", "BIGINT", "trial")),
    (
        Column("session", "VARCHAR", "session"),
        Column("specialist", "VARCHAR", "coalesce(specialist, told.specialist)"),
        Column("claimed_domain", "VARCHAR", "coalesce(claimed_domain, told.claimed_domain)"),
        Column("parent", "BIGINT", "coalesce(parent, told.parent)"),
        Column("operator", "VARCHAR", "operator"),
        Column("hypothesis", "VARCHAR", "coalesce(hypothesis, told.hypothesis)"),
        Column("rationale", "VARCHAR", "coalesce(rationale, told.notes)"),
        Column("expected_delta", "DOUBLE", "coalesce(expected_delta, told.expected_delta)"),
        Column("proposed_at", "TIMESTAMP", AT, of=_PROPOSED),
        Column("recipe", "VARCHAR", "recipe"),
        Column("program", "VARCHAR", "program"),
        Column("diff", "VARCHAR", "diff"),
        Column(
            "observed",
            "STRUCT(observed_domain VARCHAR, kind VARCHAR, strict_arch BOOLEAN, undeclared VARCHAR[])",
            "row(observed_domain, kind, strict_arch, undeclared)",
            How.LAST,
            ("domain_observed",),
        ),
        Column("verdict", "VARCHAR", VERDICT),
        Column("label", "VARCHAR", "coalesce(label, told.label)", of=_JUDGED),
        Column("reason", "VARCHAR", "reason", of=_JUDGED),
        Column("score", "DOUBLE", "coalesce(score.mean, told.score)", of=_JUDGED),
        Column("score_std", "DOUBLE", "coalesce(score.std, told.score_std)", of=_JUDGED),
        Column("score_n", "BIGINT", "coalesce(score.n, told.score_n)", of=_JUDGED),
        Column("champion", "BIGINT", "champion"),
        Column("gain", "DOUBLE", "gain"),
        Column("p_value", "DOUBLE", "p_value"),
        Column("decided_at", "TIMESTAMP", AT, of=_JUDGED),
        Column("abandoned_at", "TIMESTAMP", "recorded_at", of=("trial_abandoned",)),
        Column("trust_least", "VARCHAR", TRUST, How.LEAST),
        Column("trust_most", "VARCHAR", TRUST, How.MOST),
        Column("refusals", "BIGINT", "*", How.COUNT, ("trial_rejected",)),
        Column("runs", "BIGINT", "*", How.COUNT, ("run_started",)),
        Column("runs_finished", "BIGINT", "*", How.COUNT, ("run_finished",)),
        Column("artifacts", "BIGINT", "artifact", How.COUNT, ("run_finished",)),
        Column("scores", "BIGINT", "*", How.COUNT, ("score_recorded",)),
        Column("runs_failed", "BIGINT", "run", How.COUNT, ("failure_labelled",)),
        Column("train_us", "BIGINT", TRAINED, How.SUM),
        Column("predict_us", "BIGINT", PREDICTED, How.SUM),
        Column("cpu_us", "BIGINT", CPU, How.SUM),
        Column(
            "accelerator_us",
            "BIGINT",
            ACCELERATED,
            How.SUM,
        ),
        Column("told_us", "BIGINT", TOLD, How.SUM),
        Column("replicates", "BIGINT", "*", How.COUNT, ("replicate_requested",)),
        Column("certifications", "BIGINT", "*", How.COUNT, ("certification_recorded",)),
        Column("corrections", "BIGINT", "*", How.COUNT, ("correction_recorded",)),
        Column("records", "BIGINT", "*", How.COUNT, ("record_imported",)),
    ),
)
RUNS = Record(
    "facts.runs",
    (
        ("campaign", "VARCHAR", "campaign"),
        ("trial", "BIGINT", "trial"),
        ("run", "BIGINT", "run"),
        ("type", "VARCHAR", "type"),
        ("recorded_at", "TIMESTAMP", "recorded_at"),
        ("seed", "BIGINT", "seed"),
        ("attempt", "BIGINT", "attempt"),
        ("runner", "VARCHAR", "runner"),
        ("isolation", "VARCHAR", "isolation"),
        ("exit_code", "BIGINT", "train.exit_code"),
        ("signal", "BIGINT", "train.signal"),
        ("killed_for", "VARCHAR", "train.killed_for"),
        ("train_wall_s", "DOUBLE", "train.wall_s"),
        ("train_cpu_s", "DOUBLE", "train.cpu_s"),
        ("predict_wall_s", "DOUBLE", PREDICTED_WALL_S),
        ("predict_cpu_s", "DOUBLE", PREDICTED_CPU_S),
        ("max_rss_bytes", "BIGINT", "train.max_rss_bytes"),
        ("accelerator_peak_bytes", "BIGINT", "accelerator_peak_bytes"),
        ("artifact", "VARCHAR", "artifact"),
        ("artifact_bytes", "BIGINT", "artifact_bytes"),
        ("log", "VARCHAR", "log"),
        ("load_1m", "DOUBLE", "load_1m"),
        ("label", "VARCHAR", "label"),
        ("detail", "VARCHAR", "detail"),
    ),
    ("run_started", "run_finished", "failure_labelled"),
)
SCORES = Record(
    "facts.scores",
    (
        ("campaign", "VARCHAR", "campaign"),
        ("trial", "BIGINT", "trial"),
        ("run", "BIGINT", "run"),
        ("seed", "BIGINT", "seed"),
        ("metric", "VARCHAR", "measured.key"),
        ("value", "DOUBLE", "measured.value"),
        ("trust", "VARCHAR", "trust"),
    ),
    ("score_recorded",),
    "metrics",
)
PATHS_DDL = "CREATE TABLE facts.paths (campaign VARCHAR, trial BIGINT, depth BIGINT, path BIGINT[])"
"""Ancestors of every trial that has children: the path of a leaf is its parent's and itself."""
TAKE_PATHS = """
INSERT INTO facts.paths
WITH RECURSIVE
  fresh AS (
    SELECT DISTINCT campaign, coalesce(parent, told.parent) AS trial FROM facts.batch
    WHERE type IN ('hypothesis_proposed', 'record_imported') AND coalesce(parent, told.parent) < trial
    EXCEPT SELECT campaign, trial FROM facts.paths),
  linked AS (
    SELECT f.campaign, f.trial, t.parent
    FROM fresh f JOIN facts.trials t ON t.campaign = f.campaign AND t.trial = f.trial),
  ancestry AS (
    SELECT l.campaign, l.trial, coalesce(p.depth + 1, 0) AS depth, list_append(coalesce(p.path, []), l.trial) AS path
    FROM linked l LEFT JOIN facts.paths p ON p.campaign = l.campaign AND p.trial = l.parent
    WHERE l.parent IS NULL OR p.trial IS NOT NULL
    UNION ALL
    SELECT l.campaign, l.trial, a.depth + 1, list_append(a.path, l.trial)
    FROM linked l JOIN ancestry a ON l.campaign = a.campaign AND l.parent = a.trial AND l.parent < l.trial)
SELECT campaign, trial, depth, path FROM ancestry
"""

RECORDS = (EVENTS, CAMPAIGNS, RUNS, SCORES)
FOLDS = (SESSIONS, TRIALS)
TAKES: tuple[tuple[str, frozenset[str] | None], ...] = (
    (EVENTS.take, None),
    (CAMPAIGNS.take, frozenset(CAMPAIGNS.of)),
    (SESSIONS.take, frozenset(body.TYPE for body in BODIES if "session" in body.model_fields)),
    (TRIALS.take, None),
    (RUNS.take, frozenset(RUNS.of)),
    (SCORES.take, frozenset(SCORES.of)),
    (TAKE_PATHS, frozenset(_PROPOSED)),
)
"""Statement, and the types of events that it is about (None: any), in the order to run them."""


def schema() -> str:
    """Every table, empty."""
    batch = ", ".join(f"{name} {_sql(kind)}" for name, kind in {**ENVELOPE, **_body()}.items())
    made = (
        "CREATE SCHEMA facts",
        *(table.ddl for table in (*RECORDS, *FOLDS)),
        PATHS_DDL,
        f"CREATE TABLE facts.batch ({batch})",
    )
    return ";\n".join(made)


ARRIVED = "arrived"
"""Name of the Arrow table that a batch is handed over in: columns `entry` and `texts`, of text."""


def parse() -> str:
    """The statement that fills `facts.batch` from the table ARRIVED: entries and the texts beside them."""
    texts = dict.fromkeys(_texts(), "VARCHAR")
    told = [f"e.{name}" for name in ENVELOPE]
    for name in _body():
        of = _texts().get(name)
        # A withheld text is NULL, not the digest that stands for it in the entry.
        told.append(
            f"CASE WHEN e.type IN {_listed(of)} THEN t.{name} ELSE e.body.{name} END" if of else f"e.body.{name}"
        )
    entry = {**ENVELOPE, "body": _body()}
    return (
        f"INSERT INTO facts.batch SELECT {', '.join(told)} FROM ("
        f"SELECT from_json(entry, '{json.dumps(entry)}') AS e, from_json(texts, '{json.dumps(texts)}') AS t "
        f"FROM {ARRIVED})"
    )


@cache
def _texts() -> dict[str, tuple[str, ...]]:
    """Fields that stand beside the entry, and the types of events where they do."""
    found: dict[str, tuple[str, ...]] = {}
    for model, names in REDACTABLE.items():
        for name in names:
            found[name] = (*found.get(name, ()), model.TYPE)
    return found


Kind = str | list["Kind"] | dict[str, "Kind"]
"""A DuckDB type as `from_json` wants it: a name, a list of one, or a struct."""


ENVELOPE: dict[str, Kind] = {
    "seq": "BIGINT",
    "campaign": "VARCHAR",
    "trial": "BIGINT",
    "type": "VARCHAR",
    "version": "INTEGER",
    "actor": "VARCHAR",
    "recorded_at": "TIMESTAMP",
}


@cache
def _body() -> dict[str, Kind]:
    """The fields of bodies that a statement uses; a name means the same type in every body."""
    used = set(re.findall(r"\w+", " ".join(take for take, _ in TAKES)))
    body: dict[str, Kind] = {}
    for model in BODIES:
        for name in model.model_fields.keys() & used:
            kind = _kind(model.__annotations__[name])
            if body.setdefault(name, kind) != kind:
                raise ValueError(f"field {name} is of two types: {body[name]} and {kind} in {model.TYPE}")
    return body


def _kind(annotation: Any) -> Kind:
    """The DuckDB type of a field."""
    if annotation in (Decimal, Seconds):
        return "DOUBLE"
    if annotation == Count:
        return "BIGINT"
    if hasattr(annotation, "__metadata__"):
        return _kind(annotation.__origin__)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _kind(next(argument for argument in arguments if argument is not types.NoneType))
    if origin is tuple:
        return [_kind(arguments[0])]
    if origin is Mapping:
        return f"MAP(VARCHAR, {_sql(_kind(arguments[1]))})"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {name: _kind(annotation.__annotations__[name]) for name in annotation.model_fields}
    return {int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}.get(annotation, "VARCHAR")


def _sql(kind: Kind) -> str:
    if isinstance(kind, list):
        return f"{_sql(kind[0])}[]"
    if isinstance(kind, dict):
        return "STRUCT(" + ", ".join(f'"{name}" {_sql(part)}' for name, part in kind.items()) + ")"
    return kind
