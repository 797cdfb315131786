"""The owner: many processes append through one, each told only of what is durable, whatever else is on the socket."""

import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger.events import Draft, EventError
from ledger.locks import OwnedError
from ledger.log import ConflictError, EventLog, LedgerError
from ledger.owner import Owner
from ledger.protocol import MAGIC, MAX_JSON_BYTES, PREFIX, Frame, answered, ask, socket_path, take
from ledger.remote import Remote, short_address
from tests.test_ledger import check_whole, draft


def fork(action: Callable[[], object]) -> int:
    """Run `action` in a child; an import would take longer than most of these tests."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def own(path: Path) -> None:
    with EventLog.own(path) as log:
        owner = Owner(log)
        signal.signal(signal.SIGTERM, lambda *_: owner.stop())
        owner.serve()
        owner.close()


def wait_for_owner(path: Path) -> None:
    for _ in range(500):
        if (remote := Remote.join(path)) is not None:
            remote.close()
            return
        time.sleep(0.01)
    raise AssertionError("no owner listens after 5 s")


@contextmanager
def owned(path: Path) -> Iterator[int]:
    """A ledger with an owner in another process; gives the owner's process id."""
    if not path.exists():
        EventLog.create(path).close()
    child = fork(lambda: own(path))
    try:
        wait_for_owner(path)
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "ledger.db"
    with owned(path):
        yield path


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_address(socket_path(path)) as address:
        connection.connect(address)
    connection.settimeout(5)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def test_an_append_through_the_owner_is_stored_and_read_back(path: Path) -> None:
    with EventLog.open(path) as log:
        written = log.append([draft("one"), draft("two", (b"blob",))])
        assert [event.seq for event in written] == [0, 1]
        assert (log.size, list(log.events())) == (2, written)
        assert log.append([draft("three")], expect=log.size)[0].seq == 2
        assert log.blob(next(iter(written[1].blobs))) == b"blob"
        assert log.tree().root() == log.head().root
        check_whole(log)


def test_an_append_by_id_is_idempotent_through_the_owner(path: Path) -> None:
    with EventLog.open(path) as log:
        first = log.append([draft("once", id="a")])
        assert log.append([draft("once", id="a"), draft("new", id="b")])[0] == first[0]
        with pytest.raises(ConflictError, match="stands for another event"):
            log.append([draft("other", id="a")])
        assert log.append([]) == []
        assert log.size == 2


def test_a_request_at_fault_is_told_and_the_next_one_goes_on(path: Path) -> None:
    with EventLog.open(path) as log:
        log.append([draft("kept")])
        with pytest.raises(ConflictError, match="expected a log of 7 events, found 1"):
            log.append([draft("late")], expect=7)
        with pytest.raises(EventError, match="store the large field as a blob"):
            log.append([draft("fine", (b"lost",)), draft("x" * 70_000)])
        with pytest.raises(EventError, match="correction_recorded"):
            log.append([Draft(draft().body.model_copy(update={"author": "\ud800"}), "person:a")])
        assert log.append([draft("after")])[0].seq == 1
        assert list(log.frames()) == []
        check_whole(log)


def test_a_request_at_fault_does_not_fail_its_group(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    EventLog.create(path).close()
    wrong, bad, good = (
        ([draft("wrong")], 7),
        ([draft("x" * 70_000, (b"lost",))], None),
        ([draft("good", (b"b",))], None),
    )
    with EventLog.own(path) as log:
        owner = Owner(log)
        log.append([draft("first")])
        connections = [connect(path) for _ in range(4)]
        for connection, (drafts, expect) in zip(connections, (good, wrong, bad, good), strict=True):
            connection.sendall(bytes(ask(drafts, expect)))
        child = fork(lambda: time.sleep(0.3) or os.kill(os.getppid(), signal.SIGUSR1))
        kept = signal.signal(signal.SIGUSR1, lambda *_: owner.stop())
        owner.serve()
        signal.signal(signal.SIGUSR1, kept)
        os.waitpid(child, 0)
        frames = [take(bytearray(connection.recv(65536))) for connection in connections]
        assert [frame and frame.text[:8] for frame in frames] == [b'["events', b'["confli', b'["event"', b'["events']
        assert frames[0] is not None
        assert answered(frames[0], good[0])[0].seq == 1
        assert (log.size, len(list(log.frames()))) == (2, 1)
        owner.close()
        check_whole(log)


def test_a_second_owner_is_refused_with_the_pid_of_the_first(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "labtrail", "own", "--ledger", str(path)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    remote = Remote.join(path)
    assert remote is not None
    assert f"process {remote.owner} " in second.stderr
    remote.close()
    assert (second.returncode, len(second.stderr.splitlines())) == (2, 1)
    with pytest.raises(OwnedError):
        EventLog.own(path)


def test_the_socket_is_for_its_user_alone(path: Path) -> None:
    assert stat.S_IMODE(socket_path(path).stat().st_mode) == 0o600


def test_a_ledger_in_a_deep_folder_has_an_owner_too(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30) / ("deeper" * 30)
    folder.mkdir(parents=True)
    with owned(folder / "ledger.db"), EventLog.open(folder / "ledger.db") as log:
        assert log.append([draft("deep")])[0].seq == 0


def test_own_ends_cleanly_and_takes_its_socket_away(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    command = [sys.executable, "-m", "labtrail", "own", "--ledger", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert f"process {process.pid} owns {path} with 0 events" in process.stdout.readline()
    with EventLog.open(path) as log:
        log.append([draft("one")])
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "1 events appended" in output
        assert not socket_path(path).exists()
        with pytest.raises(LedgerError, match="append the same ids again"):
            log.append([draft("two", id="two")])
        assert log.append([draft("two", id="two")])[0].seq == 1, "nobody owns it: this process does"
        with pytest.raises(OwnedError, match=str(os.getpid())):
            EventLog.own(path)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with owned(path):
        pass
    assert socket_path(path).exists(), "kill -9 leaves the socket"
    with EventLog.open(path) as log:
        assert log.append([draft("directly")])[0].seq == 0
    with owned(path), EventLog.open(path) as log:
        assert log.append([draft("through the owner")])[0].seq == 1


GARBAGE = (
    b"GET / HTTP/1.1\r\n\r\n",
    os.urandom(4096),
    PREFIX.pack(MAGIC, 0, 0),
    PREFIX.pack(MAGIC, MAX_JSON_BYTES + 1, 0),
    PREFIX.pack(MAGIC, 2, 2**32 - 1),
    bytes(Frame(b"not json")),
    bytes(Frame(b"[1,2,3]")),
    bytes(Frame(b'{"expect":1}')),
    bytes(Frame(b'["0",[]]')),
    bytes(Frame(b'[null,[["a","correction_recorded",null,null,"person:a","{}",[5]]]]', b"1234")),
    bytes(Frame(b'[null,[["a","correction_recorded",null,null,"person:a","{}",[-1]]]]', b"1234")),
    bytes(Frame(b"[" * 100_000)),
)


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_answered_with_one_error_and_the_connection_closed(path: Path, garbage: bytes) -> None:
    with connect(path) as connection:
        connection.sendall(garbage)
        received = bytearray(read_to_end(connection))
    frame = take(received)
    assert (frame and frame.text.startswith(b'["ledger","'), received) == (True, b"")
    assert frame is not None
    assert b"expected" in frame.text
    with EventLog.open(path) as log:
        assert log.append([draft("still there")])[0].seq == 0


@pytest.mark.parametrize(
    "row",
    [
        b'"a","no_such_type",null,null,"person:a","{}"',
        b'"a","correction_recorded",null,null,"person:a","{}"',
        b'"a","correction_recorded",null,null,"nobody","{\\"target\\":0,\\"author\\":\\"a\\",\\"reason\\":\\"r\\",\\"statement\\":\\"\\"}"',
        b'"a\\"b","correction_recorded",null,null,"person:a","{\\"target\\":0,\\"author\\":\\"a\\",\\"reason\\":\\"r\\",\\"statement\\":\\"\\"}"',
        b'7,"correction_recorded",[],{},true,"{\\"target\\":0,\\"author\\":\\"a\\",\\"reason\\":\\"r\\",\\"statement\\":\\"\\"}"',
        b'"a","correction_recorded",null,null,"person:a",{}',
    ],
)
def test_a_bad_draft_is_an_error_of_its_own_and_nothing_is_stored(path: Path, row: bytes) -> None:
    with connect(path) as connection:
        connection.sendall(bytes(Frame(b"[null,[[" + row + b",[]]]]")))
        frame = take(bytearray(connection.recv(65536)))
        assert frame is not None
        assert frame.text.startswith(b'["event","')
        connection.sendall(bytes(ask([draft("good")], 0)))
        frame = take(bytearray(connection.recv(65536)))
        assert frame is not None
        assert frame.text.startswith(b'["events",')


def test_half_a_frame_and_an_answer_nobody_takes_hold_up_nobody(path: Path) -> None:
    with connect(path) as half, connect(path) as deaf, EventLog.open(path) as log:
        half.sendall(bytes(ask([draft("half")], None))[:-1])
        deaf.setblocking(False)
        request = bytes(ask([draft(f"deaf {number}", id=f"{number}") for number in range(50)], None))
        try:
            for _ in range(2000):
                deaf.send(request)
        except BlockingIOError:
            pass
        started = time.perf_counter()
        log.append([draft("other")])
        assert time.perf_counter() - started < 5
        check_whole(log)


def test_readers_see_whole_batches_while_clients_append(path: Path) -> None:
    def append() -> None:
        with EventLog.open(path) as log:
            for _ in range(60):
                log.append([draft(str(number)) for number in range(3)])

    clients = [fork(append) for _ in range(4)]
    sizes = []
    with EventLog.read_only(path) as log:
        while not sizes or sizes[-1] < 720:
            with log.snapshot() as size:
                head = log.head()
                assert (head.size, size % 3) == (size, 0)
                assert log.tree().root() == head.root
            sizes.append(size)
    assert sizes == sorted(sizes)
    assert [os.waitpid(client, 0)[1] for client in clients] == [0] * 4


def client(path: Path, number: int, acknowledged: int) -> None:
    """Append until killed, through whatever owner there is; each acknowledged id is written down outside."""
    turn = 0
    while True:
        try:
            if (remote := Remote.join(path)) is None:
                # Directly it would work too, and leave no owner to be killed.
                time.sleep(0.002)
                continue
            remote.close()
            with EventLog.open(path) as log:
                for _ in range(25):
                    log.append([draft(f"{number}-{turn}", id=f"{number}-{turn}")])
                    os.write(acknowledged, f"{number}-{turn}\n".encode())
                    turn += 1
        except LedgerError:
            time.sleep(0.002)


def own_as_soon_as_possible(path: Path) -> None:
    """A client that found no owner may be the writer for a moment."""
    while True:
        try:
            own(path)
        except OwnedError:
            continue


def kill_owners(path: Path, rounds: int, seed: int) -> None:
    """kill -9 of one owner after another under four clients that retry, then a look at every acknowledged id."""
    EventLog.create(path).close()
    dice = random.Random(seed)
    book = path.with_suffix(".acknowledged")
    descriptor = os.open(book, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    clients: list[int] = []
    for life in range(rounds):
        owner = fork(lambda: own_as_soon_as_possible(path))
        wait_for_owner(path)
        if not clients:
            clients = [fork(lambda number=number: client(path, number, descriptor)) for number in range(4)]
        time.sleep(dice.uniform(0.01, 0.12))
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
        if life % 5 == 4:
            # A client that found no owner may be the writer itself; it dies too, and another takes its place.
            victim = life // 5 % 4
            os.kill(clients[victim], signal.SIGKILL)
            os.waitpid(clients[victim], 0)
            clients[victim] = fork(lambda number=4 + life: client(path, number, descriptor))
    for child in clients:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(descriptor)
    acknowledged = book.read_text().split()
    with EventLog.open(path) as log:
        stored = [event.id for event in log.events()]
        assert len(set(stored)) == len(stored), "a retry stored its event twice"
        assert set(acknowledged) <= set(stored), "an acknowledged event is lost"
        assert len(acknowledged) > rounds
        print(f"{rounds} owners killed, {len(acknowledged)} appends acknowledged")
        size = log.size
        log.append([draft(id, id=id) for id in acknowledged])
        assert log.size == size, "a retry by id is a no-op"
        check_whole(log)


def test_twenty_killed_owners_lose_nothing(tmp_path: Path) -> None:
    kill_owners(tmp_path / "ledger.db", 20, seed=1)


@pytest.mark.slow
def test_two_hundred_killed_owners_lose_nothing(tmp_path: Path) -> None:
    kill_owners(tmp_path / "ledger.db", 200, seed=2)
