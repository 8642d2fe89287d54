"""Lets other threads have things done in the main thread, which alone may touch the ledger."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from agentgolf.errors import InterruptedRunError

T = TypeVar("T")


class Mailbox:
    """Belongs to the thread that makes it."""

    def __init__(self) -> None:
        self._owner = threading.get_ident()
        self._posted: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._closed = threading.Event()

    def call(self, work: Callable[[], T]) -> T:
        """What `work` gives or raises in the owner's thread; blocks until the owner serves.

        Raises `InterruptedRunError` once the mailbox is closed.
        """
        if threading.get_ident() == self._owner:
            return work()
        future: Future[T] = Future()
        self._posted.put((work, future))
        if self._closed.is_set():
            self._turn_away()
        return future.result()

    def wake(self) -> None:
        """End a wait in `serve`, from any thread and without waiting for it."""
        self._posted.put((lambda: None, Future()))

    def serve(self, seconds: float) -> None:
        """Do what was asked for; wait at most so long for the first."""
        try:
            work, future = self._posted.get(timeout=seconds) if seconds > 0 else self._posted.get_nowait()
        except queue.Empty:
            return
        while True:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001  (raised in the thread that asked)
                future.set_exception(error)
            try:
                work, future = self._posted.get_nowait()
            except queue.Empty:
                return

    def close(self) -> None:
        """From now on every call is turned away, and so are those that wait."""
        self._closed.set()
        self._turn_away()

    def _turn_away(self) -> None:
        while True:
            try:
                _, future = self._posted.get_nowait()
            except queue.Empty:
                return
            future.set_exception(InterruptedRunError("stopped; go on with: agentgolf resume"))
