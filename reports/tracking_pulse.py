"""Signs of life of a tracking store, from the thread that asks it to the one that waits for it."""

from __future__ import annotations

import threading
import time

from reports.results import ReportError
from search_spaces.errors import one_problem


class GivenUpError(ReportError):
    """Nobody waits for the tracking store any more: no further request is made."""


class Pulse:
    """When the store answered last, and whether anyone still waits for it.

    A slow store that answers is waited for; one that says nothing is not. Only the caller's requests
    tell the two apart: each that begins shows that the one before it was answered.
    """

    def __init__(self) -> None:
        self._latest = time.monotonic()
        self._first = True
        self._given_up = threading.Event()

    def begin(self) -> None:
        """A new attempt: its first request shows nothing about an earlier attempt's last."""
        self._first = True

    def beat(self) -> None:
        """A request is about to be made.

        Raises:
            GivenUpError: `give_up` was called.
        """
        if self._given_up.is_set():
            raise GivenUpError(one_problem("MLflow", "", "no longer waited for"))
        if not self._first:
            self.answered()
        self._first = False

    def answered(self) -> None:
        """All requests of an attempt were answered."""
        self._latest = time.monotonic()

    def quiet_s(self) -> float:
        """Seconds since the store was last known to answer."""
        return time.monotonic() - self._latest

    def give_up(self) -> None:
        """Let the next request, and every pause, end at once."""
        self._given_up.set()

    def pause(self, seconds: float) -> bool:
        """Wait between two attempts; returns whether another one is wanted.

        Args:
            seconds: how long.
        """
        return not self._given_up.wait(seconds)
