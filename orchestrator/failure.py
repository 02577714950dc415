"""A failed trial: its class, its first useful line, and its record."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, Literal

from corpora.privacy import guard, privacy_of
from orchestrator.errors import WorkerLostError, first_line
from orchestrator.storage import write_json
from orchestrator.trial import TrialWork
from search_spaces.errors import InputError
from search_spaces.secrets import hide_secrets
from trainers.errors import DivergedError, is_out_of_memory

Reason = Literal["diverged", "out_of_memory", "worker_lost", "configuration", "error"]


def reason_of(error: BaseException) -> Reason:
    """The class of a failure.

    Args:
        error: what ended the trial.
    """
    if isinstance(error, DivergedError):
        return "diverged"
    if isinstance(error, InputError):
        return "configuration"
    if isinstance(error, WorkerLostError):
        return "out_of_memory" if error.memory_kills else "worker_lost"
    if is_out_of_memory(error):
        return "out_of_memory"
    return "error"


def record_failure(
    work: TrialWork, reason: Reason, message: str, trace: str = ""
) -> dict[str, Any]:
    """Write a trial's `failure.json`, without what must not be recorded: secrets, personal data.

    Args:
        work: the trial.
        reason: its class.
        message: the first useful line.
        trace: the traceback, where there is one.
    """
    privacy = privacy_of(work.spec)
    failure = {
        "id": work.id,
        "name": work.name,
        "spec": dict(work.spec),
        "status": "failed",
        "reason": reason,
        "message": guard(hide_secrets(message), privacy),
        "traceback": guard(hide_secrets(trace), privacy),
    }
    write_json(Path(work.folder) / "failure.json", failure)
    return failure


def record_error(work: TrialWork, error: BaseException) -> dict[str, Any]:
    """Write the failure that an exception is.

    Args:
        work: the trial.
        error: what ended it.
    """
    message = first_line(error)
    if not isinstance(error, (InputError, DivergedError, WorkerLostError)):
        message = f"{type(error).__name__}: {message}"
    trace = "".join(traceback.format_exception(error))
    return record_failure(work, reason_of(error), message, trace)
