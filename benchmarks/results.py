"""Results of record: what a benchmark measured, on which machine, as JSON and as a Markdown table."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch

from orchestrator.provenance import code_version, package_versions
from reports.render_markdown import escape_markdown
from search_spaces.atomic import write_atomically

_FOLDER = Path(__file__).parent / "results"
_PACKAGES = ("torch", "transformers", "peft", "trl", "ray")
"""Packages whose speed a benchmark measures beside our own."""


def describe_machine() -> dict[str, Any]:
    """What a number of seconds depends on: processors, memory, packages, code, day.

    `cores` counts those that this process may use, and `threads` those that torch does.
    """
    versions = package_versions()
    commit, changed = code_version()
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: versions[name] for name in _PACKAGES},
        "git_commit": commit,
        "git_dirty": changed,
        "date": datetime.now(UTC).date().isoformat(),
    }


def write_results(
    name: str, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], folder: Path = _FOLDER
) -> Path:
    """Write a benchmark's results as `<name>.json`, and as a table in `<name>.md`.

    Args:
        name: of the benchmark.
        rows: what was measured, at least one row; the keys, in the order in which they first
            appear, are the table's columns.
        facts: what holds for all rows: what was timed and how, and the machine.
        folder: where the files go; by default those of record.

    Returns:
        The JSON file.

    Raises:
        OSError: the files cannot be written.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    content = {"name": name, "facts": dict(facts), "rows": [dict(row) for row in rows]}
    numeric = {
        column
        for column in columns
        if all(isinstance(row.get(column), int | float | None) for row in rows)
    }
    lines = [
        f"# {escape_markdown(name)}",
        "",
        _line(escape_markdown(column) for column in columns),
        _line("---:" if column in numeric else "---" for column in columns),
        *(_line(_show(row.get(column)) for column in columns) for row in rows),
        "",
        *(f"- {escape_markdown(fact)}: {_show(value)}" for fact, value in facts.items()),
    ]
    write_atomically(folder / f"{name}.md", "\n".join(lines) + "\n")
    file = folder / f"{name}.json"
    write_atomically(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return file


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _show(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, Mapping):
        return "; ".join(
            f"{escape_markdown(str(key))} {_show(each)}" for key, each in value.items()
        )
    return escape_markdown(str(value))


def _cpu_model() -> str:
    """The processor's name as the system tells it; the architecture where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in names if name), platform.processor() or platform.machine())
