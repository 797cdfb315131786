"""`labtrail sql`: every form of answer, several ledgers, the library, the prompt, and bad input in one line."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import labtrail
from ledger.analysis import Ledger
from ledger.answers import csv_of, markdown_of, unique_names
from ledger.log import EventLog, LedgerError
from ledger.named import library
from ledger.views import QueryError
from tests.campaigns import write_campaign

TRIALS = 17


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sql") / "toy.db"
    with EventLog.create(path) as log:
        write_campaign(log, name="toy-1", trials=TRIALS, seed=0)
    return path


@pytest.fixture(scope="module")
def fleet(ledger: Path) -> list[Path]:
    """The ledger, and another one whose campaign has the same name."""
    other = ledger.with_name("zoo.db")
    with EventLog.create(other) as log:
        write_campaign(log, name="toy-1", trials=3, seed=5)
    return [ledger, other]


def sql(*arguments: str | Path) -> Result:
    return CliRunner().invoke(labtrail.cli, ["sql", *map(str, arguments)])


def program(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "labtrail", "sql", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, stdin=subprocess.DEVNULL, env={**os.environ, **environment}, check=False
    )


def test_csv_and_json_read_back_as_the_rows(ledger: Path) -> None:
    query = "SELECT trial, verdict, score, hypothesis FROM trials ORDER BY trial"
    with Ledger.open(ledger) as opened:
        wanted = opened.sql(query).records()
    assert json.loads(sql(query, "--ledger", ledger, "--format", "json").output) == wanted
    read = list(csv.DictReader(io.StringIO(sql(query, "--ledger", ledger, "--format", "csv").output)))
    assert [float(row["score"]) if row["score"] else None for row in read] == [row["score"] for row in wanted]
    assert len(wanted) == TRIALS + 1


def test_json_has_no_nan_and_no_key_twice(ledger: Path) -> None:
    query = "SELECT 'nan'::DOUBLE AS a, ['inf'::DOUBLE, 1] AS b, 7 AS a, now() AS t, {'x': 1.5::DECIMAL(3, 1)} AS s"

    def refuse(name: str) -> None:
        raise AssertionError(name)

    (row,) = json.loads(sql(query, "--ledger", ledger, "--format", "json").output, parse_constant=refuse)
    assert row["a"] is None
    assert row["b"] == [None, 1.0]
    assert row["a_1"] == 7
    assert row["s"] == {"x": "1.5"}


def test_names_given_twice_become_different() -> None:
    assert unique_names(["a", "a", "a_1", "b", "a"]) == ["a", "a_1", "a_1_1", "b", "a_2"]


def test_markdown_keeps_hostile_text_in_its_cell(ledger: Path) -> None:
    with Ledger.open(ledger) as opened:
        text = markdown_of(opened.sql("SELECT 'a|b' || chr(10) || '<script>' || chr(27) || '[2J' AS t, 1 AS n").arrow)
    assert text.splitlines() == ["| t | n |", "| --- | --: |", "| a\\|b�\\<script\\>�\\[2J | 1 |"]


def test_csv_on_a_terminal_has_no_control_characters_and_in_a_file_all(ledger: Path) -> None:
    with Ledger.open(ledger) as opened:
        answer = opened.sql("SELECT 'red' || chr(27) || '[31m' AS t").arrow
    assert csv_of(answer) == "t\nred\x1b[31m\n"
    assert "\x1b" not in csv_of(answer, for_terminal=True)


@pytest.mark.parametrize("form", ["table", "csv", "json", "markdown"])
def test_out_writes_what_stdout_would_show(ledger: Path, tmp_path: Path, form: str) -> None:
    query = "SELECT trial, verdict FROM trials"
    target = tmp_path / "answer"
    assert sql(query, "--ledger", ledger, "--format", form, "--out", target).exit_code == 0
    assert target.read_text() == sql(query, "--ledger", ledger, "--format", form).output
    assert list(tmp_path.iterdir()) == [target]


def test_parquet_goes_to_a_new_file_with_its_types(ledger: Path, tmp_path: Path) -> None:
    target = tmp_path / "trials.parquet"
    assert sql("FROM trials", "--ledger", ledger, "--format", "parquet", "--out", target).exit_code == 0
    read = pq.read_table(target)
    assert read.num_rows == TRIALS + 1
    assert str(read.schema.field("proposed_at").type) == "timestamp[us]"
    again = program("FROM trials", "--ledger", ledger, "--format", "parquet", "--out", target)
    assert again.returncode == 2
    assert again.stderr.count(b"\n") == 1
    assert pq.read_table(target) == read
    assert sql("FROM trials", "--ledger", ledger, "--format", "parquet").exit_code == 2


def test_a_query_comes_from_a_file_or_a_pipe(ledger: Path, tmp_path: Path) -> None:
    file = tmp_path / "count.sql"
    file.write_text("-- how many\nSELECT count(*) AS n FROM trials;\n")
    wanted = f"n\n{TRIALS + 1}\n"
    assert sql("--file", file, "--ledger", ledger, "--format", "csv").output == wanted
    piped = CliRunner().invoke(
        labtrail.cli, ["sql", "--ledger", str(ledger), "--format", "csv"], input="SELECT count(*) AS n FROM trials"
    )
    assert piped.output == wanted
    assert sql("SELECT 1", "--file", file, "--ledger", ledger).exit_code == 2


def test_several_ledgers_have_a_column_that_says_which(fleet: list[Path]) -> None:
    with Ledger.open(*fleet) as opened:
        counts = opened.sql("SELECT ledger, count(*) AS n FROM trials GROUP BY ledger ORDER BY ledger").records()
        assert counts == [{"ledger": str(fleet[0]), "n": TRIALS + 1}, {"ledger": str(fleet[1]), "n": 4}]
        for name in opened.names:
            assert opened.sql(f"FROM {name}").arrow.column_names[0] == "ledger"
        # Its campaign has the same name in both: a named query keeps them apart.
        champions = opened.named("champions").records()
        assert {row["ledger"] for row in champions} == {str(path) for path in fleet}
        assert [row["trial"] for row in champions if row["ledger"] == str(fleet[1])] == [0, 1]
    pattern = str(fleet[0].with_name("*.db"))
    shown = sql("SELECT count(DISTINCT ledger) FROM runs", "--ledger", pattern, "--ledger", fleet[0], "--format", "csv")
    assert shown.output.splitlines()[1] == "2"


def test_several_ledgers_follow_their_writers(fleet: list[Path], tmp_path: Path) -> None:
    growing = tmp_path / "growing.db"
    with EventLog.create(growing) as log:
        write_campaign(log, name="toy-1", trials=2)
        with Ledger.open(fleet[0], growing) as opened:
            query = "SELECT count(*) AS n FROM campaigns"
            assert opened.sql(query).records() == [{"n": 2}]
            write_campaign(log, name="toy-2", trials=2)
            assert opened.sql(query).records() == [{"n": 2}]
            opened.refresh()
            assert opened.sql(query).records() == [{"n": 3}]


def test_as_of_shows_the_first_events(ledger: Path, fleet: list[Path]) -> None:
    assert sql("SELECT count(*) FROM events", "--ledger", ledger, "--as-of", "9", "--format", "csv").output == (
        "count_star()\n9\n"
    )
    with Ledger.open(*fleet, as_of=9) as opened:
        assert opened.sql("SELECT count(*) AS n FROM events").records() == [{"n": 18}]


@pytest.mark.parametrize("name", library())
def test_every_named_query_has_a_title_and_an_answer_with_sense(ledger: Path, name: str) -> None:
    assert library()[name].title.endswith(".")
    with Ledger.open(ledger) as opened:
        rows = opened.named(name).records()
        assert rows == opened.sql(library()[name].sql).records()
    # Nothing of this campaign nearly won; every other question has an answer.
    assert bool(rows) is (name != "near_misses")
    listed = sql("--list").output
    assert f"@{name}" in listed
    assert library()[name].title in listed


def test_named_queries_agree_with_the_views(ledger: Path) -> None:
    with Ledger.open(ledger) as opened:
        trials = opened.trials().records()
        judged = [row for row in trials if row["trial"] and row["verdict"]]
        kept = {row["specialist"]: row["kept"] for row in opened.named("yield").records()}
        for specialist, count in kept.items():
            assert count == sum(row["verdict"] == "kept" for row in judged if row["specialist"] == specialist)
        labels = sum(row["trials"] for row in opened.named("failures").records())
        assert labels == sum(row["label"] is not None for row in trials)
        spent = sum(row["seconds"] for row in opened.named("cost").records())
        assert spent == pytest.approx(sum(row["seconds"] for row in trials))
        hits = {row["specialist"]: row["sign_hits"] for row in opened.named("calibration").records()}
        moved = [row for row in judged if row["specialist"] == "opt" and row["delta_parent"] is not None]
        assert hits["opt"] == pytest.approx(sum(row["delta_parent"] < 0 for row in moved) / len(moved), abs=1e-3)
        again = [trial for row in opened.named("duplicates").records() for trial in row["again"]]
        assert again == [row["trial"] for row in trials if row["label"] == "duplicate_recipe"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT verdictt FROM trials", 'Candidate bindings: "verdict"'),
        ("FROM trialz", '"trials"'),
        ("DELETE FROM events", "read-only"),
        ("COPY trials TO 'x.csv'", "read-only"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("", "one SELECT"),
        ("SELEC 1", "syntax error"),
        ("@championz", "champions"),
        ("FROM read_csv('/etc/passwd')", "disabled"),
        ("FROM ledgers", "ledgers"),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_a_wrong_query_is_one_line_that_helps(fleet: list[Path], query: str, said: str, several: bool) -> None:
    with Ledger.open(*fleet[: 2 if several else 1]) as opened, pytest.raises(QueryError, match=said) as caught:
        opened.named(query[1:]) if query.startswith("@") else opened.sql(query)
    assert "\n" not in str(caught.value)


def test_a_ledger_that_cannot_be_read_is_one_line_and_exit_code_2(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = ledger.read_bytes()
    cases = {
        "missing.db": None,
        "empty.db": b"",
        "text.db": b"not a ledger\n" * 100,
        "cut.db": content[: len(content) // 2],
        "newer.db": content[:60] + (99).to_bytes(4, "big") + content[64:],
        "blank.db": content[:8192] + bytes(len(content) - 8192),
    }
    for name, damaged in cases.items():
        if damaged is not None:
            (tmp_path / name).write_bytes(damaged)
        monkeypatch.setattr(
            "sys.argv", ["labtrail", "sql", "SELECT count(*) FROM trials", "--ledger", f"{tmp_path / name}"]
        )
        with pytest.raises(SystemExit) as stop:
            labtrail.main()
        shown = capsys.readouterr()
        assert stop.value.code == 2, name
        assert shown.out == ""
        assert shown.err.count("\n") == 1, f"{name}: {shown.err!r}"
        assert name in shown.err
    with pytest.raises(LedgerError, match="no file has such a name"):
        Ledger.open(tmp_path / "none-*.db")


@pytest.mark.parametrize("form", ["table", "csv"])
def test_a_reader_that_goes_away_ends_the_program_with_141_and_no_word(ledger: Path, form: str) -> None:
    query = "SELECT repeat('x', 1000) FROM range(2000)"
    command = [sys.executable, "-m", "labtrail", "sql", query, "--ledger", str(ledger), "--format", form]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(60) == 141


def test_a_short_answer_to_a_closed_pipe_ends_with_141_too(ledger: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "labtrail", "sql", "SELECT 1", "--format", "csv", "--ledger", str(ledger)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("form", ["table", "csv"])
def test_an_ascii_terminal_gets_every_character_in_some_form(ledger: Path, form: str) -> None:
    done = program("SELECT 'µ★' AS t", "--ledger", ledger, "--format", form, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert "\\xb5\\u2605" in done.stdout.decode("ascii")


def test_the_prompt_answers_goes_on_after_an_error_and_keeps_its_history(ledger: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "LABTRAIL_HOME": str(tmp_path), "TERM": "dumb"}
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "labtrail", "sql", "--ledger", str(ledger), "--format", "csv"]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, close_fds=True)
    os.close(slave)
    os.write(master, b"SELECT nonsense FROM trials;\nSELECT 40 +\n 2 AS n;\n@trust\nquit\n")
    shown = b""
    while True:
        try:
            shown += os.read(master, 4096)
        except OSError:
            break
    os.close(master)
    assert process.wait(60) == 0
    text = shown.decode()
    assert "nonsense" in text
    assert "\n42\r" in text
    assert "measured" in text
    assert "Traceback" not in text
    history = tmp_path / "sql_history"
    assert "SELECT 40 +" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


def test_a_frame_is_read_by_pandas_polars_and_whatever_takes_arrow(ledger: Path) -> None:
    with labtrail.Ledger.open(ledger) as opened:
        for view in set(opened.names) - {"events", "current_champion"}:
            assert len(getattr(opened, view)()) == opened.sql(f"SELECT count(*) AS n FROM {view}").records()[0]["n"]
        trials = opened.trials()
    assert pa.table(trials) == trials.arrow
    pandas = pytest.importorskip("pandas")
    assert isinstance(trials.df(), pandas.DataFrame)
    assert trials.df()["score"].count() == trials.arrow["score"].drop_null().length()
    polars = pytest.importorskip("polars")
    assert trials.pl().equals(polars.DataFrame(trials))
    assert trials.pl()["verdict"].to_list() == trials.arrow["verdict"].to_pylist()
