"""Whether MLflow has all of a sweep: a small file in the sweep's folder, whole or not there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reports.json_files import UnusableError, as_object, read_json
from search_spaces.atomic import write_atomically

DELIVERY_FILE = "tracking.json"


@dataclass(frozen=True)
class Delivery:
    """What is known of a sweep's tracking store."""

    uri: str
    """The store's address, without credentials."""
    delivered: bool
    """Whether the store says all that the results say."""
    reason: str | None = None
    """Why it does not."""


def write_delivery(sweep_folder: Path, delivery: Delivery) -> None:
    """Put the record in place of the one before.

    Args:
        sweep_folder: `runs/<sweep>`.
        delivery: what is known now.

    Raises:
        OSError: it cannot be written; then there is none, because the one before may be wrong.
    """
    file = sweep_folder / DELIVERY_FILE
    try:
        write_atomically(file, json.dumps(asdict(delivery), indent=2, ensure_ascii=False) + "\n")
    except OSError:
        file.unlink(missing_ok=True)
        raise


def read_delivery(sweep_folder: Path) -> dict[str, Any] | None:
    """The record as plain data; None where no sweep has left one.

    Args:
        sweep_folder: `runs/<sweep>`.
    """
    try:
        record = as_object(read_json(sweep_folder / DELIVERY_FILE), "the record")
        return asdict(Delivery(**record))
    except (UnusableError, TypeError):
        return None
