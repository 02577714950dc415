"""The floors of a sweep: what no model at all would score on each test set of the tables."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from orchestrator.plan import Plan, metric_versions
from orchestrator.storage import SweepFolder, write_json
from search_spaces.identity import spec_from_dict, spec_to_dict
from trainers.storage import cache_folder

_NAMES = ("echo", "fixed")


class Workers(Protocol):
    """Something that calls functions beside the sweep's trials."""

    def begin(self, function: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Begin to call a function once per tuple of arguments."""
        ...

    def wait(self, calls: Sequence[Any]) -> list[Any]:
        """The calls' results."""
        ...


class Floors:
    """Brings `floors.json` up to date: one entry a floor, test set and way of scoring.

    Floors that are known already for the same test set, metrics and corpus are kept, whichever sweep
    they were computed for; the others are computed beside the trials.

    Args:
        folder: the sweep's.
        workers: compute what is missing.
    """

    def __init__(self, folder: SweepFolder, workers: Workers) -> None:
        self.folder = folder
        self.workers = workers
        self.known = {str(entry["key"]): entry for entry in _read(folder)}
        self.calls: dict[str, Any] = {}

    def begin(self, plan: Plan) -> None:
        """Begin to compute what is missing for a plan's trials.

        Args:
            plan: the sweep's, as far as it is known.
        """
        missing = []
        for key, spec in _test_sets(plan).items():
            if key in self.calls or all(f"{floor} {key}" in self.known for floor in _NAMES):
                continue
            if (kept := _kept(key)) is None:
                missing.append((key, spec))
            else:
                self._take(key, kept)
        if missing:
            calls = self.workers.begin(
                floors_of, [(spec, plan.corpus.content_hash) for _, spec in missing]
            )
            self.calls |= dict(zip((key for key, _ in missing), calls, strict=True))

    def write(self, plan: Plan) -> None:
        """Write `floors.json`, once everything in it is there.

        Args:
            plan: the sweep's at its end; test sets without a finished trial have no entry.
        """
        self.begin(plan)
        for key, floors in zip(
            self.calls, self.workers.wait(list(self.calls.values())), strict=True
        ):
            _keep(key, floors)
            self._take(key, floors)
        done = {trial.id for trial in plan.trials if self.folder.result(trial.id) is not None}
        wanted = _test_sets(plan, done)
        names = [f"{floor} {key}" for key in wanted for floor in _NAMES]
        entries = [self.known[name] for name in names if name in self.known]
        self.folder.write_json("floors.json", entries)

    def _take(self, key: str, floors: Sequence[Mapping[str, Any]]) -> None:
        for floor in floors:
            name = f"{floor['floor']} {key}"
            self.known[name] = {"key": name, **floor}


def _cache_file(key: str) -> Path:
    return cache_folder() / "floors" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _keep(key: str, floors: Sequence[Mapping[str, Any]]) -> None:
    if not floors:
        return
    with suppress(OSError):  # The next sweep computes them again.
        write_json(_cache_file(key), floors)


def _kept(key: str) -> list[dict[str, Any]] | None:
    """Floors that some sweep has computed for the same test set; None where they are not whole."""
    try:
        floors = json.loads(_cache_file(key).read_bytes())
        whole = [floor["floor"] for floor in floors if _all_finite(floor["scores"].values())]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return floors if whole == list(_NAMES) else None


def _all_finite(values: Iterable[object]) -> bool:
    return all(isinstance(value, float) and math.isfinite(value) for value in values)


def _test_sets(plan: Plan, only: set[str] | None = None) -> dict[str, dict[str, Any]]:
    """One specification for each test set and way of scoring, by what tells them apart."""
    found: dict[str, dict[str, Any]] = {}
    for trial in plan.trials:
        if only is not None and trial.id not in only:
            continue
        spec = spec_to_dict(trial.spec)
        parts = {name: spec[name] for name in ("loader", "split", "metrics", "corpus")}
        # What is shown of a trial's replies is no part of how its test set is scored.
        parts["corpus"] = {k: v for k, v in spec["corpus"].items() if k != "privacy"}
        parts["decoding"] = {name: spec["decoding"][name] for name in ("protocol", "beams")}
        parts["content_hash"] = plan.corpus.content_hash
        parts["versions"] = metric_versions(trial.spec)
        found.setdefault(json.dumps(parts, sort_keys=True), spec)
    return found


def floors_of(spec_data: Mapping[str, Any], content_hash: str) -> list[dict[str, Any]]:
    """The floors of one test set, scored as a trial's replies are; run in a worker.

    Args:
        spec_data: a trial's specification; its corpus, loader, split, beams and metrics are used.
        content_hash: of the corpus, as planned.
    """
    from corpora.loaders import build_pairs
    from corpora.read import read_corpus
    from evaluators.floors import floor_scores

    spec = spec_from_dict(spec_data)
    corpus = read_corpus(spec.corpus)
    if corpus.content_hash != content_hash:
        return []  # It changed meanwhile: these would be floors of another test set.
    pairs = build_pairs(corpus, spec.loader, spec.split).test
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
    except (FileNotFoundError, ValueError, RecursionError):
        return []  # Floors are cheap: what cannot be read is computed again.
    return (
        [e for e in entries if isinstance(e, dict) and "key" in e]
        if isinstance(entries, list)
        else []
    )
