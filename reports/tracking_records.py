"""A trial as MLflow has it: parameters, tags, metrics, inputs and its table of replies."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from corpora.privacy import gate_mark, guard, is_dropped, privacy_of
from reports.fields import flatten_spec, shown_model
from reports.json_files import Json
from reports.results import TrialResult
from reports.trial_files import Step, Update, read_replies
from search_spaces.secrets import hide_secrets
from search_spaces.spec import Privacy

LONGEST_KEY = 250
LONGEST_PARAM = 6000
LONGEST_TAG = 8000
_LONGEST_DIGEST = 36
_LONGEST_TRAINING_S = 1e9

TRIAL_ID = "trial_id"
RESULT_DIGEST = "result_sha256"
"""Tag of a run that holds all of a result; written last, so that it is never there too early."""

PRIVACY = "privacy"
"""Tag that names the gate which a run's texts have passed; written once they have."""

LEFT_OUT = "replies_left_out"
"""Tag that counts replies which the gate has dropped."""

REPLIES_FILE = "replies.json"

UPDATES = "rl/"
"""Begins the names of metrics whose steps are updates of reinforcement learning."""
_PLAIN_COLUMN = re.compile(r"[a-z_]{1,100}")

TABLES_TAG = "mlflow.loggedArtifacts"
"""Tag by which MLflow's pages show a JSON artifact as a table."""


def safe_key(name: str) -> str:
    """A name that MLflow accepts for a metric, a parameter or a tag."""
    clean = re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)
    clean = posixpath.normpath(clean).lstrip("/.") or "_"
    return clean[:LONGEST_KEY]


def shortened(value: object, longest: int) -> str:
    """Text of at most so many characters, without secrets; what is left out is marked."""
    text = hide_secrets(value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def trial_params(spec: Json) -> dict[str, str]:
    """Every field of the specification by its bare name; `privacy` is a tag, since it may change."""
    flat = flatten_spec(spec)
    if "corpus" in flat:
        flat["corpus"] = guard(str(flat["corpus"]), privacy_of(spec))
    return {
        safe_key(name): shortened("" if value is None else value, LONGEST_PARAM)
        for name, value in flat.items()
    }


def planned_tags(sweep: str, trial_id: str, stages: Iterable[str], spec: Json) -> dict[str, str]:
    """Tags that a trial has before it ends."""
    flat = flatten_spec(spec)
    tags = {
        TRIAL_ID: trial_id,
        "sweep": sweep,
        "sweep.kind": "trial",
        "stage": ",".join(stages),
        "method": str(flat["method"]),
        "model": shown_model(str(flat["model"])),
        "loader": str(flat.get("loader", "")),
        "mlflow.source.name": "orchestrator",
    }
    return {key: shortened(value, LONGEST_TAG) for key, value in tags.items() if value}


def result_tags(result: TrialResult) -> dict[str, str]:
    """Tags that a result adds: where it comes from, and what to look at first."""
    commit = str(result.provenance.get("git_commit") or "")
    shown = ("rouge1", "bertscore_f1", "meteor")
    scores = {
        name: result.scores[f"test/{name}"] for name in shown if f"test/{name}" in result.scores
    }
    note = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
    tags = {
        "corpus_hash": str(result.data.get("corpus_hash") or ""),
        "git_commit": commit,
        "git_dirty": str(bool(result.provenance.get("git_dirty"))).lower() if commit else "",
        "mlflow.source.git.commit": commit,
        "device": str(result.provenance.get("device") or ""),
        "model_fingerprint": str(result.provenance.get("model_fingerprint") or ""),
        "mlflow.note.content": f"Test pairs, narrowest beam: {note}." if note else "",
    }
    return {key: shortened(value, LONGEST_TAG) for key, value in tags.items() if value}


def loss_metrics(steps: Iterable[Step], started_ms: int) -> list[Metric]:
    """Losses by step; the time of each follows from the trial's start, so that it never changes.

    Args:
        steps: the trial's `train.csv`.
        started_ms: when training began, in milliseconds since 1970.
    """
    metrics = []
    for step in steps:
        at = _moment(started_ms, step.seconds)
        for key, value in (
            ("train/loss", step.train_loss),
            ("valid/loss", step.valid_loss),
            ("train/learning_rate", step.learning_rate),
            ("train/grad_norm", step.grad_norm),
        ):
            if value is not None:
                metrics.append(Metric(key, value, at, step.step))
    return metrics


def update_metrics(updates: Iterable[Update], started_ms: int) -> list[Metric]:
    """What reinforcement learning measured, by update, as `rl/<column>`; of plain columns alone.

    Args:
        updates: the trial's `rl.csv`.
        started_ms: when training began, in milliseconds since 1970.
    """
    return [
        Metric(f"{UPDATES}{name}", value, _moment(started_ms, update.seconds), update.step)
        for update in updates
        for name, value in update.measured.items()
        if _PLAIN_COLUMN.fullmatch(name)
    ]


def _moment(started_ms: int, seconds: float | None) -> int:
    """The time after so many seconds of training, in milliseconds since 1970."""
    # Anyone may have written the file: a moment that the store cannot hold is none.
    return started_ms + int(1000 * min(max(seconds or 0.0, 0.0), _LONGEST_TRAINING_S))


def result_metrics(result: TrialResult) -> dict[str, float]:
    """Scores, cost and checks by metric name."""
    metrics = dict(result.scores)
    for part, values in (("cost", result.cost), ("data", result.data), ("checks", result.checks)):
        metrics |= {
            f"{part}/{name}": float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
    return {safe_key(name): value for name, value in metrics.items()}


def dataset_inputs(result: TrialResult, corpus: str) -> list[DatasetInput]:
    """The pairs that the trial was trained, validated and tested on.

    Args:
        result: the trial.
        corpus: `sample`, or a path.
    """
    corpus = guard(corpus, privacy_of(result.spec))
    corpus_hash = str(result.data.get("corpus_hash") or "unknown")
    loader = str(result.data.get("loader") or result.spec.get("loader") or "")
    inputs = []
    for part in ("train", "valid", "test"):
        pairs = result.data.get(f"{part}_pairs")
        if isinstance(pairs, int):
            dataset = Dataset(
                name=f"{shown_model(corpus)}/{loader}/{part}",
                digest=corpus_hash[:_LONGEST_DIGEST],
                source_type="local",
                source=json.dumps({"uri": hide_secrets(corpus)}),
                profile=json.dumps({"num_rows": pairs}),
            )
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", part)]))
    return inputs


@dataclass(frozen=True)
class RepliesTable:
    """The replies to the test pairs, past the privacy gate."""

    text: str
    """JSON as `log_table` writes it; empty where there are no replies."""
    rows: int
    left_out: int
    """Rows that hold identifiers, under `privacy: drop`."""


def replies_table(trial_folder: Path, privacy: Privacy) -> RepliesTable:
    """Replies to the test pairs in the form in which MLflow shows tables.

    Args:
        trial_folder: `trials/<id>`.
        privacy: the corpus's setting.
    """
    columns = ["beam", "pair_id", "prompt", "reference", "reply", "act"]
    columns += ["rouge1", "meteor", "bertscore_f1"]
    rows: list[list[Any]] = []
    left_out = 0
    for reply in read_replies(trial_folder):
        if reply.part != "test":
            continue
        texts = (reply.pair_id, reply.prompt, reply.reference, reply.reply)
        if is_dropped(texts, privacy):
            left_out += 1
            continue
        act = None if reply.act is None else guard(reply.act, privacy)
        scores = (reply.rouge1, reply.meteor, reply.bertscore_f1)
        rows.append([reply.beam, *(guard(text, privacy) for text in texts), act, *scores])
    # Also without a row: a table that an earlier setting let through may lie there.
    text = json.dumps({"columns": columns, "data": rows}) if rows or left_out else ""
    return RepliesTable(text, len(rows), left_out)


def privacy_tags(privacy: Privacy, table: RepliesTable) -> dict[str, str]:
    """What a run says of the gate that its texts have passed.

    Args:
        privacy: the corpus's setting.
        table: the texts.
    """
    dropped = f"{table.left_out} of {table.left_out + table.rows}" if privacy == "drop" else "none"
    return {PRIVACY: gate_mark(privacy), LEFT_OUT: dropped}


def result_digest(trial_folder: Path) -> str:
    """SHA-256 of a trial's `result.json` as it lies there."""
    return hashlib.sha256((trial_folder / "result.json").read_bytes()).hexdigest()


def milliseconds(provenance: Mapping[str, Any], key: str) -> int | None:
    """A recorded time in milliseconds since 1970; nothing where it was not recorded."""
    try:
        return int(datetime.fromisoformat(str(provenance[key])).timestamp() * 1000)
    except (KeyError, ValueError):
        return None
