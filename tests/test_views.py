"""Views: exact, incremental, as of any event, and equal to the fold of the log."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import dictionary
from ledger.campaign import Campaign
from ledger.events import UPCASTERS
from ledger.log import EventLog
from ledger.views import QueryError, Views
from tests.campaigns import write_campaign

ALL = tuple(dictionary.DOCS)


@pytest.fixture
def filled(log: EventLog) -> EventLog:
    write_campaign(log, name="toy-1", trials=12, seed=0)
    write_campaign(log, name="toy-2", trials=9, seed=1)
    return log


def rows(views: Views) -> dict[str, list[tuple[object, ...]]]:
    return {name: sorted(views.query(f"FROM {name}").rows, key=repr) for name in ALL}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    """A ledger that tests only read."""
    with EventLog.create(tmp_path_factory.mktemp("views") / "kept.db") as log:
        write_campaign(log, name="toy-1", trials=12, seed=0)
        write_campaign(log, name="toy-2", trials=9, seed=1)
        yield log


def tables(views: Views) -> dict[str, list[tuple[object, ...]]]:
    """What is stored, views apart."""
    names = [f"facts.{table}" for table in ("campaigns", "sessions", "trials", "runs", "scores", "paths")]
    return {name: sorted(views.query(f"FROM {name}").rows, key=repr) for name in names}


@pytest.mark.parametrize("few", [0, 10_000])
def test_few_events_and_many_are_taken_alike(kept: EventLog, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    at_once, stepwise = Views.of(kept), Views(kept, threads=1)
    monkeypatch.setattr("ledger.views.FEW", few)
    for position in range(0, kept.size + 41, 41):
        stepwise.catch_up(position)
    assert tables(stepwise) == tables(at_once)
    assert rows(stepwise) == rows(at_once)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_split_into_batches_gives_the_same_rows(kept: EventLog, data: st.DataObject) -> None:
    stop = data.draw(st.integers(1, kept.size))
    cuts = data.draw(st.lists(st.integers(1, stop), max_size=6))
    at_once, stepwise = Views.of(kept, stop), Views(kept, threads=1)
    for position in (*sorted(cuts), stop):
        stepwise.catch_up(position)
    assert stepwise.position == at_once.position == stop
    assert tables(stepwise) == tables(at_once)


def test_a_batch_that_fails_leaves_position_and_rows_as_they_were(
    kept: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for few in (0, 10_000):
        monkeypatch.setattr("ledger.views.FEW", few)
        views = Views(kept)
        views.catch_up(100)
        before = tables(views)
        written = list(kept.written(100, 140))
        broken = written[-1]._replace(entry=written[-1].entry.replace(b'"recorded_at":"2', b'"recorded_at":"x'))
        with monkeypatch.context() as patch:
            patch.setattr(kept, "written", lambda start, stop, rows=(*written[:-1], broken): iter(rows))
            with pytest.raises(QueryError, match="audit verify"):
                views.catch_up()
        assert (views.position, tables(views)) == (100, before)
        views.catch_up()
        assert tables(views) == tables(Views.of(kept))


def test_old_versions_need_no_upcasting_here() -> None:
    for (kind, version), upcast in UPCASTERS.items():
        gained = upcast({}).values()
        assert all(value in (None, {}) for value in gained), f"{kind} {version}: a view shows NULL instead"


def test_every_column_has_its_comment_in_duckdb(kept: EventLog) -> None:
    views = Views.of(kept)
    views.lock_down()
    bare = "SELECT table_name, column_name FROM duckdb_columns() WHERE comment IS NULL AND NOT internal"
    assert views.query(f"{bare} AND schema_name = 'main'").rows == []


def test_trials_are_those_of_the_fold(filled: EventLog) -> None:
    views = Views(filled)
    views.catch_up()
    for name in ("toy-1", "toy-2"):
        campaign = Campaign.replay(name, filled.events(campaign=name))
        found = {row["trial"]: row for row in views.query("FROM trials WHERE campaign = ?", [name]).records()}
        assert found.keys() == campaign.trials.keys()
        for number, trial in campaign.trials.items():
            row = found[number]
            assert row["verdict"] == trial.verdict
            assert row["recipe"] == trial.recipe
            assert row["parent"] == (trial.proposal.parent if trial.proposal else None)
            score = trial.outcome.score if trial.outcome else None
            assert row["score"] == (float(score.mean) if score else None)
            assert row["score_n"] == (score.n if score else None)
        champion = views.query("SELECT champion FROM campaigns WHERE campaign = ?", [name]).rows[0][0]
        assert champion == campaign.champion


def test_a_view_as_of_n_is_the_view_of_the_first_n_events(filled: EventLog, tmp_path: Path) -> None:
    half = filled.size // 2
    early = Views(filled)
    early.catch_up(half)
    assert early.query("SELECT count(*), max(seq) FROM events").rows == [(half, half - 1)]
    later = Views(filled)
    later.catch_up()
    assert rows(early) != rows(later)


def test_the_champion_path_leads_to_the_baseline(filled: EventLog) -> None:
    views = Views(filled)
    views.catch_up()
    path = views.query("SELECT trial FROM lineage WHERE campaign = 'toy-1' AND on_champion_path ORDER BY depth").rows
    champion = views.query("SELECT champion FROM campaigns WHERE campaign = 'toy-1'").rows[0][0]
    assert path[0] == (0,)
    assert path[-1] == (champion,)


@pytest.mark.parametrize("query", ["DELETE FROM events", "CREATE TABLE x (a INT)", "SET threads = 1", "ATTACH 'x.db'"])
def test_only_questions_are_answered(filled: EventLog, query: str) -> None:
    views = Views(filled)
    views.catch_up()
    with pytest.raises(QueryError, match="read-only"):
        views.query(query)
    assert views.query("SELECT count(*) FROM events").rows == [(filled.size,)]


def test_a_damaged_entry_is_one_line_that_names_the_ledger(filled: EventLog) -> None:
    path = filled.path
    filled.close()
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    (entry,) = connection.execute("SELECT entry FROM events WHERE seq = 3").fetchone()
    connection.execute("DROP TRIGGER events_update")
    damaged = entry.replace(b'"recorded_at":"2', b'"recorded_at":"\xff')
    connection.execute("UPDATE events SET entry = CAST(? AS TEXT) WHERE seq = 3", (damaged,))
    connection.commit()
    connection.close()
    with EventLog.read_only(path) as log, pytest.raises(QueryError, match="audit verify"):
        Views(log).catch_up()


def test_locked_views_still_catch_up(filled: EventLog) -> None:
    views = Views(filled)
    views.catch_up(3)
    views.lock_down()
    assert views.catch_up() == filled.size


def test_a_wrong_column_names_the_nearest_ones(filled: EventLog) -> None:
    with pytest.raises(QueryError, match="verdict") as caught:
        Views(filled).query("SELECT verdictt FROM trials")
    assert "\n" not in str(caught.value)
