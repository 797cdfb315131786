"""What every runner promises about recipes that are honest, broken or hostile; real processes throughout."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from evaluators.task import Budgets, Contract, EvaluatorContract, Metric, Noise, RecipeContract, Seeds, Specialist
from ledger.recipes import Recipe, digest_of
from ledger.vocabulary import Domain
from runners.isolation import TIERS, tiers
from runners.local import LocalRunner
from runners.protocol import InfrastructureError, Runner, RunResult, RunSpec
from runners.workspace import remove

MIB = 1 << 20
CHALLENGES = (b"first challenge", b"second challenge")
TRAIN = """
import sys
from pathlib import Path
data, out, seed = sys.argv[1:]
(Path(out) / "nested").mkdir()
(Path(out) / "nested" / "weights").write_bytes(Path(data, "examples").read_bytes() + seed.encode())
print("trained with seed", seed)
"""
PREDICT = """
import sys
from pathlib import Path
model, challenge, output = sys.argv[1:]
Path(output).write_bytes(Path(model, "nested", "weights").read_bytes() + b" " + Path(challenge).read_bytes())
print("predicted")
"""
DAEMON = """
import os, time
from pathlib import Path
def daemon(note):
    if os.fork():
        while not note.exists():
            time.sleep(0.001)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    note.with_suffix(".part").write_text(str(os.getpid()))
    note.with_suffix(".part").rename(note)
    while True:
        time.sleep(0.01)
"""
KEEP = "open(sys.argv[2] + '/weights', 'w').write('w')\n"


@pytest.fixture(params=TIERS)
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    obstacle = next(tier.obstacle for tier in tiers() if tier.name == request.param)
    if obstacle:
        pytest.skip(obstacle)
    with LocalRunner(request.param) as made:
        yield made


@pytest.fixture
def local() -> Iterator[LocalRunner]:
    """The tier in which a recipe can reach the warm process, and leave notes where tests find them."""
    with LocalRunner("process") as made:
        yield made


def budgets(**changed: float) -> Budgets:
    base = {"train_s": 20.0, "predict_s": 20.0, "memory_bytes": 300 * MIB, "log_bytes": 20_000, "processes": 8}
    return Budgets.model_validate({**base, "threads": 1, **changed})


def contract(limits: Budgets, preload: tuple[str, ...] = (), train: tuple[str, ...] | None = None) -> Contract:
    return Contract(
        name="toy",
        title="Toy",
        recipe=RecipeContract(
            dir="recipe",
            files=("train.py", "predict.py"),
            train=train or ("python", "train.py", "{data}", "{out}", "{seed}"),
            predict=("python", "predict.py", "{model}", "{input}", "{output}"),
            preload=preload,
            max_bytes=10_000,
        ),
        metric=Metric(name="seconds", unit="s", direction="minimize"),
        budgets=limits,
        seeds=Seeds(baseline=2, trial=1),
        noise=Noise(confidence=0.95),
        evaluator=EvaluatorContract(module="measure.py"),
        specialists=(Specialist(name="all", domain=Domain.ARCH, charter="", files=("train.py",)),),
    )


def run(
    runner: Runner,
    folder: Path,
    train: str = TRAIN,
    predict: str = PREDICT,
    limits: Budgets | None = None,
    seed: int = 7,
    preload: tuple[str, ...] = (),
    command: tuple[str, ...] | None = None,
    files: dict[str, str] | None = None,
) -> RunResult:
    """One run of a recipe, in a fresh folder below `folder`; `folder`/notes is there for recipes to tell tales."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "examples").write_bytes(b"examples")
    into = folder / f"run-{len(list(folder.glob('run-*')))}"
    into.mkdir()
    recipe = Recipe({"train.py": train, "predict.py": predict, **(files or {})})
    toy = contract(limits or budgets(), preload, command)
    return runner.run(RunSpec(recipe, toy, seed, folder / "data", CHALLENGES), into)


def gone(pid: int, within_s: float = 0.0) -> bool:
    """Whether the process has ended; a zombie that nobody collects has."""
    deadline_s = time.monotonic() + within_s
    try:
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(0.01)
    except psutil.NoSuchProcess:
        pass
    return True


def warm_homes(folder: Path) -> list[Path]:
    return list(folder.glob("labtrail-runner-*"))


def appeared(path: Path) -> bool:
    deadline_s = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return path.exists()


# The honest recipe


def test_honest_recipe_gives_artifact_answers_facts_and_log(runner: Runner, tmp_path: Path) -> None:
    result = run(runner, tmp_path)
    assert result.artifact == {"nested/weights": digest_of(b"examples7")}
    assert result.artifact_bytes == 9
    assert [path.read_bytes() for path in result.answers] == [b"examples7 " + text for text in CHALLENGES]
    assert [(facts.exit_code, facts.signal, facts.killed_for) for facts in (result.train, *result.predict)] == [
        (0, None, None)
    ] * 3
    assert result.train.max_rss_bytes > MIB
    assert result.train.log_bytes == len("trained with seed 7\n")
    assert b"trained with seed 7\n" in result.log
    assert result.log.count(b"predicted\n") == 2


def test_recipe_runs_as_a_script_in_its_own_folder(runner: Runner, tmp_path: Path) -> None:
    train = f"""
import json, sys, atexit, threading, time
import json.decoder, queue
assert __name__ == "__main__" and sys.modules["__main__"].__dict__ is globals()
assert sys.argv[0] == "train.py" and queue.OWN == 1, queue
assert not sys.stdin.read()
def late():
    time.sleep(0.02)
    {KEEP}
threading.Thread(target=late).start()
atexit.register(lambda: print("at exit"))
print("no newline", end="")
"""
    result = run(runner, tmp_path, train, files={"queue.py": "OWN = 1\n"}, preload=("queue",))
    assert result.artifact == {"weights": digest_of(b"w")}, result.log
    assert b"no newlineat exit\n" in result.log


def test_clock_covers_children_and_leaves_out_preloading(runner: Runner, tmp_path: Path) -> None:
    train = f"""
import os, sys, time
{KEEP}
for _ in range(2):
    if os.fork() == 0:
        while time.process_time() < 0.2:
            pass
        os._exit(0)
    os.wait()
"""
    result = run(runner, tmp_path, train, preload=("numpy",))
    assert 0.4 <= result.train.cpu_s <= 0.8
    assert result.train.cpu_s <= result.train.wall_s
    result = run(runner, tmp_path, "import sys, numpy\nassert numpy.arange(3).sum() == 3\n" + KEEP, preload=("numpy",))
    # A new interpreter with numpy takes 0.15 s of CPU.
    assert result.train.cpu_s < 0.08
    assert result.artifact


def test_cpu_of_children_that_nobody_waits_for_is_counted(runner: Runner, tmp_path: Path) -> None:
    train = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
child = os.fork()
if child == 0:
    while time.process_time() < 0.4:
        pass
    os._exit(0)
try:
    os.wait()
except ChildProcessError:
    pass
"""
    assert run(runner, tmp_path, train).train.cpu_s >= 0.25


def test_any_program_may_be_the_command(runner: Runner, tmp_path: Path) -> None:
    shell = ("sh", "-c", 'echo "{from} the shell $((40 + 2))" > "$0/weights"', "{out}")
    result = run(runner, tmp_path, predict="raise SystemExit(3)", command=shell)
    assert result.artifact == {"weights": digest_of(b"{from} the shell 42\n")}
    assert run(runner, tmp_path, command=("python", "-c", "exit(5)")).train.exit_code == 5
    absent = run(runner, tmp_path, command=("no-such-program",))
    assert absent.train.exit_code == 127
    assert b"no-such-program: No such file" in absent.log


def test_random_numbers_differ_from_process_to_process(runner: Runner, tmp_path: Path) -> None:
    train = (
        "import random, sys, numpy\nopen(sys.argv[2] + '/w', 'w').write(f'{numpy.random.random()}{random.random()}')"
    )
    first, second = (run(runner, tmp_path, train, preload=("numpy.random",)).artifact for _ in range(2))
    assert first
    assert second
    assert first != second


# The recipe that fails


@pytest.mark.parametrize(
    ("code", "exit_code", "number"),
    [
        ("raise SystemExit(3)", 3, None),
        ("raise SystemExit('words')", 1, None),
        ("1 / 0", 1, None),
        ("def broken(:", 1, None),
        ("import os; os.kill(os.getpid(), 9)", None, 9),
        ("import ctypes; ctypes.string_at(0)", None, signal.SIGSEGV),
    ],
)
def test_failure_is_told_as_exit_code_or_signal(
    runner: Runner, tmp_path: Path, code: str, exit_code: int | None, number: int | None
) -> None:
    result = run(runner, tmp_path, "import sys\n" + KEEP + code)
    assert (result.train.exit_code, result.train.signal, result.train.killed_for) == (exit_code, number, None)
    assert (result.artifact, result.artifact_bytes, result.predict, result.answers) == (None, None, (), ())


def test_traceback_starts_in_the_recipe(runner: Runner, tmp_path: Path) -> None:
    log = run(runner, tmp_path, "def f():\n    raise ValueError('mine')\nf()\n").log.decode()
    assert "ValueError: mine" in log
    assert 'train.py", line 3' in log
    assert "zygote" not in log


def test_failing_prediction_ends_the_run(runner: Runner, tmp_path: Path) -> None:
    predict = PREDICT + "\nsys.exit(4 if b'second' in Path(challenge).read_bytes() else 0)"
    result = run(runner, tmp_path, predict=predict)
    assert [facts.exit_code for facts in result.predict] == [0, 4]
    assert len(result.answers) == 1


def test_missing_answer_ends_the_run(runner: Runner, tmp_path: Path) -> None:
    result = run(runner, tmp_path, predict="")
    assert [facts.exit_code for facts in result.predict] == [0]
    assert result.answers == ()
    assert b"no answer" in result.log


@pytest.mark.parametrize(
    "train", ["", "import os, sys; os.rmdir(sys.argv[2])", "import os, sys; os.mkdir(sys.argv[2] + '/d')"]
)
def test_nothing_left_is_no_artifact(runner: Runner, tmp_path: Path, train: str) -> None:
    result = run(runner, tmp_path, train)
    assert result.train.exit_code == 0
    assert result.artifact is None
    assert result.predict == ()


# Budgets


def test_wall_budget_kills_the_whole_tree(local: LocalRunner, tmp_path: Path) -> None:
    note = tmp_path / "daemon"
    train = DAEMON + f"daemon(Path({str(note)!r}))\nimport signal\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(60)"
    result = run(local, tmp_path, train, limits=budgets(train_s=0.5))
    assert (result.train.killed_for, result.train.signal, result.train.exit_code) == ("wall", 9, None)
    assert 0.5 <= result.train.wall_s < 1.5
    assert gone(int(note.read_text()))
    assert result.artifact is None


def test_memory_budget_kills(runner: Runner, tmp_path: Path) -> None:
    train = "import time\nhoard = []\nwhile True:\n    hoard.append(bytearray(b'x') * (8 << 20))\n    time.sleep(0.002)"
    result = run(runner, tmp_path, train, limits=budgets(memory_bytes=100 * MIB))
    assert result.train.killed_for == "memory"
    assert 100 * MIB < result.train.max_rss_bytes < 1000 * MIB


def test_memory_budget_is_the_tree_s_and_counts_shared_pages_once(runner: Runner, tmp_path: Path) -> None:
    split = """
import os, sys, time
size = int(sys.argv[2][0] == "/") * (60 << 20)
if {shared}:
    hoard = b"x" * size
children = []
for _ in range(3):
    children.append(os.fork())
    if not children[-1]:
        if not {shared}:
            hoard = b"x" * size
        time.sleep(0.4)
        os._exit(0)
for child in children:
    os.waitpid(child, 0)
"""
    limits = budgets(memory_bytes=150 * MIB)
    assert run(runner, tmp_path, split.format(shared=True), limits=limits).train.killed_for is None
    assert run(runner, tmp_path, split.format(shared=False), limits=limits).train.killed_for == "memory"


def test_log_budget_kills_and_caps(runner: Runner, tmp_path: Path) -> None:
    result = run(runner, tmp_path, "import os\nwhile True: os.write(2, b'flood ' * 1000)")
    assert result.train.killed_for == "log"
    assert result.train.log_bytes > 20_000
    assert len(result.log) == 20_000
    assert b"flood" in result.log


def test_log_budget_is_the_run_s(runner: Runner, tmp_path: Path) -> None:
    chatty = "print('t' * 12_000)\n"
    result = run(runner, tmp_path, TRAIN + chatty, PREDICT + chatty)
    assert [facts.killed_for for facts in (result.train, *result.predict)] == [None, "log"]
    assert len(result.log) == 20_000


def test_cpu_budget_kills(runner: Runner, tmp_path: Path) -> None:
    train = "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 3))\nwhile True: pass"
    assert run(runner, tmp_path, train).train.killed_for == "cpu"


def test_process_budget_kills(runner: Runner, tmp_path: Path) -> None:
    train = "import os, time\nfor _ in range(40):\n    if not os.fork():\n        break\ntime.sleep(20)"
    result = run(runner, tmp_path, train)
    assert (result.train.killed_for, result.train.signal) == ("processes", 9)
    assert result.train.wall_s < 10


# What training leaves


@pytest.mark.parametrize(
    ("leave", "reason"),
    [
        ("os.symlink('/etc/passwd', out + '/link')", "link is a symbolic link"),
        ("os.symlink('/etc', out + '/link')", "link is a symbolic link"),
        ("os.rmdir(out); os.symlink('/etc', out)", "out cannot be read"),
        ("open(out + '/../own', 'w'); os.link(out + '/../own', out + '/name')", "name has"),
        ("os.mkfifo(out + '/pipe')", "pipe is not a regular file"),
        ("socket.socket(socket.AF_UNIX).bind(out + '/sock')", "sock is not a regular file"),
        ("open(out.encode() + b'/\\xff', 'w')", "is not a short printable path"),
        ("open(out + '/two\\nlines', 'w')", "is not a short printable path"),
        ("[open(out + f'/{n}', 'w') for n in range(1001)]", "more than 1000"),
        ("os.makedirs(out + '/d' * 30)", "is not a short printable path"),
    ],
)
def test_artifact_of_other_than_plain_files_is_refused(runner: Runner, tmp_path: Path, leave: str, reason: str) -> None:
    prelude = "import os, socket, sys\nout = sys.argv[2]\n"
    if "AF_UNIX" in leave:
        leave = "os.chdir(out); " + leave.replace("out + '/sock'", "'sock'")
    result = run(runner, tmp_path, prelude + leave)
    assert result.train.exit_code == 0, result.log
    assert (result.artifact, result.artifact_bytes, result.predict) == (None, None, ())
    assert reason in result.log.decode()


@pytest.mark.parametrize("leave", ["os.symlink('/etc/passwd', output)", "os.mkfifo(output)", "os.mkdir(output)"])
def test_answer_that_is_no_plain_file_is_refused(runner: Runner, tmp_path: Path, leave: str) -> None:
    result = run(runner, tmp_path, predict="import os, sys\noutput = sys.argv[3]\n" + leave)
    assert result.predict[0].exit_code == 0
    assert result.answers == ()


def test_daemon_of_training_is_dead_before_prediction(local: LocalRunner, tmp_path: Path) -> None:
    note = tmp_path / "daemon"
    predict = f"""
import os, sys
pid = int(open({str(note)!r}).read())
try:
    os.kill(pid, 0)
except ProcessLookupError:
    open(sys.argv[3], "w").write("dead")
"""
    result = run(local, tmp_path, "import sys\n" + KEEP + DAEMON + f"daemon(Path({str(note)!r}))", predict)
    assert [path.read_text() for path in result.answers] == ["dead", "dead"]
    assert result.train.exit_code == 0


def test_only_the_artifact_passes_from_process_to_process(runner: Runner, tmp_path: Path) -> None:
    """Not from training to prediction, nor between predictions or seeds, by the folders that a run offers."""
    look = """
import os, sys, tempfile
from pathlib import Path
here = Path.cwd()
into = here.parent if here.is_relative_to("/workspace") else here.parent.parent
def texts(*folders):
    paths = [path for folder in folders for path in Path(folder).rglob("*") if path.suffix != ".py"]
    return [path.read_bytes() for path in paths if path.is_file()]
seen = texts(into, tempfile.gettempdir(), Path.home())
assert tempfile.gettempdir().startswith(str(into)) and str(Path.home()).startswith(str(into))
assert b"stowed" not in seen, "a note came through"
Path("stowed").write_text("stowed")
Path(tempfile.gettempdir(), "stowed").write_text("stowed")
"""
    train = look + f"assert not any(b'challenge' in text for text in seen)\n{KEEP}"
    predict = (
        look
        + "assert sum(b' challenge' in text for text in seen) == 1, seen\n"
        + "Path(sys.argv[1], 'stowed').write_text('stowed')\n"
        + "Path(sys.argv[3]).write_text('my answer to a challenge')\n"
    )
    for _ in range(2):
        result = run(runner, tmp_path, train, predict)
        assert len(result.answers) == 2, result.log.decode()


def test_artifact_that_a_prediction_changes_is_not_used_again(local: LocalRunner, tmp_path: Path) -> None:
    predict = (
        PREDICT
        + """
for path in Path.cwd().parent.parent.rglob("weights"):
    path.chmod(0o644)
    path.write_text("better")
"""
    )
    result = run(local, tmp_path, predict=predict)
    assert len(result.predict) == len(result.answers) == 1
    assert b"nested/weights changed after it was frozen" in result.log


def test_environment_has_no_secret(runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-hidden")
    monkeypatch.setenv("PYTHONPATH", "/hidden")
    train = """
import os, sys
from pathlib import Path
seen = []
for pid in (os.getpid(), os.getppid()):
    try:
        seen.append(Path(f"/proc/{pid}/environ").read_bytes())
    except OSError:
        pass
print(dict(os.environ), seen, os.listdir("/proc/self/fd"), sys.path)
"""
    for command in (None, ("python", "-u", "train.py")):
        log = run(runner, tmp_path, train, command=command).log.decode()
        assert "OMP_NUM_THREADS': '1'" in log
        assert "hidden" not in log
        assert "ANTHROPIC" not in log
        assert "['0', '1', '2', '3']" in log  # the fourth is the listing itself


# The world fails


def test_interrupt_kills_and_is_passed_on(local: LocalRunner, tmp_path: Path) -> None:
    note = tmp_path / "daemon"
    train = DAEMON + f"daemon(Path({str(note)!r}))\ntime.sleep(60)"

    def interrupt() -> None:
        assert appeared(note)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(local, tmp_path, train)
    thread.join()
    assert gone(int(note.read_text()))
    assert run(local, tmp_path).artifact


def test_many_runs_leak_nothing(runner: Runner, tmp_path: Path) -> None:
    run(runner, tmp_path)
    me = psutil.Process()
    before = me.num_fds(), len(me.children(recursive=True)), sum(child.num_fds() for child in me.children())
    for _ in range(30):
        run(runner, tmp_path)
    assert (me.num_fds(), len(me.children(recursive=True)), sum(child.num_fds() for child in me.children())) == before
    runner.close()
    runner.close()
    assert not me.children()


# What only the warm process of this machine promises


@pytest.mark.parametrize("daemonic", [False, True])
def test_death_of_the_supervisor_kills_the_recipe(tmp_path: Path, daemonic: bool) -> None:
    note, script = tmp_path / "note", tmp_path / "supervisor.py"
    itself = (
        f"note = Path({str(note)!r})\n"
        + """
note.with_suffix(".part").write_text(str(os.getpid()))
note.with_suffix(".part").rename(note)
"""
    )
    train = DAEMON + (f"daemon(Path({str(note)!r}))" if daemonic else itself) + "\ntime.sleep(60)"
    script.write_text(f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tests.test_runners import LocalRunner, run
run(LocalRunner("process"), Path({str(tmp_path)!r}), {train!r})
""")
    with subprocess.Popen(
        [sys.executable, str(script)], cwd=Path(__file__).parents[1], env={"TMPDIR": str(tmp_path)}
    ) as supervisor:
        assert appeared(note)
        assert warm_homes(tmp_path)
        supervisor.kill()
    assert gone(int(note.read_text()), within_s=2)
    deadline_s = time.monotonic() + 5
    while warm_homes(tmp_path) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not warm_homes(tmp_path)


@pytest.mark.parametrize("cleared", [False, True])
def test_recipe_that_kills_the_warm_process_has_crashed(local: LocalRunner, tmp_path: Path, cleared: bool) -> None:
    """An infrastructure error would give it the same seed again: a way to draw until a timing is lucky."""
    note = tmp_path / "daemon"
    train = DAEMON + f"daemon(Path({str(note)!r}))\n"
    train += f"import ctypes\nif {cleared}: ctypes.CDLL(None).prctl(1, 0)\n"
    train += f"Path({str(tmp_path / 'main')!r}).write_text(str(os.getpid()))\nos.kill(os.getppid(), 9)\ntime.sleep(60)"
    result = run(local, tmp_path, train)
    assert (result.train.killed_for, result.train.exit_code, result.artifact) == ("runner", None, None)
    assert b"the warm process was killed by SIGKILL" in result.log
    for pid in (note, tmp_path / "main"):
        assert gone(int(pid.read_text()), within_s=0.5)
    assert run(local, tmp_path).artifact


def test_recipe_that_stops_the_warm_process_has_crashed(
    local: LocalRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.local.GRACE_S", 0.3)
    note = tmp_path / "daemon"
    train = DAEMON + f"daemon(Path({str(note)!r}))\nos.kill(os.getppid(), 19)\ntime.sleep(60)"
    result = run(local, tmp_path, train, limits=budgets(train_s=1))
    assert result.train.killed_for == "runner"
    assert result.train.wall_s >= 1.3
    assert b"said nothing for 1 s" in result.log
    assert gone(int(note.read_text()), within_s=0.5)
    assert run(local, tmp_path).artifact


def test_preload_that_cannot_be_imported_is_an_infrastructure_error(local: LocalRunner, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="cannot preload no_such_module"):
        run(local, tmp_path, preload=("no_such_module",))
    assert run(local, tmp_path).artifact


def test_recipe_cannot_reach_the_channel_of_its_facts(local: LocalRunner, tmp_path: Path) -> None:
    train = """
import os, sys
for number in range(100):
    path = f"/proc/{os.getppid()}/fd/{number}"
    try:
        if "socket" in os.readlink(path):
            open(path, "wb")
            print("opened")
    except OSError as error:
        print("closed:", error.strerror)
"""
    log = run(local, tmp_path, train).log.decode()
    assert "closed: No such device or address" in log or "closed: Permission denied" in log
    assert "opened" not in log


def test_remove_deletes_what_a_hostile_recipe_can_leave(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("stays")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / ".removing-0").mkdir()
    (tree / "link").symlink_to(tmp_path)
    os.mkfifo(tree / "pipe")
    start = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tree)
        for _ in range(600):
            Path("deeper").mkdir()
            os.chdir("deeper")
        Path("leaf").touch()
        Path("..").chmod(0)
    finally:
        os.fchdir(start)
        os.close(start)
    remove(tree)
    remove(tree)
    assert list(tmp_path.iterdir()) == [outside]
    assert outside.read_text() == "stays"
