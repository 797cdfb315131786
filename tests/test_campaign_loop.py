"""The loop as a user runs it: real processes, real kills, and a record that verifies afterwards."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from agents.lineage import lineage_of, render
from audit.verify import verify
from ledger import checkpoint
from ledger.campaign import Campaign, Phase
from ledger.events import LineageViewed
from ledger.log import EventLog
from ledger.views import Views
from ledger.vocabulary import Verdict
from tests.conftest import TOY, copy_toy


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "labtrail", *arguments, "--ledger", str(folder / "toy.db")]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "LABTRAIL_HOME": str(folder / "home")}


def labtrail(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *arguments), env=environment(folder), capture_output=True, text=True, timeout=120, check=False
    )


def run_toy(folder: Path, trials: int) -> subprocess.CompletedProcess[str]:
    return labtrail(folder, "run", str(TOY), "--trials", str(trials), "--seed", "1")


def campaign(folder: Path, name: str = "toy-1") -> Campaign:
    with EventLog.read_only(folder / "toy.db") as log:
        return Campaign.replay(name, log.events(campaign=name))


def findings(folder: Path) -> list[str]:
    return [
        str(finding) for check in verify(folder / "toy.db").checks for finding in check.findings if finding.is_fault
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished campaign of eight trials."""
    folder = tmp_path_factory.mktemp("finished")
    done = run_toy(folder, 8)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_campaign_measures_its_baseline_and_concludes_its_trials(finished: Path) -> None:
    state = campaign(finished)
    assert state.stopped is not None
    assert (state.stopped.reason, state.concluded) == ("trials", 8)
    assert len(state.trials[0].scores) == 3
    assert all(trial.phase is Phase.JUDGED for trial in state.trials.values())


def test_several_specialists_take_part(finished: Path) -> None:
    speakers = {trial.proposal.specialist for trial in campaign(finished).trials.values() if trial.proposal}
    assert len(speakers & {"opt", "sched", "reg", "data"}) >= 3


def test_no_program_is_tried_twice(finished: Path) -> None:
    programs = Counter(trial.diff.program for trial in campaign(finished).trials.values() if trial.diff)
    assert programs.most_common(1)[0][1] == 1


def test_a_finished_campaign_verifies(finished: Path) -> None:
    assert findings(finished) == []


def test_every_view_of_the_past_can_be_rendered_again(finished: Path) -> None:
    with EventLog.read_only(finished / "toy.db") as log:
        seen = [event.body for event in log.events() if isinstance(event.body, LineageViewed)]
        assert len(seen) >= 8
        for body in seen:
            views = Views(log)
            views.catch_up(body.as_of)
            assert render(lineage_of(views, "toy-1")).encode() == log.blob(body.view)


def test_the_same_command_again_does_nothing_and_more_trials_go_on(finished: Path, tmp_path: Path) -> None:
    size = EventLog.read_only(finished / "toy.db").size
    again = run_toy(finished, 8)
    assert again.returncode == 0
    assert "go on with a higher --trials" in " ".join(again.stdout.split())
    assert EventLog.read_only(finished / "toy.db").size == size
    more = run_toy(finished, 9)
    assert more.returncode == 0, more.stderr
    assert campaign(finished).concluded == 9
    assert findings(finished) == []


def wait_for(folder: Path, process: subprocess.Popen[bytes], event: str, count: int) -> None:
    """Return once the log holds `count` events of a type."""
    for _ in range(600):
        assert process.poll() is None, "the campaign ended too early"
        if (folder / "toy.db").exists():
            with EventLog.read_only(folder / "toy.db") as log:
                if sum(found.type == event for found in log.events()) >= count:
                    return
        time.sleep(0.02)
    raise AssertionError(f"no {count} events of {event} in 12 s")


@pytest.mark.parametrize("event", ["run_started", "hypothesis_proposed", "run_finished", "verdict_reached"])
def test_kill_9_loses_at_most_the_trial_under_way(tmp_path: Path, event: str) -> None:
    count = 5 if event.startswith("run") else 2
    running = command(tmp_path, "run", str(TOY), "--trials", "6", "--seed", "1")
    process = subprocess.Popen(running, env=environment(tmp_path), stdout=subprocess.DEVNULL)
    wait_for(tmp_path, process, event, count)
    process.kill()
    process.wait()
    assert findings(tmp_path) == []
    before = campaign(tmp_path)
    lost = [number for number, trial in before.trials.items() if trial.is_open and number]
    done = run_toy(tmp_path, 6)
    assert done.returncode == 0, done.stderr
    after = campaign(tmp_path)
    assert [after.trials[number].phase for number in lost] == [Phase.ABANDONED] * len(lost)
    assert after.concluded == 6
    for number, trial in before.trials.items():
        if trial.outcome is not None:
            assert after.trials[number] == trial
    assert findings(tmp_path) == []
    assert not (tmp_path / "toy.db.work").exists()


def entries(folder: Path) -> list[bytes]:
    if not (folder / "toy.db").exists():
        return []
    with EventLog.read_only(folder / "toy.db") as log:
        return [entry for _, entry, _ in log.entries()]


@pytest.mark.slow
def test_twenty_kills_at_any_moment_lose_nothing_that_was_there(tmp_path: Path) -> None:
    dice = random.Random(1)
    running = command(tmp_path, "run", str(TOY), "--trials", "500", "--seed", "1")
    before: list[bytes] = []
    in_campaign = 0
    for _ in range(int(os.environ.get("LABTRAIL_RUN_KILLS", "22"))):
        process = subprocess.Popen(running, env=environment(tmp_path), stdout=subprocess.DEVNULL)
        # Half of the kills fall into the start of the program and of the campaign, half into its work.
        time.sleep(dice.uniform(0.0, 2.0))
        if dice.random() < 0.5:
            for _ in range(500):
                if process.poll() is not None or len(entries(tmp_path)) > len(before) + dice.randrange(30):
                    break
                time.sleep(dice.uniform(0.0, 0.05))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the campaign ended by itself"
        after = entries(tmp_path)
        assert after[: len(before)] == before, "an event that was there is gone or another one"
        if after:
            assert findings(tmp_path) == []
        in_campaign += len(after) > len(before)
        before = after
    assert in_campaign >= 5, "the kills came too early to test anything"
    goal = campaign(tmp_path).concluded + 1
    done = run_toy(tmp_path, goal)
    assert done.returncode == 0, done.stderr
    assert campaign(tmp_path).concluded == goal
    assert findings(tmp_path) == []
    assert not (tmp_path / "toy.db.work").exists()


def test_kill_9_during_the_baseline_goes_on_with_the_next_attempt(tmp_path: Path) -> None:
    running = command(tmp_path, "run", str(TOY), "--trials", "1", "--seed", "1")
    process = subprocess.Popen(running, env=environment(tmp_path), stdout=subprocess.DEVNULL)
    wait_for(tmp_path, process, "run_started", 2)
    process.kill()
    process.wait()
    done = run_toy(tmp_path, 1)
    assert done.returncode == 0, done.stderr
    assert campaign(tmp_path).trials[0].verdict is Verdict.BASELINE
    assert findings(tmp_path) == []


def test_ctrl_c_abandons_the_trial_and_says_how_to_go_on(tmp_path: Path) -> None:
    running = command(tmp_path, "run", str(TOY), "--trials", "50", "--seed", "1")
    process = subprocess.Popen(running, env=environment(tmp_path), stdout=subprocess.PIPE)
    wait_for(tmp_path, process, "run_started", 6)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"the same command goes on" in output
    stopped = campaign(tmp_path).stopped
    assert stopped is not None
    assert stopped.reason == "interrupted"
    assert findings(tmp_path) == []
    assert run_toy(tmp_path, stopped.trials + 1).returncode == 0
    assert findings(tmp_path) == []


def test_a_second_run_on_the_same_ledger_is_refused_with_the_owners_pid(tmp_path: Path) -> None:
    running = command(tmp_path, "run", str(TOY), "--trials", "50", "--seed", "1")
    process = subprocess.Popen(running, env=environment(tmp_path), stdout=subprocess.DEVNULL)
    wait_for(tmp_path, process, "run_started", 1)
    second = run_toy(tmp_path, 1)
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert second.returncode == 2
    assert str(process.pid) in second.stderr
    assert len(second.stderr.splitlines()) == 1


def edited_task(folder: Path, path: str, old: str, new: str) -> Path:
    task = copy_toy(folder / "task")
    text = (task / path).read_text()
    assert old in text
    (task / path).write_text(text.replace(old, new))
    return task


def test_a_changed_evaluator_cannot_go_on_with_the_old_scores(finished: Path, tmp_path: Path) -> None:
    task = edited_task(tmp_path, "measure.py", "np.mean(", "0.5 * np.mean(")
    refused = labtrail(finished, "run", str(task), "--trials", "99")
    assert refused.returncode == 2
    assert "evaluator digest" in refused.stderr
    assert "--new" in refused.stderr
    assert findings(finished) == []


def test_a_baseline_that_breaks_a_gate_stops_the_campaign(tmp_path: Path) -> None:
    task = edited_task(tmp_path, "task.toml", "at_most = 1.0", "at_most = 0.000001")
    refused = labtrail(tmp_path, "run", str(task), "--trials", "2")
    assert refused.returncode == 2
    assert "breaks a gate: below_gate" in refused.stderr
    stopped = campaign(tmp_path).stopped
    assert stopped is not None
    assert stopped.reason == "baseline_illegal"
    assert findings(tmp_path) == []


def test_a_starting_recipe_that_crashes_stops_the_campaign(tmp_path: Path) -> None:
    task = edited_task(tmp_path, "recipe/train.py", "weights += velocity", "raise SystemExit(3)")
    refused = labtrail(tmp_path, "run", str(task), "--trials", "2")
    assert refused.returncode == 2
    assert "crash: training ended with exit code 3" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert campaign(tmp_path).trials[0].failure is not None
    assert findings(tmp_path) == []


def test_status_lineage_and_sql_read_while_nothing_runs(finished: Path) -> None:
    status = json.loads(labtrail(finished, "status", "--json").stdout)
    assert status["campaigns"][0]["trials"] >= 8
    tree = labtrail(finished, "lineage")
    assert "starting recipe" in tree.stdout
    one = labtrail(finished, "lineage", "1")
    assert "+++ b/" in one.stdout
    rows = json.loads(labtrail(finished, "sql", "SELECT count(*) AS n FROM trials", "--format", "json").stdout)
    assert rows[0]["n"] >= 9


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT nonsense FROM trials", "nonsense"),
        ("DROP VIEW trials", "read-only"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled"),
        ("COPY trials TO '/tmp/x.csv'", "read-only"),
        ("SELEC", "syntax error"),
    ],
)
def test_a_bad_query_is_one_clear_line(finished: Path, query: str, said: str) -> None:
    refused = labtrail(finished, "sql", query)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert "Traceback" not in refused.stderr


def test_a_missing_or_foreign_ledger_is_one_clear_line(tmp_path: Path) -> None:
    for content in (None, b"", b"not a database at all, but long enough to look like a file" * 50):
        if content is not None:
            (tmp_path / "toy.db").write_bytes(content)
        for arguments in (["status"], ["lineage"], ["sql", "FROM trials"], ["browse"]):
            refused = labtrail(tmp_path, *arguments)
            assert refused.returncode == 2
            assert len(refused.stderr.splitlines()) == 1


def test_heads_are_signed_during_a_campaign(tmp_path: Path) -> None:
    """Killed before its end, a campaign leaves a head that is at most so many events old."""
    started = subprocess.Popen(
        command(tmp_path, "run", str(TOY), "--trials", "40", "--seed", "1", "--checkpoint-every", "5"),
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ledger = tmp_path / "toy.db"
    deadline = time.monotonic() + 60
    while not checkpoint.sidecar(ledger).exists() and started.poll() is None:
        assert time.monotonic() < deadline, "no head was signed"
        time.sleep(0.05)
    started.kill()
    started.wait()
    with EventLog.read_only(ledger) as log:
        signed = checkpoint.Checkpoint.parse(checkpoint.read(checkpoint.sidecar(ledger)).text)
        checkpoint.extends(log, signed)
        assert signed.size >= 5
        # A transaction of several events is told of one by one after it is stored.
        assert log.size - signed.size < 5 + 10
