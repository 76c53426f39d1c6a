"""Threads for copies that an engine's own threads must not wait for, and a bell for who waits by
descriptor."""
import logging
import os
import queue
import threading
import time
from typing import Callable, List, Optional

logger = logging.getLogger(__name__)


class Workers:
    """A few threads and a bounded queue in front of them. Thread-safe."""

    def __init__(self, name: str, threads: int, most_waiting: int) -> None:
        self._queue: "queue.Queue[Optional[Callable[[], None]]]" = queue.Queue(most_waiting)
        self._closed = False
        self._threads: List[threading.Thread] = []
        for number in range(threads):
            thread = threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def submit(self, work: Callable[[], None]) -> bool:
        """False: the queue is full, or there are no threads any more; nothing will be done."""
        if self._closed:
            return False
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            return False
        return True

    def close(self, timeout_s: float) -> bool:
        """Lets what has begun and what waits end; beyond the time what waits is dropped, and False:
        something that has begun goes on. Idempotent."""
        until = time.monotonic() + timeout_s
        self._closed = True
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            self._drop()
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            self._drop()
            return False
        return True

    def _drop(self) -> None:
        """Instead of all that waits, the end."""
        try:
            while True:
                self._queue.get_nowait()
        except queue.Empty:
            self._end()

    def _end(self) -> None:
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            pass  # it is there already

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                self._end()  # for the next thread
                return
            try:
                work()
            except Exception:
                logger.exception("terrace: a copy ended in an exception")


class Bell:
    """A descriptor that is readable from when it is rung until it is silenced. Thread-safe, but for
    `close`, which must be the last."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):  # from Python 3.10 on
            self._read = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._read

    def ring(self) -> None:
        try:
            if self._write >= 0:
                os.write(self._write, (1).to_bytes(8, "little"))
        except BlockingIOError:
            pass  # it rings already

    def silence(self) -> None:
        try:
            while self._read >= 0 and os.read(self._read, 4096) and self._read != self._write:
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        for fd in {self._read, self._write}:
            os.close(fd)
        self._read = self._write = -1
