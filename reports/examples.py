"""Replies side by side: the same prompts, answered by each method; only past the privacy gate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corpora.privacy import redact
from reports.fields import method_label, protocol_of, shown_model
from reports.results import SweepResults, TrialResult
from reports.trial_files import ReplyRecord, read_replies

MOST_EXAMPLES = 40
"""Test pairs shown, over all loaders."""

MOST_TRIALS = 6
"""Trials side by side for each loader."""

LONGEST = 600
"""Characters of a text that are shown."""


@dataclass(frozen=True)
class ExampleReply:
    """What one trial replied."""

    trial: str
    text: str
    rouge1: float | None


@dataclass(frozen=True)
class Example:
    """One test pair with every trial's reply to it."""

    pair_id: str
    loader: str
    prompt: str
    reference: str
    replies: tuple[ExampleReply, ...]


def reply_examples(sweep: SweepResults) -> tuple[Example, ...]:
    """A few test pairs of each loader with what the compared trials replied at the narrowest beam.

    Args:
        sweep: the results; trials under the `chatmgl` protocol are left out.

    Returns:
        At most `MOST_EXAMPLES`, with personal data taken out of every text.
    """
    by_loader: dict[str, list[TrialResult]] = {}
    for trial in _compared(sweep):
        by_loader.setdefault(str(trial.spec.get("loader")), []).append(trial)
    examples: list[Example] = []
    for loader, trials in sorted(by_loader.items()):
        share = MOST_EXAMPLES // len(by_loader)
        examples += _side_by_side(sweep, loader, trials[:MOST_TRIALS], share)
    return tuple(examples)


def _compared(sweep: SweepResults) -> Iterable[TrialResult]:
    """Trials of the stages that compare methods, else of all; one seed of each setting."""
    stages = {stage.name for stage in sweep.stages if stage.table == "methods"}
    seen: set[tuple[str, str, str]] = set()
    for stage in sweep.stages:
        if stages and stage.name not in stages:
            continue
        for trial in (sweep.trials.get(trial_id) for trial_id in stage.trials):
            if not isinstance(trial, TrialResult) or protocol_of(trial.spec) != "clean":
                continue
            key = (label(trial), str(trial.spec.get("loader")), "" if stages else trial.name)
            if key not in seen:
                seen.add(key)
                yield trial


def label(trial: TrialResult) -> str:
    """What a trial's replies are headed with."""
    return f"{method_label(trial.spec)} · {shown_model(str(trial.spec['model']))}"


def _side_by_side(
    sweep: SweepResults, loader: str, trials: Iterable[TrialResult], most: int
) -> list[Example]:
    pairs: dict[str, tuple[ReplyRecord, list[ExampleReply]]] = {}
    for trial in trials:
        for record in _narrowest(sweep, trial):
            if record.pair_id not in pairs and len(pairs) >= most:
                continue
            _, replies = pairs.setdefault(record.pair_id, (record, []))
            replies.append(ExampleReply(label(trial), shown_text(record.reply), record.rouge1))
    return [
        Example(
            pair_id, loader, shown_text(record.prompt), shown_text(record.reference), tuple(replies)
        )
        for pair_id, (record, replies) in pairs.items()
    ]


def _narrowest(sweep: SweepResults, trial: TrialResult) -> list[ReplyRecord]:
    """A trial's replies to the test pairs at its narrowest beam."""
    records = [
        record
        for record in read_replies(sweep.folder / "trials" / trial.id)
        if record.part == "test"
    ]
    width = min((record.beam for record in records), default=0)
    return [record for record in records if record.beam == width]


def shown_text(text: str) -> str:
    """A text without personal data, cut where it is long (the beginning of a prompt is the oldest)."""
    clean = redact(text)
    return clean if len(clean) <= LONGEST else f"{clean[:LONGEST].rstrip()} …"
