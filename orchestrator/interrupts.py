"""Ctrl-C and its relatives: asked once, trials stop where they can continue; asked twice, at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_ASKING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, a scheduler's or `kill`'s request, and a terminal that was closed."""


class Interrupts:
    """What a signal does now; `KeyboardInterrupt` where nothing else was said."""

    def __init__(self) -> None:
        self.ask: Callable[[], None] | None = None
        self.quiet = False

    @contextmanager
    def asking(self, ask: Callable[[], None]) -> Iterator[None]:
        """The first signal calls `ask`, the second raises KeyboardInterrupt.

        Args:
            ask: called in the main thread between two instructions: must not wait or print.
        """
        self.ask = ask
        try:
            yield
        finally:
            self.ask = None

    @contextmanager
    def ignored(self) -> Iterator[None]:
        """Signals do nothing, while what must not be left half-done is brought to its end."""
        self.quiet = True
        try:
            yield
        finally:
            self.quiet = False

    def take(self, number: int, frame: FrameType | None) -> None:
        """Answer a signal."""
        if self.quiet:
            return
        ask, self.ask = self.ask, None
        if ask is None:
            raise KeyboardInterrupt
        ask()


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Answer signals for the length of a block; outside the main thread, nothing changes."""
    answer = Interrupts()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in _ASKING:
            number = getattr(signal, name, None)
            # A process started with `nohup`, or in the background, was told not to listen.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, answer.take)
    try:
        yield answer
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
