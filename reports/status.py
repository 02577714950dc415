"""Where a sweep stands, from its files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reports.delivery import read_delivery
from reports.results import read_sweep

REPORT_FOLDER = "report"
TABLE_NAMES = (
    *("table1", "table2", "table3"),
    *("table1_chatmgl", "table2_chatmgl", "table3_chatmgl"),
)
TABLE_FORMATS = ("md", "tex", "csv", "html")


def sweep_status(folder: Path) -> dict[str, Any]:
    """The sweep's state, computed from `plan.json` and `trials/`; what `status.json` says is not read.

    Args:
        folder: `runs/<sweep>`.

    Returns:
        `sweep`, `trials` (total, done, failed, stopped_early, pending), `failures` (id, name, reason, message),
        `tables` (paths of the tables that are there, by name and format) and `tracking` (uri,
        delivered, reason; None where no sweep has left word of it).

    Raises:
        ReportError: there is no readable plan.
    """
    sweep = read_sweep(folder)
    tables = {
        name: {
            ending: str(file)
            for ending in TABLE_FORMATS
            if (file := folder / REPORT_FOLDER / f"{name}.{ending}").exists()
        }
        for name in TABLE_NAMES
    }
    return {
        "sweep": sweep.name,
        "trials": {
            "total": len(sweep.trials),
            "done": len(sweep.done),
            "failed": len(sweep.failed),
            "stopped_early": len(sweep.stopped_early),
            "pending": len(sweep.pending),
        },
        "failures": [
            {
                "id": trial.id,
                "name": trial.name,
                "reason": trial.reason,
                "message": trial.message,
            }
            for trial in sweep.failed
        ],
        "tables": {name: files for name, files in tables.items() if files},
        "tracking": read_delivery(folder),
    }
