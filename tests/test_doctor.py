"""`labtrail doctor`: what the machine offers, what a task needs, and what to do about it."""

import json
import os
import subprocess
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

import labtrail
from runners.isolation import tiers
from tests.conftest import copy_toy


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(labtrail.cli, ["doctor", *arguments])


def demanding(tmp_path: Path, old: str, new: str) -> str:
    """The toy task with one line of its contract changed."""
    task = copy_toy(tmp_path / "task")
    text = (task / "task.toml").read_text()
    assert old in text
    (task / "task.toml").write_text(text.replace(old, new))
    return str(task)


def test_every_machine_has_isolation_cores_memory_and_disk() -> None:
    shown = doctor()
    assert shown.exit_code == 0, shown.output
    for name in ("isolation process", "cores", "memory", "disk", "GPUs", "Ray", "Slurm", "git"):
        assert name in shown.output


def test_a_program_gets_json_and_the_same_exit_code() -> None:
    shown = doctor("airbench-cpu", "--json")
    answer = json.loads(shown.output)
    assert shown.exit_code == (0 if answer["ready"] else 1)
    found = {(check["name"], check["state"]) for check in answer["checks"]}
    assert ("task: library", "ok") in found
    assert {state for _, state in found} <= {"ok", "absent", "missing"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("threads = 1", "threads = 100000", "use a larger machine"),
        ("memory_bytes = 150_000_000", f"memory_bytes = {psutil.virtual_memory().total * 2}", "free memory"),
        ('preload = ["numpy"]', 'preload = ["no_such_library.part"]', "pip install no_such_library"),
    ],
    ids=["threads", "memory", "library"],
)
def test_what_a_task_lacks_is_said_with_the_way_to_get_it(tmp_path: Path, old: str, new: str, said: str) -> None:
    shown = doctor(demanding(tmp_path, old, new))
    assert shown.exit_code == 1
    assert "missing" in shown.output
    assert said in shown.output


def test_an_unknown_task_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["labtrail", "doctor", "no-such-task"])
    with pytest.raises(SystemExit) as stop:
        labtrail.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_rooms_are_to_be_had_where_the_system_can_make_them() -> None:
    """The tests of the sandbox are skipped where the rehearsal fails: it must not fail for reasons of our own."""
    flags = ["--mount", "--pid", "--fork", "--net", "--ipc", "--uts", "--cgroup"]
    users = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    try:
        able = subprocess.run(["unshare", *users, *flags, "true"], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare (util-linux) to compare with")
    if able.returncode:
        pytest.skip(f"this system makes no namespaces: {able.stderr.decode().strip()}")
    assert [tier.obstacle for tier in tiers() if tier.name == "namespaces"] == [None]
