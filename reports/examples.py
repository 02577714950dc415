"""Replies side by side: the same prompts, answered by each method; only past the privacy gate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corpora.privacy import describe, guard, is_dropped
from reports.fields import method_label, protocol_of, shown_model
from reports.results import SweepResults, TrialResult
from reports.trial_files import ReplyRecord, read_replies
from search_spaces.spec import Privacy

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


@dataclass(frozen=True)
class ReplyExamples:
    """The examples, and what the privacy gate did to them."""

    shown: tuple[Example, ...]
    privacy_note: str
    left_out: int
    """Replies of the compared trials that may not be shown, under `privacy: drop`."""
    replies: int
    """All of the compared trials' replies at their narrowest beam."""


def reply_examples(sweep: SweepResults) -> ReplyExamples:
    """A few test pairs of each loader with what the compared trials replied at the narrowest beam.

    Args:
        sweep: the results; trials under the `chatmgl` protocol are left out.

    Returns:
        At most `MOST_EXAMPLES`, every text past the privacy gate.
    """
    by_loader: dict[str, list[TrialResult]] = {}
    for trial in _compared(sweep):
        by_loader.setdefault(str(trial.spec.get("loader")), []).append(trial)
    privacy = sweep.privacy
    examples: list[Example] = []
    left_out = replies = 0
    for loader, trials in sorted(by_loader.items()):
        records = [
            (label(trial), record)
            for trial in trials[:MOST_TRIALS]
            for record in _narrowest(sweep, trial)
        ]
        kept = [one for one in records if not is_dropped(_texts(one[1]), privacy)]
        replies += len(records)
        left_out += len(records) - len(kept)
        examples += _side_by_side(loader, kept, MOST_EXAMPLES // len(by_loader), privacy)
    return ReplyExamples(tuple(examples), describe(privacy), left_out, replies)


def _texts(record: ReplyRecord) -> tuple[str, ...]:
    return (record.pair_id, record.prompt, record.reference, record.reply)


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
    loader: str, records: Iterable[tuple[str, ReplyRecord]], most: int, privacy: Privacy
) -> list[Example]:
    pairs: dict[str, tuple[ReplyRecord, list[ExampleReply]]] = {}
    for trial, record in records:
        if record.pair_id not in pairs and len(pairs) >= most:
            continue
        _, replies = pairs.setdefault(record.pair_id, (record, []))
        replies.append(ExampleReply(trial, shown_text(record.reply, privacy), record.rouge1))
    return [
        Example(
            guard(pair_id, privacy),
            loader,
            shown_text(record.prompt, privacy),
            shown_text(record.reference, privacy),
            tuple(replies),
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


def shown_text(text: str, privacy: Privacy) -> str:
    """A text past the privacy gate, cut where it is long (the beginning of a prompt is the oldest)."""
    passed = guard(text, privacy)
    return passed if len(passed) <= LONGEST else f"{passed[:LONGEST].rstrip()} …"
