"""Attempts to get out of tier "namespaces": real hostile recipes in real rooms, each of them stopped."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from agents.search import Search
from agents.supervisor import Bench, StopRules, Supervisor
from audit.verify import verify
from evaluators.task import Task
from ledger.events import RunFinished, RunStarted
from ledger.keys import SigningKey
from ledger.log import EventLog
from runners.isolation import IsolationError, choose, tiers
from runners.local import LocalRunner
from runners.namespaces import RoomError, check_apart
from runners.protocol import InfrastructureError, RunResult
from tests.conftest import copy_toy
from tests.test_runners import MIB, budgets, gone, run

OBSTACLE = next(tier.obstacle for tier in tiers() if tier.name == "namespaces")
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))
PRELUDE = """
import ctypes, os, signal, socket, subprocess, sys, time
from pathlib import Path
data, out, seed = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def tried(action):
    "OPEN where the attempt came through, else what stopped it."
    try:
        value = action()
    except Exception as error:
        return f"stopped by {type(error).__name__} {error}"
    return f"OPEN {value!r}"
def call(result):
    "A C function's answer, with its failure raised."
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""
ROOT = Path(__file__).parent.parent
FINISH = "\nPath(out, 'weights').write_text('w')\n"


@pytest.fixture
def room() -> Iterator[LocalRunner]:
    with LocalRunner("namespaces") as made:
        yield made


def attempt(room: LocalRunner, folder: Path, *actions: str) -> str:
    """The log of a recipe that tries each of `actions`, Python expressions, and goes on."""
    lines = [f"print(tried(lambda: {action}))" for action in actions]
    result = run(room, folder, PRELUDE + "\n".join(lines) + FINISH)
    log = result.log.decode()
    assert result.train.exit_code == 0, log
    assert log.count("stopped by") + log.count("OPEN") == len(actions), log
    return log


# What it can see


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """A folder as a campaign has it: the ledger, keys and hidden data beside the runs."""
    for name in ("ledger.db", "keys/evaluator.key", "work/hidden/y.npy", "work/trial-1-run-0/train/note"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("secret")
        (tmp_path / name).chmod(0o666)
    return tmp_path


def test_ledger_key_hidden_data_and_other_runs_are_not_there(room: LocalRunner, campaign: Path) -> None:
    paths = ("ledger.db", "keys/evaluator.key", "work/hidden/y.npy", "work/trial-1-run-0/train/note")
    reads = [f"Path({str(campaign / path)!r}).read_text()" for path in paths]
    climbs = [f"Path('/proc/self/cwd/../../..' + {str(campaign / path)!r}).read_text()" for path in paths]
    homes = [f"os.listdir({str(Path.home() / name)!r})" for name in (".labtrail", ".ssh", ".aws")]
    log = attempt(room, campaign, *reads, *climbs, *homes, "Path('/etc/shadow').read_text()")
    assert "OPEN" not in log
    assert "secret" not in log


def test_ledger_cannot_be_written(room: LocalRunner, campaign: Path) -> None:
    ledger = campaign / "ledger.db"
    attempt(room, campaign, f"Path({str(ledger)!r}).write_text('forged')", f"os.remove({str(ledger)!r})")
    assert ledger.read_text() == "secret"


def test_code_that_makes_hidden_data_is_not_there(room: LocalRunner, tmp_path: Path) -> None:
    package = Path(__file__).parents[1]
    log = attempt(room, tmp_path, f"Path({str(package / 'evaluators/measure.py')!r}).read_text()")
    assert "OPEN" not in log


def test_only_its_own_processes_are_in_proc(room: LocalRunner, tmp_path: Path) -> None:
    result = run(room, tmp_path, PRELUDE + "print([name for name in os.listdir('/proc') if name.isdigit()])" + FINISH)
    assert "['1', '2']" in result.log.decode()


@pytest.mark.parametrize("part", ["environ", "mem", "maps", "fd", "cwd/x", "root/etc"])
def test_first_process_of_the_room_is_closed(room: LocalRunner, tmp_path: Path, part: str) -> None:
    log = attempt(room, tmp_path, f"os.listdir('/proc/1/{part}')", f"open('/proc/1/{part}', 'rb').read(1)")
    assert "OPEN" not in log


def test_environment_and_open_files_hold_no_secret(
    room: LocalRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-hidden")
    train = PRELUDE + "print(dict(os.environ), Path('/proc/self/environ').read_bytes(), os.listdir('/proc/self/fd'))"
    log = run(room, tmp_path, train + FINISH).log.decode()
    assert "hidden" not in log
    assert "ANTHROPIC" not in log
    assert "['0', '1', '2', '3']" in log


# What it can reach


def test_network_is_not_there(room: LocalRunner, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        log = attempt(
            room,
            tmp_path,
            f"socket.create_connection(('127.0.0.1', {port}), 2)",
            "socket.create_connection(('1.1.1.1', 53), 2)",
            "socket.getaddrinfo('example.com', 80)",
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('1.1.1.1', 53))",
        )
    assert "OPEN" not in log


@pytest.mark.parametrize("family", ["AF_VSOCK", "AF_NETLINK", "AF_PACKET", "AF_ALG"])
def test_sockets_of_other_families_cannot_be_made(room: LocalRunner, tmp_path: Path, family: str) -> None:
    log = attempt(room, tmp_path, f"socket.socket(socket.{family}, socket.SOCK_DGRAM)")
    assert "Address family not supported" in log


def test_unix_sockets_of_the_machine_are_not_there(room: LocalRunner, tmp_path: Path) -> None:
    path, abstract = str(tmp_path / "owner.sock"), f"\0labtrail-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as by_path, socket.socket(socket.AF_UNIX) as by_name:
        for server, name in ((by_path, path), (by_name, abstract)):
            server.bind(name)
            server.listen()
        Path(path).chmod(0o777)
        log = attempt(
            room, tmp_path, *(f"socket.socket(socket.AF_UNIX).connect({name!r})" for name in (path, abstract))
        )
    assert "OPEN" not in log


def test_signals_reach_nobody_outside(room: LocalRunner, tmp_path: Path) -> None:
    run(room, tmp_path)
    assert room._warm is not None
    warm = room._warm._process.pid
    log = attempt(
        room,
        tmp_path,
        f"os.kill({os.getpid()}, 9)",
        f"os.kill({warm}, 9)",
        "[os.kill(1, number) for number in (9, 19, 15, 2, 17)] and Path('/proc/1/stat').read_text().split()[2] == 'S'",
        "os.getppid() and os.kill(os.getppid(), 9)",
        "os.kill(-1, 0)",
    )
    lines = log.splitlines()
    assert [line.partition(" [")[0] for line in lines[1:3]] == ["stopped by ProcessLookupError"] * 2
    # Another user's where the supervisor is root; else it sleeps on after each signal.
    assert lines[3] in ("OPEN True", "stopped by PermissionError [Errno 1] Operation not permitted")
    assert lines[4] == "OPEN 0", "it has no parent"
    assert lines[5].startswith("stopped by ProcessLookupError"), "everybody is nobody else"
    assert room._warm._process.pid == warm
    assert room._warm.alive
    assert psutil.pid_exists(os.getpid())


def test_debugger_and_other_kernel_doors_are_shut(room: LocalRunner, tmp_path: Path) -> None:
    calls = {"ptrace": 101, "keyctl": 250, "add_key": 248, "bpf": 321, "userfaultfd": 323, "perf_event_open": 298}
    calls |= {"process_vm_readv": 310, "io_uring_setup": 425, "open_by_handle_at": 304, "pidfd_getfd": 438}
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are those of x86_64")
    log = attempt(room, tmp_path, *(f"call(libc.syscall({number}, 0, 1, 0, 0, 0))" for number in calls.values()))
    assert log.count("Operation not permitted") == len(calls), log


def test_mounts_and_namespaces_cannot_be_made(room: LocalRunner, tmp_path: Path) -> None:
    log = attempt(
        room,
        tmp_path,
        "call(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))",
        "call(libc.mount(b'none', b'/usr', None, 0x1000 | 32, None))",
        "call(libc.umount2(b'/data', 2))",
        "call(libc.unshare(0x10000000))",
        "call(libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)) or os._exit(9)",
        "os.chroot('/tmp')",
        "os.setuid(0)",
        "os.setgroups([0])",
    )
    assert "OPEN" not in log
    assert "CapEff:\\t0000000000000000" in attempt(room, tmp_path, "Path('/proc/self/status').read_text()")


def test_what_is_installed_below_tmp_is_shown_and_the_program_itself_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A room has a /tmp of its own, and a library or the whole environment may lie below the machine's."""
    with TemporaryDirectory(dir="/tmp") as folder:
        library = Path(folder)
        library.chmod(0o755)
        (library / "answer").write_text("42")
        (library / "answer").chmod(0o666)
        monkeypatch.setenv("LD_LIBRARY_PATH", f"{library}{os.pathsep}{ROOT}")
        with LocalRunner("namespaces") as room:
            log = attempt(
                room,
                tmp_path,
                f"Path({str(library / 'answer')!r}).read_text()",
                f"Path({str(library / 'answer')!r}).write_text('43')",
                f"Path({str(ROOT / 'evaluators' / 'measure.py')!r}).read_text()",
            )
    assert "OPEN '42'" in log
    assert "Read-only file system" in log
    assert log.count("OPEN") == 1, log


def test_setuid_programs_and_device_files_are_no_way(room: LocalRunner, tmp_path: Path) -> None:
    log = attempt(
        room,
        tmp_path,
        "subprocess.run(['su', '-c', 'id'], check=True, capture_output=True)",
        "subprocess.run(['mount', '-t', 'tmpfs', 'x', '/tmp'], check=True, capture_output=True)",
        "os.mknod(out + '/disk', 0o060666, os.makedev(254, 0))",
        "os.mknod('/tmp/memory', 0o020666, os.makedev(1, 1))",
        "[open('/dev/' + name, 'rb') for name in ('kmsg', 'mem', 'vda', 'sda', 'fuse', 'kvm')]",
    )
    assert "OPEN" not in log
    devices = attempt(room, tmp_path, "sorted(os.listdir('/dev'))")
    assert "['fd', 'full', 'null', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'urandom', 'zero']" in devices


def test_workspace_and_private_scratch_are_the_only_writable_places(room: LocalRunner, tmp_path: Path) -> None:
    mounts = """
fields = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
print(sorted(field[4] for field in fields if "rw" in field[5].split(",") and Path(field[4]).is_dir()))
"""
    assert "['/dev/shm', '/proc', '/tmp', '/workspace']" in run(room, tmp_path, PRELUDE + mounts + FINISH).log.decode()
    log = attempt(
        room,
        tmp_path,
        "Path(data, 'examples').write_text('forged')",
        "Path(data, 'new').write_text('x')",
        "Path('/usr/x').write_text('x')",
        "Path('/x').write_text('x')",
        "Path(sys.prefix, 'x').write_text('x')",
        "Path('/proc/sys/kernel/hostname').write_text('x')",
        "Path('/proc/sysrq-trigger').write_text('h')",
    )
    assert "OPEN" not in log
    assert (tmp_path / "data" / "examples").read_bytes() == b"examples"


def test_nothing_passes_from_run_to_run_through_scratch(room: LocalRunner, tmp_path: Path) -> None:
    action = "sum(len(os.listdir(place)) or Path(place, 'note').write_text('x') for place in ('/tmp', '/dev/shm'))"
    for _ in range(2):
        assert "OPEN 2" in attempt(room, tmp_path, action)
    assert not Path("/dev/shm/note").exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "{key}"])
def test_links_do_not_carry_files_into_the_artifact(room: LocalRunner, campaign: Path, target: str) -> None:
    target = target.format(key=campaign / "keys/evaluator.key")
    result = run(room, campaign, PRELUDE + f"os.symlink({target!r}, out + '/weights')")
    assert (result.train.exit_code, result.artifact) == (0, None)
    assert "is a symbolic link" in result.log.decode()
    log = attempt(room, campaign, f"os.link({target!r}, out + '/name')")
    assert "OPEN" not in log


def test_hard_link_from_outside_the_workspace_is_another_device(room: LocalRunner, tmp_path: Path) -> None:
    log = attempt(room, tmp_path, "os.link(data + '/examples', out + '/name')", "os.link('/usr/bin/env', out + '/env')")
    assert "OPEN" not in log


# What it can use up


def hostile(room: LocalRunner, folder: Path, code: str, **limits: float) -> RunResult:
    return run(room, folder, PRELUDE + code + FINISH, limits=budgets(**limits))


def test_fork_bomb_is_stopped(room: LocalRunner, tmp_path: Path) -> None:
    assert run(room, tmp_path).artifact
    before = set(psutil.Process().children(recursive=True))
    result = hostile(room, tmp_path, "while True:\n    try: os.fork()\n    except OSError: pass", train_s=10)
    assert result.train.killed_for == "processes"
    assert result.train.wall_s < 5
    assert set(psutil.Process().children(recursive=True)) <= before
    assert run(room, tmp_path).artifact


def test_memory_bomb_is_stopped(room: LocalRunner, tmp_path: Path) -> None:
    result = hostile(room, tmp_path, "hoard = b'x' * (8 << 30)", memory_bytes=100 * MIB)
    assert result.artifact is None
    assert result.train.max_rss_bytes < 1000 * MIB
    split = "for _ in range(6): os.fork()\nhoard = b'x' * (90 << 20)\ntime.sleep(20)"
    assert hostile(room, tmp_path, split, memory_bytes=100 * MIB, processes=100).train.killed_for == "memory"


def test_disk_filler_is_stopped(room: LocalRunner, tmp_path: Path) -> None:
    code = """
for n in range(10_000):
    with open(f"fill-{n}", "wb") as file:
        file.write(bytes(4 << 20))
    os.remove(f"fill-{n}")
    time.sleep(0.005)
"""
    result = hostile(room, tmp_path, code, written_bytes=50 * MIB)
    if result.train.written_bytes in (None, 0):
        pytest.skip("the kernel or this file system does not count what is written")
    assert result.train.killed_for == "disk"
    assert 50 * MIB < result.train.written_bytes < 1000 * MIB
    log = attempt(
        room, tmp_path, *(f"Path({place!r}).write_bytes(bytes(80 << 20))" for place in ("/tmp/x", "/dev/shm/x"))
    )
    assert log.count("No space left on device") == 2


# What it leaves


DAEMON = """
def daemon():
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return os.read(reading, 9)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.environ.clear()
    libc.prctl(1, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if {exec}:
        os.write(writing, b"up")
        os.execve("/usr/bin/env", ["env", "-i", "sleep", "300.{mark}"], {{}})
    os.write(writing, b"up")
    while True:
        time.sleep(0.01)
daemon()
"""


def sleepers(mark: int) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if f"300.{mark}" in " ".join(process.info["cmdline"] or ())
    ]


def test_daemon_without_parent_session_or_environment_dies_with_the_room(room: LocalRunner, tmp_path: Path) -> None:
    mark = time.monotonic_ns()
    wait = "\nwhile 'sleep' not in ''.join(path.read_text() for path in Path('/proc').glob('[0-9]*/comm')): pass"
    result = hostile(room, tmp_path, DAEMON.format(exec=True, mark=mark) + wait)
    assert result.artifact, result.log.decode()
    assert not sleepers(mark)


def test_cpu_of_a_daemon_is_counted(room: LocalRunner, tmp_path: Path) -> None:
    code = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if not os.fork():
    if not os.fork():
        while time.process_time() < 0.4: pass
    os._exit(0)
while len([p for p in os.listdir('/proc') if p.isdigit()]) > 2: time.sleep(0.01)
"""
    assert 0.35 <= hostile(room, tmp_path, code).train.cpu_s <= 1.0


def test_interrupt_leaves_no_process(room: LocalRunner, tmp_path: Path) -> None:
    mark = time.monotonic_ns()

    def interrupt() -> None:
        deadline_s = time.monotonic() + 20
        while not sleepers(mark) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        hostile(room, tmp_path, DAEMON.format(exec=True, mark=mark) + "time.sleep(60)")
    thread.join()
    assert not sleepers(mark)
    assert run(room, tmp_path).artifact


def test_death_of_the_warm_process_from_outside_kills_the_room_and_is_the_machine_s(
    room: LocalRunner, tmp_path: Path
) -> None:
    mark = time.monotonic_ns()

    def kill() -> None:
        deadline_s = time.monotonic() + 20
        while not sleepers(mark) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert room._warm is not None
        room._warm._process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(InfrastructureError, match="killed by SIGKILL"):
        hostile(room, tmp_path, DAEMON.format(exec=True, mark=mark) + "time.sleep(60)")
    thread.join()
    assert all(gone(pid, within_s=2) for pid in sleepers(mark))


# What honest recipes need


def test_facts_of_a_room_are_those_of_the_recipe(room: LocalRunner, tmp_path: Path) -> None:
    code = "while time.process_time() < 0.3: pass\nPath(out, 'big').write_bytes(bytes(1 << 20))"
    result = hostile(room, tmp_path, code)
    assert 0.28 <= result.train.cpu_s <= 0.5
    assert result.train.cpu_s <= result.train.wall_s
    assert result.train.waited_s is not None
    assert result.host == socket.gethostname()
    assert result.gpus == ()


def test_campaign_in_rooms_records_them_and_audits_clean(
    tmp_path: Path, room: LocalRunner, log: EventLog, evaluator_key: SigningKey
) -> None:
    os.umask(0o077)
    try:
        task = Task.load(copy_toy(tmp_path / "task"))
        key = tmp_path / "keys" / "evaluator.key"
        bench = Bench(task, log, Search(), room, key, tmp_path / "work", "test")
        done = Supervisor(bench, "toy-1", 1, lambda event, campaign: None).run(StopRules(1))
    finally:
        os.umask(0o022)
    assert done.trials[1].outcome is not None
    bodies = [event.body for event in log.events()]
    assert {body.isolation for body in bodies if isinstance(body, RunStarted)} == {"namespaces"}
    finished = [body for body in bodies if isinstance(body, RunFinished)]
    assert all(body.threads == 1 and body.host == socket.gethostname() and body.gpus == () for body in finished)
    faults = [finding for check in verify(log.path).checks for finding in check.findings if finding.is_fault]
    assert faults == []


def test_tier_that_a_task_demands_is_used_or_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("namespaces") == choose("process") == choose(None) == "namespaces"
    monkeypatch.setattr("runners.isolation._obstacle", lambda: "unshare: no; let users make namespaces")
    assert choose("process") == choose(None) == "process"
    with pytest.raises(IsolationError, match=r"the task demands isolation 'namespaces'.*let users make namespaces"):
        choose("namespaces")


def test_ledger_within_python_s_own_folders_is_refused() -> None:
    with pytest.raises(RoomError, match="keep the ledger elsewhere"):
        check_apart("/usr/lib/python3/ledger.db.work/run", ("/opt", "/usr"))
    check_apart("/usr2/ledger.db.work/run", ("/usr",))
