"""Progress that a person can follow: one line for each step, and a sign of life in between."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

logger = logging.getLogger("margin")

SILENCE_SECONDS = 3.0


class Progress:
    """Writes progress lines to a stream, and says what it is waiting for when nothing else was said for a while."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._last_line = self._started
        self._waiting_for = "Airflow"
        self._stopped = threading.Event()
        self._pulse = threading.Thread(target=self._beat, name="progress", daemon=True)
        self._pulse.start()

    def line(self, text: str, *, waiting_for: str | None = None) -> None:
        """Write one line; ``waiting_for`` names what comes next."""
        with self._lock:
            now = time.monotonic()
            self._stream.write(f"{now - self._started:7.1f}s  {text}\n")
            self._stream.flush()
            self._last_line = now
            if waiting_for is not None:
                self._waiting_for = waiting_for

    def close(self) -> None:
        """Stop the signs of life."""
        self._stopped.set()
        self._pulse.join()

    def _beat(self) -> None:
        while not self._stopped.wait(0.5):
            if time.monotonic() - self._last_line >= SILENCE_SECONDS:
                self.line(f"  ... {self._waiting_for}")


_current: Progress | None = None


@contextmanager
def progress_to(stream: TextIO) -> Iterator[Progress]:
    """Send progress lines to ``stream`` for as long as the block runs."""
    global _current
    progress = Progress(stream)
    _current = progress
    try:
        yield progress
    finally:
        _current = None
        progress.close()


def say(text: str, *, waiting_for: str | None = None) -> None:
    """Report progress: to the person who watches the command line, else to the task's log."""
    if _current is not None:
        _current.line(text, waiting_for=waiting_for)
    else:
        logger.info(text)
