"""The owner of a ledger: collects what other processes append, commits it in groups, then acknowledges."""

import os
import selectors
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ledger.events import EventError
from ledger.locks import LedgerError
from ledger.log import EventLog
from ledger.protocol import Frame, FrameError, answer, asked, socket_path, take
from ledger.remote import peer_of, short_address
from ledger.writer import Request

GATHER_S = 0.0003
"""How long a commit waits for clients that took part in the last one: they ask again as soon as they are answered."""
MAX_CLIENTS = 256
MAX_GROUP = 1024
_CHUNK_BYTES = 2**18


@dataclass
class _Client:
    """One connection: what has arrived of its next request, and what is still to be sent to it."""

    connection: socket.socket
    pid: int
    received: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)
    blocked: bool = False
    """It does not take its answers: nothing more is read from it until it does."""
    leaving: bool = False
    """Close it as soon as `unsent` is sent."""


class Owner:
    """Serves one ledger on a socket beside it, until it is told to stop. The log is open as its one writer."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.appended = 0
        """Events appended for clients."""
        self.joined = 0
        """Connections that were taken."""
        # Waits for GATHER_S; epoll and poll would round that up to a millisecond. MAX_CLIENTS stays below its 1024.
        self._selector = selectors.SelectSelector()
        self._clients: dict[int, _Client] = {}
        self._last_group = 1
        self._waiting: list[tuple[_Client, Request]] = []
        self._stopped = False
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._listener = _listen(log.path)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def serve(self) -> None:
        """Answer until `stop`. Whatever was committed is acknowledged before it returns."""
        while not self._stopped:
            self._gather(None)
            while self._waiting and len(self._waiting) < self._last_group and self._gather(GATHER_S):
                pass
            self._commit()

    def stop(self) -> None:
        """Ask `serve` to return; may be called from a signal handler or another thread."""
        self._stopped = True
        with suppress(OSError):
            self._wake.send(b"\0")

    def close(self) -> None:
        """Leave the clients and take the socket away; the log stays open."""
        socket_path(self.log.path).unlink(missing_ok=True)
        for client in list(self._clients.values()):
            self._leave(client)
        for part in (self._listener, self._wake, self._woken):
            part.close()
        self._selector.close()

    # --- what arrives --------------------------------------------------------------------------------------

    def _gather(self, timeout_s: float | None) -> bool:
        """Read what has arrived; whether anything had."""
        ready = self._selector.select(timeout_s)
        for key, events in ready:
            if key.fileobj is self._listener:
                self._welcome()
            elif key.fileobj is self._woken:
                with suppress(BlockingIOError):
                    self._woken.recv(64)
            elif (client := self._clients.get(key.fd)) is not None:
                if events & selectors.EVENT_WRITE:
                    self._send(client)
                elif events & selectors.EVENT_READ:
                    self._receive(client)
        return bool(ready)

    def _welcome(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        pid, uid = peer_of(connection)
        client = _Client(connection, pid)
        connection.setblocking(False)
        self._clients[connection.fileno()] = client
        self._selector.register(connection, selectors.EVENT_READ)
        self.joined += 1
        if uid not in (os.getuid(), 0):
            self._refuse(client, f"user {uid} may not append to a ledger of user {os.getuid()}")
        elif len(self._clients) > MAX_CLIENTS:
            self._refuse(client, f"{MAX_CLIENTS} processes are connected already; try again later")

    def _receive(self, client: _Client) -> None:
        try:
            chunk = client.connection.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._leave(client)
            return
        client.received += chunk
        try:
            while client.received and not client.leaving and (frame := take(client.received)) is not None:
                self._take(client, frame)
        except FrameError as error:
            self._refuse(client, str(error))

    def _take(self, client: _Client, frame: Frame) -> None:
        try:
            self._waiting.append((client, asked(frame)))
        except EventError as error:
            self._answer(client, answer(error))

    # --- what is stored and sent ---------------------------------------------------------------------------

    def _commit(self) -> None:
        """One transaction for everything that waits, then the answers."""
        while self._waiting:
            group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
            self._last_group = len(group)
            size = self.log.writer.size
            try:
                outcomes = self.log.writer.commit([request for _, request in group])
            except LedgerError as error:
                # Perhaps a full disk: the clients are told, and the next group may fare better.
                for client, _ in group:
                    self._answer(client, answer(error))
                continue
            self.appended += self.log.writer.size - size
            for (client, _), outcome in zip(group, outcomes, strict=True):
                self._answer(client, answer(outcome))

    def _answer(self, client: _Client, frame: Frame) -> None:
        client.unsent += bytes(frame)
        self._send(client)

    def _send(self, client: _Client) -> None:
        if client.connection.fileno() < 0:
            return
        try:
            sent = client.connection.send(client.unsent)
            del client.unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._leave(client)
            return
        if client.leaving and not client.unsent:
            self._leave(client)
        elif bool(client.unsent) != client.blocked:
            client.blocked = bool(client.unsent)
            self._selector.modify(client.connection, selectors.EVENT_WRITE if client.blocked else selectors.EVENT_READ)

    def _refuse(self, client: _Client, why: str) -> None:
        """Say why, and close the connection; whoever talks another protocol cannot be answered twice."""
        client.leaving = True
        client.received.clear()
        self._answer(client, answer(LedgerError(f"{self.log.path}: the owner refused: {why}")))

    def _leave(self, client: _Client) -> None:
        self._clients.pop(client.connection.fileno(), None)
        with suppress(KeyError, ValueError):
            self._selector.unregister(client.connection)
        client.connection.close()


@contextmanager
def serving(log: EventLog) -> Iterator[Owner]:
    """An owner that Ctrl-C and SIGTERM stop between two commits, with its socket taken away at the end."""
    owner = Owner(log)
    kept = {number: signal.signal(number, lambda *_: owner.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield owner
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        owner.close()


def _listen(path: Path) -> socket.socket:
    """A socket beside the ledger for its user alone. Whoever holds the writer's lock may replace one that was left."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        socket_path(path).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            with short_address(socket_path(path)) as address:
                listener.bind(address)
        finally:
            os.umask(before)
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise LedgerError(f"{socket_path(path)}: cannot listen there: {error.strerror or error}") from error
    return listener
