"""What must be read with a table's numbers: scale, metrics, test pairs, winners, oddities, failures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from reports.fields import DASH, flatten_spec, shown_model, without_seed
from reports.results import FailedTrial, Stage, SweepResults, Trial, TrialResult
from reports.table import Row

_NAMED_AT_MOST = 6
"""Trials named in one note; the rest are counted."""


def scale_warning(sweep: SweepResults) -> str:
    """The sentence that stands above every table of a laptop-scale sweep; empty at paper scale."""
    if sweep.scale != "laptop":
        return ""
    reason = f" ({sweep.scale_reason})" if sweep.scale_reason else ""
    return (
        f"Laptop scale{reason}: small models trained on the spot."
        " These numbers are not the paper's, and say nothing about its models."
    )


def table_notes(
    sweep: SweepResults, trials: Sequence[Trial], rows: Iterable[Row]
) -> tuple[str, ...]:
    """The notes under a table, in the order they are read.

    Args:
        sweep: the results.
        trials: the trials behind the table's rows.
        rows: the rows themselves.
    """
    done = [trial for trial in trials if isinstance(trial, TrialResult)]
    notes = [
        _published_note(rows),
        _best_note(rows),
        _floor_note(rows),
        _metrics_note(trials, done),
        _corpus_note(sweep, done),
        *(_winner_note(sweep, stage, trials) for stage in sweep.stages),
        _shared_note(done),
        *_reply_notes(done),
        _act_note(done),
        _memory_note(done),
        _failure_note(trials),
        _early_note(sweep),
    ]
    return tuple(note for note in notes if note)


def cost_notes(trials: Sequence[Trial], rows: Iterable[Row]) -> tuple[str, ...]:
    """The notes under a table of costs, in the order they are read.

    Args:
        trials: the trials behind the table's rows.
        rows: the rows themselves.
    """
    done = [trial for trial in trials if isinstance(trial, TrialResult)]
    seeds = any(cell.spread is not None for row in rows for cell in row.cells)
    notes = [
        "Trained: parameters that training can change, and their share of all the model's. Memory:"
        " the most held at any time, training or generating: of the GPU; without one, of the whole"
        " process, with what earlier trials left in it. Time: of an optimiser step, validation and checkpoints apart; n/a where none was"
        " timed." + (" Several seeds: mean ± sample standard deviation." if seeds else ""),
        _device_note(done),
        _fused_note(done),
        _memory_note(done),
        _failure_note(trials),
    ]
    return tuple(note for note in notes if note)


def _fused_note(done: Sequence[TrialResult]) -> str:
    """Whose costs are shares of a common training."""
    fused = sum(bool(trial.cost.get("fused_with")) for trial in done)
    if not fused:
        return ""
    return (
        f"{fused} of {len(done)} trials trained together with others on one frozen model: their time"
        " is their share by tokens, their memory that of all; `--no-fuse` measures each alone."
    )


def _device_note(done: Iterable[TrialResult]) -> str:
    """Where costs were measured."""
    devices = dict.fromkeys(str(trial.provenance.get("device") or "unknown") for trial in done)
    if not devices:
        return ""
    text = f"Measured on: {'; '.join(devices)}."
    if len(devices) > 1:
        text += " Compare within a device."
    return f"{text} Trials that run side by side slow one another down."


def _published_note(rows: Iterable[Row]) -> str:
    if not any(cell.published is not None for row in rows for cell in row.cells):
        return ""
    return (
        "Numbers in parentheses are the study's published ones; a row without them is not in the"
        " study. It used HOPE and does not state the encoder of its BERTScore: compare ours with"
        " ours there. It states a batch size for its winner alone (1), and neither epochs nor"
        " decoding settings; its other rows stand beside our smallest batch size. Its two tables"
        " are different experiments, and their ROUGE differs."
    )


def _best_note(rows: Iterable[Row]) -> str:
    texts = [
        "Bold: best of the column among trials of the same loader; floors and published numbers do"
        " not compete."
    ]
    if any(cell.spread is not None for row in rows for cell in row.cells):
        texts.append("Several seeds: mean ± sample standard deviation.")
    return " ".join(texts)


def _floor_note(rows: Iterable[Row]) -> str:
    if not any(row.kind == "floor" for row in rows):
        return ""
    return (
        "Floors need no model: echo replies with the patient's own words, fixed reply always with"
        " the same sentence."
    )


def _metrics_note(trials: Iterable[Trial], done: Iterable[TrialResult]) -> str:
    """Which encoder BERTScore used, and how the other metrics were computed."""
    encoders = list(dict.fromkeys(_encoder(trial) for trial in trials))
    if any(model and layer for model, layer in encoders):
        # A trial that is not done cannot know the default layer that the others used.
        known = {model for model, layer in encoders if layer}
        encoders = [(model, layer) for model, layer in encoders if layer or model not in known]
    described = [
        f"{shown_model(str(model))}, {f'layer {layer}' if layer else 'the default layer'}"
        for model, layer in encoders
        if model
    ]
    texts = [
        f"BERTScore: {'; '.join(described)}." if described else "BERTScore was left out (n/a)."
    ]
    versions: dict[str, None] = {}
    for trial in done:
        recorded = trial.provenance.get("metric_versions")
        if isinstance(recorded, Mapping):
            versions |= dict.fromkeys(
                str(text) if " " in str(text) else f"{name} {text}"
                for name, text in recorded.items()
            )
    if versions:
        texts.append(f"Versions: {', '.join(versions)}.")
    texts.append(
        "ROUGE is the mean F measure x 100; BERTScore and METEOR are at the narrowest beam width."
    )
    return " ".join(texts)


def _encoder(trial: Trial) -> tuple[str | None, int | None]:
    """Encoder and layer of BERTScore: as recorded where the trial is done, else as asked for."""
    flat = flatten_spec(trial.spec)
    if isinstance(trial, TrialResult):
        recorded = trial.provenance.get("bertscore_encoder")
        if isinstance(recorded, Mapping):
            return recorded.get("model"), recorded.get("layer")
    return flat.get("bertscore_model"), flat.get("bertscore_layer")


def _corpus_note(sweep: SweepResults, done: Iterable[TrialResult]) -> str:
    """The corpus, and how many test pairs each loader makes of it."""
    pairs: dict[str, set[int]] = {}
    for trial in done:
        count = trial.data.get("scored_test_pairs", trial.data.get("test_pairs"))
        if isinstance(count, int):
            pairs.setdefault(_loader(trial), set()).add(count)
    sessions = "" if sweep.corpus.sessions is None else f", {sweep.corpus.sessions} sessions"
    text = f"Corpus: {shown_model(sweep.corpus.source)} ({sweep.corpus.format}{sessions})."
    if pairs:
        counts = "; ".join(
            f"{loader}: {' or '.join(str(count) for count in sorted(numbers))}"
            for loader, numbers in sorted(pairs.items())
        )
        text += f" Test pairs by loader: {counts}."
    if len(pairs) > 1:
        text += " Loaders have different test sets: compare within a loader."
    return text


def _winner_note(sweep: SweepResults, stage: Stage, trials: Iterable[Trial]) -> str:
    """Which trial a stage's successor builds on, and by which validation score."""
    winner = sweep.trials.get(stage.winner or "")
    built_on_it = {s.name for s in sweep.stages if s.selection and s.selection.stage == stage.name}
    shown = list(trials)
    if winner is None or not (
        winner.id in {trial.id for trial in shown}
        or any(built_on_it & set(trial.stages) for trial in shown)
    ):
        return ""
    seeds = [
        trial
        for trial in (sweep.trials.get(trial_id) for trial_id in stage.trials)
        if isinstance(trial, TrialResult) and without_seed(trial.spec) == without_seed(winner.spec)
    ]
    text = (
        f"Winner of stage {stage.name}: {'the settings of ' if len(seeds) > 1 else ''}{winner.name}"
    )
    selection = next(
        (s.selection for s in sweep.stages if s.selection and s.selection.stage == stage.name), None
    )
    if selection is None:
        return f"{text}."
    which = "lowest" if selection.mode == "min" else "highest"
    text += f", chosen by the {which} {selection.best}"
    scores = [t.scores[selection.best] for t in seeds if selection.best in t.scores]
    if scores:
        mean = f", mean of {len(scores)} seeds" if len(scores) > 1 else ""
        text += f" ({statistics.fmean(scores):.4g}{mean})"
    on = "validation pairs, never on test" if selection.best.startswith("valid/") else "test pairs"
    return f"{text} on the {on}."


def _shared_note(done: Iterable[TrialResult]) -> str:
    """Leakage: pairs that stand in train and test alike."""
    shared: dict[str, set[int]] = {}
    for trial in done:
        count = trial.data.get("shared_pairs")
        if isinstance(count, int):
            shared.setdefault(_loader(trial), set()).add(count)
    if not shared:
        return ""
    counts = "; ".join(
        f"{loader}: {' or '.join(str(count) for count in sorted(numbers))}"
        for loader, numbers in sorted(shared.items())
    )
    return f"Identical pairs in train and test by loader: {counts}."


def _reply_notes(done: Iterable[TrialResult]) -> Iterable[str]:
    """Replies that make a score suspect."""
    trials = list(done)
    for check, words in (
        ("empty_replies", "Empty test replies, of all beam widths"),
        ("identical_replies", "Test replies equal to another prompt's, of all beam widths"),
        ("truncated_references", "Training replies cut at max_length"),
    ):
        counts = {
            trial.name: f"{count} of {_out_of(trial, check)}"
            for trial in trials
            if isinstance(count := trial.checks.get(check), int) and count > 0
        }
        if counts:
            yield f"{words}: {_listed([f'{name} {count}' for name, count in counts.items()])}."


def _act_note(done: Iterable[TrialResult]) -> str:
    """How well acts were predicted, row by row, as a mean over the row's seeds."""
    rows: dict[str, list[TrialResult]] = {}
    for trial in done:
        if "test/act_accuracy" in trial.scores or trial.checks.get("unknown_acts"):
            rows.setdefault(without_seed(trial.spec), []).append(trial)
    if not rows:
        return ""
    named = []
    for trials in rows.values():
        name = trials[0].name + (f" (mean of {len(trials)} seeds)" if trials[1:] else "")
        unknown = int(trials[0].checks.get("unknown_acts") or 0)
        pairs = _scored_pairs(trials[0])
        means = [
            statistics.fmean(found)
            if (found := [t.scores[k] for t in trials if k in t.scores])
            else None
            for k in ("test/act_accuracy", "test/act_macro_f1")
        ]
        accuracy, f1 = (DASH if mean is None else f"{mean:.3f}" for mean in means)
        named.append(f"{name} {accuracy} / {f1} over {pairs - unknown} of {pairs} pairs")
    return (
        f"Predicted dialogue acts, accuracy / macro-F1: {_listed(named)}; pairs whose act is unknown"
        " are left out."
    )


def _scored_pairs(trial: TrialResult) -> int:
    return int(trial.data.get("scored_test_pairs") or trial.data.get("test_pairs") or 0)


def _out_of(trial: TrialResult, check: str) -> int:
    """How many replies a check looked at: those of training, or those to test pairs at each beam."""
    if check == "truncated_references":
        return int(trial.data.get("train_pairs") or 0)
    return _scored_pairs(trial) * len(flatten_spec(trial.spec).get("beams") or (1,))


def _memory_note(done: Iterable[TrialResult]) -> str:
    """Trials that ran in smaller pieces than asked for, because memory ran out."""
    named = []
    for trial in done:
        asked, used = flatten_spec(trial.spec), trial.adjusted
        if "batch_size" in used:
            named.append(
                f"{trial.name} (trained with {used['batch_size']} pairs x "
                f"{used.get('gradient_accumulation_steps')} passes a step instead of "
                f"{asked.get('batch_size')} x {asked.get('gradient_accumulation_steps')}, the same "
                "effective batch)"
            )
        if "eval_batch_size" in used:
            named.append(
                f"{trial.name} (decoded {used['eval_batch_size']} prompts at a time instead of "
                f"{asked.get('eval_batch_size')})"
            )
    return f"Memory ran out, and smaller pieces were used: {_listed(named)}." if named else ""


def _failure_note(trials: Sequence[Trial]) -> str:
    failed = [trial for trial in trials if isinstance(trial, FailedTrial)]
    if not failed:
        return ""
    names = _listed([f"{trial.name} ({trial.reason.replace('_', ' ')})" for trial in failed])
    return f"Failed: {len(failed)} of {len(trials)} trials: {names}."


def _early_note(sweep: SweepResults) -> str:
    count = len(sweep.stopped_early)
    if not count:
        return ""
    return (
        f"Stopped early: {count} of the sweep's {len(sweep.trials)} trials fell behind in validation "
        "loss and ended (ASHA); they are in no row, and rows with fewer seeds lack them."
    )


def _listed(items: Sequence[str]) -> str:
    """The first few items, and how many more there are."""
    more = len(items) - _NAMED_AT_MOST
    shown = ", ".join(items[:_NAMED_AT_MOST])
    return f"{shown} and {more} more" if more > 0 else shown


def _loader(trial: TrialResult) -> str:
    return str(trial.data.get("loader") or trial.spec.get("loader") or "")
