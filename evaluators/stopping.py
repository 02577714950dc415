"""Evaluation stops where it is asked to: between two steps, with what has settled kept."""

from __future__ import annotations

from trainers.errors import StoppedError
from trainers.progress import ShouldStop


def stop_if_asked(should_stop: ShouldStop) -> None:
    """Ask once; go on where nobody wants the trial to stop.

    Args:
        should_stop: asked.

    Raises:
        StoppedError: the answer was yes.
    """
    if should_stop():
        raise StoppedError("evaluation was asked to stop; a rerun continues with what is missing")
