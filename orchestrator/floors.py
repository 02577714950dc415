"""The floors of a sweep: what no model at all would score on each test set of the tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from orchestrator.plan import Plan
from orchestrator.storage import SweepFolder
from search_spaces.identity import spec_from_dict, spec_to_dict


class Workers(Protocol):
    """Something that calls functions side by side."""

    def call(self, function: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a function once per tuple of arguments."""
        ...


def write_floors(plan: Plan, folder: SweepFolder, workers: Workers) -> None:
    """Bring `floors.json` up to date: one entry a floor, test set and way of scoring.

    Floors that are there already for the same test set, metrics and corpus are kept.

    Args:
        plan: the sweep's.
        folder: its folder.
        workers: compute what is missing.
    """
    known = {entry["key"]: entry for entry in _read(folder)}
    wanted: dict[str, dict[str, Any]] = {}
    for trial in plan.trials:
        if folder.result(trial.id) is None:
            continue
        spec = spec_to_dict(trial.spec)
        parts = {name: spec[name] for name in ("loader", "split", "metrics", "corpus")}
        parts["decoding"] = {name: spec["decoding"][name] for name in ("protocol", "beams")}
        parts["content_hash"] = plan.corpus.content_hash
        wanted.setdefault(json.dumps(parts, sort_keys=True), spec)
    missing = [key for key in wanted if f"echo {key}" not in known or f"fixed {key}" not in known]
    computed = workers.call(floors_of, [(wanted[key],) for key in missing]) if missing else []
    for key, floors in zip(missing, computed, strict=True):
        for floor in floors:
            known[f"{floor['floor']} {key}"] = {"key": f"{floor['floor']} {key}", **floor}
    keep = [known[f"{floor} {key}"] for key in wanted for floor in ("echo", "fixed")]
    folder.write_json("floors.json", keep)


def floors_of(spec_data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The floors of one test set, scored as a trial's replies are; run in a worker.

    Args:
        spec_data: a trial's specification; its corpus, loader, split, beams and metrics are used.
    """
    from corpora.loaders import build_pairs
    from corpora.read import read_corpus
    from evaluators.floors import floor_scores

    spec = spec_from_dict(spec_data)
    pairs = build_pairs(read_corpus(spec.corpus), spec.loader, spec.split).test
    return [
        {
            "floor": floor,
            "loader": spec.loader,
            "protocol": spec.decoding.protocol,
            "test_pairs": len(pairs),
            "scores": scores,
        }
        for floor, scores in floor_scores(pairs, spec.metrics, spec.decoding).items()
    ]


def _read(folder: SweepFolder) -> list[dict[str, Any]]:
    try:
        entries = json.loads((folder.path / "floors.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return []  # Floors are cheap: what cannot be read is computed again.
    return (
        [e for e in entries if isinstance(e, dict) and "key" in e]
        if isinstance(entries, list)
        else []
    )
