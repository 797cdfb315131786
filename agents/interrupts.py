"""Ctrl-C and SIGTERM at moments of our choosing: never between an append and the state that follows it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While entered, an interrupt raises KeyboardInterrupt inside `allowed` blocks only, else at the next one.

    Python delivers signals to the main thread; in another thread this class changes nothing.
    """

    def __init__(self) -> None:
        self._pending = False
        self._allowed = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Around a long wait that cleans up after itself."""
        if self._pending:
            raise KeyboardInterrupt
        self._allowed = True
        try:
            yield
        finally:
            self._allowed = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._pending = True
        if self._allowed:
            self._allowed = False
            raise KeyboardInterrupt
