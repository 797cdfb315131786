"""`labtrail export`: tables that DuckDB reads as a fleet, JSON Lines, and refusals that leave nothing behind."""

import csv
import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import labtrail
from ledger.analysis import Ledger
from ledger.export.places import CARD
from ledger.log import EventLog, LedgerError
from tests.campaigns import write_campaign


def written(path: Path, seed: int = 0, trials: int = 9) -> Path:
    with EventLog.create(path) as log:
        write_campaign(log, name="toy-1", trials=trials, seed=seed)
    return path


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("export") / "toy.db")


def export(ledger: Path, *arguments: str | Path) -> str:
    done = CliRunner().invoke(labtrail.cli, ["export", "--ledger", str(ledger), *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_many_ledgers_are_one_table_through_a_glob(ledger: Path, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet"
    fleet.mkdir()
    other = written(tmp_path / "other.db", seed=1, trials=3)
    export(ledger, "--parquet", fleet / "one")
    export(other, "--parquet", fleet / "two")
    answer = duckdb.sql(
        f"SELECT ledger, count(*) FROM '{fleet}/*/trials.parquet' GROUP BY ledger ORDER BY 2"
    ).fetchall()
    assert [count for _, count in answer] == [4, 10]
    assert len({name for name, _ in answer}) == 2
    with Ledger.open(ledger) as opened:
        for name in opened.names:
            table = pq.read_table(fleet / "one" / f"{name}.parquet")
            assert table.drop_columns("ledger").to_pylist() == opened.sql(f"FROM {name}").records()
    card = json.loads((fleet / "one" / CARD).read_text())
    with EventLog.read_only(ledger) as log:
        assert (card["events"], card["root"]) == (log.size, log.head().root.hex())


def test_csv_holds_the_same_rows(ledger: Path, tmp_path: Path) -> None:
    export(ledger, "--csv", tmp_path / "csv")
    with (tmp_path / "csv" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with Ledger.open(ledger) as opened:
        wanted = opened.trials().records()
    assert [row["verdict"] or None for row in rows] == [row["verdict"] for row in wanted]
    assert [float(row["score"]) if row["score"] else None for row in rows] == [row["score"] for row in wanted]


def test_every_event_is_a_line_with_its_texts_in_place(ledger: Path, tmp_path: Path) -> None:
    export(ledger, "--jsonl", tmp_path / "events.jsonl", "--as-of", "40")
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    with EventLog.read_only(ledger) as log:
        assert [line["leaf"] for line in lines] == [leaf.hex() for _, _, leaf in log.entries(0, 40)]
        for line, event in zip(lines, log.events(0, 40), strict=True):
            assert (line["seq"], line["type"], line["actor"]) == (event.seq, event.type, event.actor)
            assert line["body"] == event.body.model_dump(mode="json")


def test_a_folder_of_the_same_ledger_is_written_again_and_no_other(ledger: Path, tmp_path: Path) -> None:
    target = tmp_path / "tables"
    export(ledger, "--parquet", target, "--as-of", "30")
    export(ledger, "--parquet", target)
    with EventLog.read_only(ledger) as log:
        assert json.loads((target / CARD).read_text())["events"] == log.size
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(LedgerError, match="another ledger"):
        export(written(tmp_path / "other.db", trials=1), "--parquet", target)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(LedgerError, match=r"notes\.txt"):
        export(ledger, "--parquet", target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {**before, "notes.txt": b"mine"}


@pytest.mark.parametrize("form", ["--parquet", "--csv", "--jsonl", "--git"])
def test_nothing_foreign_is_written_over(ledger: Path, tmp_path: Path, form: str) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    file.write_text("mine")
    for target in (folder, file):
        with pytest.raises(LedgerError, match="found"):
            export(ledger, form, target)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "thesis.tex"]
    assert file.read_text() == (folder / "thesis.tex").read_text() == "mine"


def test_a_failure_on_the_way_leaves_nothing(ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        export(ledger, "--csv", tmp_path / "csv")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_a_free_name_and_a_missing_parent_is_one_line(ledger: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export(ledger, "--csv", tmp_path / "empty")
    assert (tmp_path / "empty" / "trials.csv").exists()
    with pytest.raises(LedgerError, match="cannot be made"):
        export(ledger, "--csv", tmp_path / "no" / "such" / "place")


def test_an_export_needs_a_form(ledger: Path) -> None:
    assert CliRunner().invoke(labtrail.cli, ["export", "--ledger", str(ledger)]).exit_code == 2
