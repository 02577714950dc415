"""One trial's straight line: corpus, pairs, training, replies, scores, result."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpora.loaders import build_pairs, shared_pairs
from corpora.read import read_corpus
from orchestrator.attempts import Attempt, attempt
from orchestrator.driver import watch_driver
from orchestrator.memory import forget_peak_memory, hold_to_share, peak_memory_gib
from orchestrator.provenance import code_version, package_versions, python_and_platform
from orchestrator.storage import SweepFolder, write_json
from search_spaces.errors import SearchSpaceError, one_problem
from search_spaces.identity import spec_from_dict, spec_to_dict
from trainers.checkpoints import CheckpointSettings
from trainers.errors import StoppedError
from trainers.micro_batch import halve_at_once
from trainers.phases import Phase, current_phase, forget_phase
from trainers.progress import OnEpoch, ShouldStop, never
from trainers.task import TrainingTask
from trainers.tuned import TunedModel

if TYPE_CHECKING:
    from corpora.dialogue import Corpus
    from evaluators.score import StreamingScorer

_SPENT = "spent.json"
PARTIAL = "replies.partial.jsonl"
"""Replies as they settle; gone once the result is in place."""


@dataclass(frozen=True)
class TrialWork:
    """What a worker needs to run a trial; plain data, so that it travels."""

    id: str
    name: str
    spec: Mapping[str, Any]
    """As `spec_to_dict` writes it."""
    model_folder: str | None
    """Where the base model's files are; absent: the worker fetches them."""
    model_fingerprint: str
    corpus_hash: str
    """Content hash of the corpus that the trial's identity was made of."""
    metric_versions: Mapping[str, str]
    folder: str
    """The trial's folder, `runs/<sweep>/trials/<id>`."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Content of what else the method reads, that the trial's identity was made of."""
    gpu_share: float = 0.0
    """Fraction of one GPU that the trial may fill; 0 on a machine without."""
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    driver_file: str = ""
    """The file that holds the token while the trial may run."""
    token: str = ""


def run_trial(
    work: TrialWork, on_epoch: OnEpoch, scorer: StreamingScorer, stops_early: ShouldStop = never
) -> dict[str, Any]:
    """Train and evaluate one trial and publish its result, from wherever an earlier attempt left it.

    Args:
        work: the trial.
        on_epoch: told of every finished epoch.
        scorer: of the trial's metrics; may have served other trials before.
        stops_early: asked between steps; whether the trial fell behind its siblings.

    Returns:
        The content of `result.json`, which is in place when this returns.

    Raises:
        StoppedError: the driver asked to stop, or is gone; the next attempt continues.
        WorkerLostError: workers died at the same place too often.
        ModelError: model and settings do not fit.
        DivergedError: the loss became NaN or infinite.
        torch.OutOfMemoryError: one pair at a time does not fit the GPU.
    """
    asked_to = driver_watch(work)

    def should_stop() -> bool:
        return stops_early() or asked_to()

    folder = Path(work.folder)
    with attempt(folder, work.token, should_stop) as this:
        smaller = this.after_memory_kill and (folder / PARTIAL).exists()
        if this.after_memory_kill and not smaller:
            batch_size = spec_from_dict(work.spec).training.batch_size
            place = current_phase(folder) or Phase(folder, batch_size)
            halve_at_once(place.folder, place.at_once)
        return finish_trial(work, this, smaller, on_epoch, scorer, should_stop)


def driver_watch(work: TrialWork) -> ShouldStop:
    """Whether the trial's driver wants it to stop, or is gone.

    Args:
        work: the trial.
    """
    return watch_driver(Path(work.driver_file), work.token) if work.token else never


def finish_trial(
    work: TrialWork,
    this: Attempt,
    smaller: bool,
    on_epoch: OnEpoch,
    scorer: StreamingScorer,
    should_stop: ShouldStop,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Do what is missing of a trial that this worker holds.

    Args:
        work: the trial.
        this: the hold on it.
        smaller: whether fewer prompts than before are to be decoded together.
        on_epoch: told of every finished epoch.
        scorer: of the trial's metrics.
        should_stop: asked between steps.
        notes: of what happened to the trial before.

    Returns:
        As `run_trial`, which says what is raised.
    """
    folder = Path(work.folder)
    finished = SweepFolder(folder.parent.parent).result(work.id)
    if finished is not None:
        return finished  # An earlier worker died after its work was done.
    (folder / "failure.json").unlink(missing_ok=True)
    result = _train_and_evaluate(work, folder, this, smaller, on_epoch, scorer, should_stop)
    result["notes"] += notes
    write_json(folder / "result.json", result)
    for file in (PARTIAL, _SPENT):
        (folder / file).unlink(missing_ok=True)
    forget_phase(folder)
    return result


@dataclass(frozen=True)
class _Spent:
    """What earlier attempts cost beyond training, which counts for itself."""

    eval_seconds: float = 0.0
    peak_memory_gib: float | None = None

    @classmethod
    def read(cls, folder: Path) -> _Spent:
        try:
            return cls(**json.loads((folder / _SPENT).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return cls()

    def more(self, eval_seconds: float, peak_gib: float | None) -> _Spent:
        peaks = [peak for peak in (self.peak_memory_gib, peak_gib) if peak is not None]
        return _Spent(self.eval_seconds + eval_seconds, max(peaks, default=None))

    def write(self, folder: Path) -> None:
        write_json(folder / _SPENT, asdict(self))


def note_cost(folder: Path, eval_seconds: float, peak_gib: float | None) -> None:
    """Keep what a part of the trial's work came to, for its result.

    Args:
        folder: the trial's.
        eval_seconds: of evaluation.
        peak_gib: as `peak_memory_gib` gave it.
    """
    _Spent.read(folder).more(eval_seconds, peak_gib).write(folder)


def replies_key(work: TrialWork, digest: str) -> str:
    """The key that a trial's replies are kept under.

    Args:
        work: the trial.
        digest: of the tuned weights.
    """
    return f"{work.id} {digest}"


def _train_and_evaluate(
    work: TrialWork,
    folder: Path,
    this: Attempt,
    smaller: bool,
    on_epoch: OnEpoch,
    scorer: StreamingScorer,
    should_stop: ShouldStop,
) -> dict[str, Any]:
    from evaluators.evaluate import evaluate
    from trainers.select import train_task

    began, clock = datetime.now(UTC), time.monotonic()
    spec = spec_from_dict(work.spec)
    corpus, task = prepare_training(work, on_epoch, should_stop)
    pairs = task.pairs
    hold_to_share(work.gpu_share)
    forget_peak_memory()
    tuned = train_task(task)
    note_cost(folder, 0.0, peak_memory_gib())
    spent = _Spent.read(folder)
    trained = time.monotonic()
    try:
        evaluation = evaluate(
            tuned,
            pairs,
            spec,
            scorer,
            partial=folder / PARTIAL,
            key=replies_key(work, tuned.digest),
            smaller=smaller,
            should_stop=should_stop,
        )
    except StoppedError:
        spent.more(time.monotonic() - trained, peak_memory_gib()).write(folder)
        raise
    evaluation.write_replies(folder / "replies.jsonl")
    spent = spent.more(time.monotonic() - trained, peak_memory_gib())

    commit, dirty = code_version()
    # Not what the clock on the wall says by now: that may have been set meanwhile.
    ended = began + timedelta(seconds=time.monotonic() - clock)
    return {
        "id": work.id,
        "name": work.name,
        "spec": spec_to_dict(spec),
        "status": "done",
        "scores": {**_losses(tuned), **tuned.measures, **evaluation.scores},
        "cost": {
            "seconds": round(tuned.seconds + spent.eval_seconds, 3),
            "train_seconds": round(tuned.seconds, 3),
            "eval_seconds": round(spent.eval_seconds, 3),
            "seconds_per_step": tuned.seconds_per_step,
            "trainable_parameters": tuned.trainable_parameters,
            "total_parameters": tuned.total_parameters,
            "trainable_share": tuned.trainable_parameters / tuned.total_parameters,
            "peak_memory_gib": spent.peak_memory_gib,
            "fused_with": tuned.fused_with,
        },
        "data": {
            "train_pairs": len(pairs.train),
            "valid_pairs": len(pairs.valid),
            "test_pairs": len(pairs.test),
            "scored_test_pairs": evaluation.scored_test_pairs,
            "shared_pairs": shared_pairs(pairs),
            "corpus_hash": corpus.content_hash,
            "corpus_source": corpus.source,
            "loader": spec.loader,
        },
        "checks": {
            **evaluation.checks,
            "truncated_references": tuned.truncated_references,
        },
        "adjusted": {**tuned.adjusted, **evaluation.adjusted},
        "notes": list(tuned.notes),
        "provenance": {
            "git_commit": commit,
            "git_dirty": dirty,
            "packages": package_versions(),
            **python_and_platform(),
            "device": _device(),
            "resumed": this.resumed,
            "started_at": this.started_at,
            "finished_at": ended.isoformat(timespec="seconds"),
            "model_fingerprint": work.model_fingerprint,
            "metric_versions": dict(work.metric_versions),
            "inputs": dict(work.inputs),
            "bertscore_encoder": evaluation.encoder,
        },
    }


def prepare_training(
    work: TrialWork, on_epoch: OnEpoch, should_stop: ShouldStop
) -> tuple[Corpus, TrainingTask]:
    """What a trial trains on, checked to be what its identity says.

    Args:
        work: the trial.
        on_epoch: told of every finished epoch.
        should_stop: asked between steps.

    Raises:
        SearchSpaceError: corpus, model or another input changed since the sweep was planned.
    """
    from trainers.fingerprint import folder_fingerprint
    from trainers.inputs import method_inputs
    from trainers.pretrained import fetch_model

    spec, folder = spec_from_dict(work.spec), Path(work.folder)
    write_json(folder / "spec.json", dict(work.spec))
    corpus = read_corpus(spec.corpus)
    if corpus.content_hash != work.corpus_hash:
        raise _changed("corpus", spec.corpus.corpus)
    pairs = build_pairs(corpus, spec.loader, spec.split)
    source = (
        Path(work.model_folder)
        if work.model_folder is not None
        else fetch_model(spec.model, spec.split).folder
    )
    if source is None:
        raise FileNotFoundError(f"the files of {spec.model} are not here")
    if work.model_fingerprint.startswith("sha256:") and (
        folder_fingerprint(source) != work.model_fingerprint
    ):
        raise _changed("model", str(source))
    for name, content in method_inputs(spec).items():
        if content != work.inputs.get(name):
            raise _changed(name, str(getattr(spec.method, name)))
    phases = folder.parent.parent / "phases"
    task = TrainingTask(
        spec, source, pairs, folder, on_epoch, work.checkpoints, should_stop, phases
    )
    return corpus, task


def _changed(what: str, place: str) -> SearchSpaceError:
    """What a trial must not take for what it was planned with: its identity says otherwise."""
    rule = "must stay as it was when the sweep was planned; the next run plans anew"
    return SearchSpaceError(one_problem(what, "", rule, place))


def _losses(tuned: TunedModel) -> dict[str, float]:
    losses = {"train/loss": tuned.train_loss, "valid/loss": tuned.valid_loss}
    return {key: value for key, value in losses.items() if value is not None}


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"cpu, {torch.get_num_threads()} thread(s)"
