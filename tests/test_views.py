"""Views: exact, incremental, as of any event, and equal to the fold of the log."""

import sqlite3
from pathlib import Path

import pytest

from ledger import dictionary
from ledger.campaign import Campaign
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


def test_catching_up_in_steps_gives_the_same_rows_as_rebuilding(filled: EventLog) -> None:
    stepwise, at_once = Views(filled), Views(filled)
    for position in range(0, filled.size + 1, 7):
        stepwise.catch_up(position)
    assert stepwise.catch_up() == at_once.catch_up() == filled.size
    assert rows(stepwise) == rows(at_once)


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
