"""Appending through the process that owns the ledger, over its socket."""

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ledger.events import Draft, Event
from ledger.locks import LedgerError
from ledger.protocol import FrameError, answered, ask, expected_bytes, socket_path, take

ANSWER_S = 60.0
"""An owner that is alive answers within the time of one commit; a large batch before ours may take seconds."""
_CHUNK_BYTES = 2**18
_CREDENTIALS = struct.Struct("3i")


class Remote:
    """One connection to the owner of a ledger. For one thread and one process."""

    def __init__(self, path: Path, connection: socket.socket, pid: int) -> None:
        self.path = path
        self.broken = False
        """The owner went away, or nobody knows what became of the last request: join again."""
        self._socket = connection
        self.owner = pid
        self._pid = os.getpid()
        self._received = bytearray()

    @classmethod
    def join(cls, path: Path) -> "Remote | None":
        """Connect to the owner of the ledger at `path`; None where nobody listens.

        Raises LedgerError where the one who listens is another user, who could acknowledge what is never stored.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_address(socket_path(path)) as address:
                connection.connect(address)
            pid, uid = peer_of(connection)
            if uid not in (os.getuid(), 0):
                raise LedgerError(f"{socket_path(path)}: expected an owner of user {os.getuid()}, found user {uid}")
            connection.settimeout(ANSWER_S)
        except OSError:
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, pid)

    def append(self, drafts: Sequence[Draft], expect: int | None) -> list[Event]:
        """As `EventLog.append`. Raises LedgerError where the owner goes away before it answers."""
        if self._pid != os.getpid():
            raise LedgerError(f"{self.path}: opened by process {self._pid}; a fork must not append to it")
        request = bytes(ask(drafts, expect))
        self.broken = True
        try:
            self._socket.sendall(request)
            while (frame := take(self._received)) is None:
                if not (chunk := self._socket.recv(max(_CHUNK_BYTES, expected_bytes(self._received)))):
                    raise ConnectionResetError("it closed the connection")
                self._received += chunk
        except (OSError, FrameError) as error:
            raise LedgerError(
                f"{self.path}: its owner, process {self.owner}, did not acknowledge the append ({error}); "
                "append the same ids again"
            ) from error
        self.broken = False
        return answered(frame, drafts)

    def close(self) -> None:
        """Leave the owner."""
        self._socket.close()
        self.broken = True


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Process id and user id of the other end, as the kernel knows them."""
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """An address for the socket at `path`: the kernel takes 107 bytes, and paths are longer."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
