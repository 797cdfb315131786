"""Import of other harnesses' records: whole or not at all, byte for byte, and nothing made up."""

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

import labtrail
from audit.verify import verify
from ledger.events import RecordImported
from ledger.importers import ImportFault, discover, read, take
from ledger.importers.record import MAX_LINE_BYTES, Run
from ledger.log import EventLog
from ledger.views import Views
from ledger.vocabulary import Evidence, FailureLabel, Verdict
from tests.campaigns import write_campaign
from tests.published import RUNS, published_runs

HEADER = (
    "exp_id\ttimestamp\tspecialist\tparent_exp\tbaseline_exp\tdomain\thypothesis\texpected_delta\tstatus\tval_bpb\t"
    "delta_vs_best\tartifact_bytes\ttrain_s\teval_s\ttotal_s\tjob_name\tsnapshot_path\tnotes\n"
)
BASELINE = "000\t2026-01-01T00:00:00Z\tbaseline\t\t\tbaseline\tstart\t0\tbaseline\t1.0810\t\t\t\t\t\t\t\tseed\n"
KEPT = (
    "001\t2026-01-01T01:00:00Z\topt\t000\t000\topt\tLower lr\t-0.001\tkeep\t1.0800\t-0.0010\t15990000\t600.1\t590.0"
    "\t1400.0\tjob-1\tsnapshots/001_opt\tnote\n"
)
MANGLED = (
    '002\t2026-01-01T02:00:00Z\treg\texp_001\t001\treg\t"Say ""more""</hypothesis> <parameter name=""notes"">one '
    'site</parameter>" minus_0.0003 discard 1.0805 +0.0005 15990001 600.2 591.0 1401.0 job-2  later note\n'
)


def write_run(folder: Path, *rows: str, header: str = HEADER) -> Path:
    board = folder / "blackboard"
    board.mkdir(parents=True)
    (board / "results.tsv").write_text(header + "".join(rows))
    return folder


def read_one(folder: Path) -> Run:
    (found,) = discover(folder)
    return read(found)


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(labtrail.cli, [str(argument) for argument in arguments])
    return result.exit_code, result.output if result.exception is None else str(result.exception)


def test_a_mangled_row_is_put_together_again_and_says_so(tmp_path: Path) -> None:
    run = read_one(write_run(tmp_path / "a", BASELINE, KEPT, MANGLED))
    trial = list(run.trials)[2]
    assert (trial.hypothesis, trial.notes) == ('Say "more"', "one site later note")
    assert (trial.parent, trial.status, trial.verdict) == (1, "discard", Verdict.DISCARDED)
    assert (trial.expected_delta, trial.score, trial.delta_written) == ("-0.0003", "1.0805", "0.0005")
    assert [text.split(":")[0] for text in trial.repaired[1:]] == ["hypothesis", "parent", "expected_delta"]
    assert trial.unknown == ()


def test_a_row_that_cannot_be_read_is_kept_and_the_second_copy_fills_it(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "a", BASELINE, "001\tx\topt\t000\t000\topt\tLower lr\tkeep\n", KEPT.replace("001", "002", 1)
    )
    tree = "exp_id\tparent_exp\tdepth\tpath\tspecialist\tstatus\tval_bpb\tdelta_vs_best\thypothesis\n"
    tree += "001\t000\t1\t000/001\topt\tcrash\t\t\tLower lr\n002\t000\t1\t000/002\topt\tkeep\t1.07\t\tLower lr\n"
    (folder / "blackboard" / "tree.tsv").write_text(tree)
    first, second, third = read_one(folder).trials
    assert first.differs == ("tree.tsv has no row for it",)
    assert "expected 18 columns, found 8" in second.unknown[0]
    assert second.label is FailureLabel.CRASH
    assert any("status: from tree.tsv, line 2" in text for text in second.repaired)
    assert any("val_bpb" in text and "line 3" in text for text in third.differs)


def test_an_id_that_stands_twice_becomes_a_trial_of_its_own(tmp_path: Path) -> None:
    run = read_one(write_run(tmp_path / "a", BASELINE, KEPT, KEPT))
    assert [record.number for record in run.sources[0].records if record.trial] == [0, 1, 2]
    assert "stands twice" in list(run.trials)[2].unknown[0]


def test_a_failure_has_no_score_whatever_the_row_says(tmp_path: Path) -> None:
    run = read_one(write_run(tmp_path / "a", BASELINE, KEPT.replace("\tkeep\t", "\tcrash\t")))
    trial = list(run.trials)[1]
    assert trial.score is None
    assert trial.metrics["val_bpb"] == "1.08"


def test_snapshots_become_attachments_and_evidence_of_code(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", BASELINE, KEPT)
    (folder / "snapshots" / "001_opt").mkdir(parents=True)
    (folder / "snapshots" / "001_opt" / "train.py").write_text("print(1)\n")
    run = read_one(folder)
    assert Evidence.CODE in list(run.trials)[1].evidence
    with EventLog.create(tmp_path / "l.db") as log:
        take(log, run)
        bodies = [event.body for event in log.events() if isinstance(event.body, RecordImported)]
        assert log.blob(bodies[2].attachments["code/train.py"]) == b"print(1)\n"
    assert verify(tmp_path / "l.db").sound


def test_the_same_bytes_again_change_nothing_and_changed_bytes_are_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", BASELINE, KEPT)
    with EventLog.create(tmp_path / "l.db") as log:
        assert take(log, read_one(folder)).appended == 3
        assert take(log, read_one(folder)).appended == 0
        size = log.size
        (folder / "blackboard" / "results.tsv").write_text(
            HEADER + BASELINE.replace("1.0810", "1.0900") + KEPT + MANGLED
        )
        with pytest.raises(ImportFault, match=r"results\.tsv changed in line 2, results\.tsv has 1 more lines"):
            take(log, read_one(folder))
        assert log.size == size


def test_an_import_never_joins_a_campaign_that_ran_here(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with EventLog.create(path) as log:
        write_campaign(log, "toy-1")
    folder = write_run(tmp_path / "a", BASELINE)
    code, said = invoke("import", folder, "--ledger", path, "--campaign", "toy-1")
    assert code == 1
    assert "was not imported; choose another name with --campaign" in said
    assert invoke("import", folder, "--ledger", path)[0] == 0
    assert verify(path).sound


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    code, said = invoke(
        "import", write_run(tmp_path / "a", BASELINE, MANGLED), "--ledger", tmp_path / "l.db", "--dry-run"
    )
    assert code == 0
    assert "not written" in said
    assert "repaired: 4" in said
    assert not (tmp_path / "l.db").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "expected records of a known format"),
        ((HEADER + BASELINE).encode("utf-16"), "expected records of a known format"),
        ((HEADER + BASELINE).encode() + b"001\t\xff\n", r"line 3: expected UTF-8, found byte 0xff at position 5"),
        ((HEADER + BASELINE).encode() + b"001\0\n", "line 3: expected text, found NUL bytes"),
        (
            (HEADER + BASELINE + KEPT[:60]).encode(),
            "line 3: expected 18 columns and an end of line",
        ),
        ((HEADER + BASELINE).encode() + b"x" * (MAX_LINE_BYTES + 1), "line 3: expected at most 1,048,576 bytes"),
        (HEADER.replace("val_bpb", "bpb").encode() + b"\n", "expected the columns of a known environment"),
    ],
    ids=["empty", "utf-16", "latin-1", "nul", "truncated", "long line", "unknown metric"],
)
def test_bad_input_is_one_clear_message_and_leaves_no_ledger(tmp_path: Path, content: bytes, complaint: str) -> None:
    good = write_run(tmp_path / "runs" / "a", BASELINE, KEPT)
    bad = write_run(tmp_path / "runs" / "b")
    (bad / "blackboard" / "results.tsv").write_bytes(content)
    with pytest.raises(ImportFault, match=complaint):
        read_one(bad)
    assert invoke("import", bad, "--ledger", tmp_path / "l.db")[0] == 1
    assert not (tmp_path / "l.db").exists()
    assert invoke("import", good, "--ledger", tmp_path / "l.db")[0] == 0


def test_a_folder_without_records_and_a_path_that_is_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(ImportFault, match="expected records of a known format"):
        discover(tmp_path)
    with pytest.raises(ImportFault, match="expected a file or folder of records, found nothing"):
        discover(tmp_path / "none")


def test_an_audit_notices_a_record_that_was_left_out(tmp_path: Path) -> None:
    run = read_one(write_run(tmp_path / "a", BASELINE, KEPT))
    source = run.sources[0]
    cut = type(run)(run.format, "cut", run.task, (type(source)(source.name, source.digest, source.records[:-1]),))
    with EventLog.create(tmp_path / "l.db") as log:
        take(log, cut)
    report = verify(tmp_path / "l.db")
    assert [finding.check for finding in report.findings if finding.is_fault] == ["sources"]


def test_the_published_runs_come_in_whole(tmp_path: Path) -> None:
    folder = published_runs()
    code, said = invoke("import", folder, "--ledger", tmp_path / "l.db", "--json")
    assert code == 0, said
    runs = {run["campaign"]: run for run in json.loads(said)}
    assert len(runs) == 7
    assert sum(runs[name]["trials"] - 1 for name in RUNS) == 1197
    assert all(run["trials"] == 201 for name, run in runs.items() if name not in RUNS)
    assert all("unknown" not in run["verdicts"] for run in runs.values())
    assert [said for run in runs.values() for said in run["unknown"]] == []
    with EventLog.read_only(tmp_path / "l.db") as log:
        bodies = [(event.campaign, event.body.told) for event in log.events() if isinstance(event.body, RecordImported)]
    claimed = Counter(campaign for campaign, trial in bodies if trial is not None and trial.claimed_domain == "arch")
    assert sum(claimed[name] for name in RUNS) == 157
    report = verify(tmp_path / "l.db")
    assert report.sound
    again = json.loads(invoke("import", folder, "--ledger", tmp_path / "l.db", "--json")[1])
    assert all(run["appended"] == 0 for run in again)


def test_views_show_imported_trials_beside_those_that_ran_here(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with EventLog.create(path) as log:
        write_campaign(log, "toy-1", trials=2)
        take(log, read_one(write_run(tmp_path / "a", BASELINE, KEPT, MANGLED)))
        views = Views.of(log)
        rows = views.query("FROM trials WHERE campaign = 'a' ORDER BY trial").records()
        (campaign,) = views.query("FROM campaigns WHERE campaign = 'a'").records()
        depths = views.query("SELECT trial, depth FROM lineage WHERE campaign = 'a' ORDER BY trial").rows
        (native,) = views.query("SELECT count(*) FROM trials WHERE campaign = 'toy-1'").rows
    assert [row["verdict"] for row in rows] == ["baseline", "kept", "discarded"]
    assert [row["trust"] for row in rows] == ["self_reported"] * 3
    assert (rows[1]["seconds"], rows[1]["delta_parent"]) == (1400.0, pytest.approx(-0.001))
    assert str(rows[1]["proposed_at"]) == "2026-01-01 01:00:00"
    assert (campaign["state"], campaign["task"], campaign["champion"]) == ("imported", "Parameter Golf", 1)
    assert (campaign["proposer"], campaign["baseline"]) == ("importer:arr", 1.081)
    assert depths == [(0, 0), (1, 1), (2, 2)]
    assert native == (3,)
