"""`reader`: a model learns replies and their acts jointly, then replies by reinforcement learning.

Source: READER (Srivastava et al. 2023): a language-model head and an act head on one backbone, then PPO
on the act, the similarity and the overlap with the reference.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from corpora.act_labels import require_acts
from search_spaces.spec import DecodingSpec, ReaderSettings, TrialSpec
from trainers.act_head import ActHead, attach_head, detach_head, load_head, new_head, save_head
from trainers.encoding import encode_prompt
from trainers.examples import check_length, encode_splits
from trainers.finished import take_model, training_identity
from trainers.loading import load_model
from trainers.loss import mean_token_loss
from trainers.phases import hold_phase
from trainers.ppo_loop import Score
from trainers.progress import EpochReport, OnEpoch, write_steps
from trainers.reader_reward import ActJudge, make_reward, reward_fingerprints
from trainers.reinforce import Start, reinforce
from trainers.saving import generation_settings, save_model
from trainers.task import TrainingTask
from trainers.tune import tune
from trainers.tuned import TunedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train_reader(task: TrainingTask, settings: ReaderSettings) -> TunedModel:
    """Tune a model to reply and to know a reply's act, then to earn READER's reward.

    Both phases are shared with other trials that have them in common. The act head is learnt in the
    first and then left as it was; it is not a part of the tuned model but stands beside it.

    Args:
        task: an act that no training reply has is unknown: nothing is learnt from it, and nothing
            rewarded; the model is saved under `model/` in its folder, with the act head in files
            of its own.
        settings: the joint loss, the loop and the reward.

    Raises:
        CorpusError: no training reply has a known act.
        ModelError: the model cannot be loaded or is too short, settings do not fit one another, or
            an encoder of the reward cannot be had.
        DivergedError: a score, a loss or a gradient became NaN or infinite.
        StoppedError: the task was to stop; the next call continues.
        OSError: the disk is full; the last whole checkpoint is kept.
        torch.OutOfMemoryError: one pair or reply at a time does not fit.
    """
    acts = require_acts(task.spec.corpus.corpus, task.pairs)
    tuned, head = _tune_jointly(task, settings, acts)
    if unknown := sum(pair.act not in acts for pair in task.pairs.train):
        note = f"the act of {unknown} of {len(task.pairs.train)} training replies is unknown"
        tuned = replace(tuned, notes=(*tuned.notes, note))
    if settings.rl != "none":
        tuned = _reinforce(task, settings, tuned, head)
    folder = take_model(task.workdir, tuned.folder, tuned.tokenizer, task.spec)
    tuned.model.generation_config = generation_settings(tuned.tokenizer, task.spec)
    return replace(tuned, folder=folder, acts=head)


def supervised_spec(spec: TrialSpec, settings: ReaderSettings) -> TrialSpec:
    """What of a trial its supervised phase reads; equal for trials that have the phase in common.

    Args:
        spec: the trial.
        settings: the method's.
    """
    return TrialSpec(
        model=spec.model,
        method=ReaderSettings(rl="none", act_loss_weight=settings.act_loss_weight),
        seed=spec.seed,
        training=spec.training,
        decoding=DecodingSpec(prompt_template=spec.decoding.prompt_template),
    )


def _tune_jointly(
    task: TrainingTask, settings: ReaderSettings, acts: Sequence[str]
) -> tuple[TunedModel, ActHead]:
    """The supervised phase's model, and its head, which is no part of it any more."""
    spec = supervised_spec(task.spec, settings)
    identity = training_identity(spec, task.source, task.pairs)
    with hold_phase(task, "joint", identity, spec.training.batch_size) as folder:
        on_epoch = task.on_epoch if settings.rl == "none" else _untold_of_the_last(task.on_epoch)
        tuned = tune(
            replace(task, spec=spec, workdir=folder, on_epoch=on_epoch),
            lambda: _build(spec, task.source, acts),
            _load_with_head,
        )
    write_steps(task.workdir / "train.csv", tuned.rows)
    return tuned, detach_head(tuned.model).requires_grad_(False).eval()


def _untold_of_the_last(on_epoch: OnEpoch) -> OnEpoch:
    """Told of every epoch but the last, whose validation loss is not yet the trial's."""

    def tell(report: EpochReport) -> None:
        if report.step < report.total_steps:
            on_epoch(report)

    return tell


def _build(
    spec: TrialSpec, source: Path, acts: Sequence[str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import set_seed

    set_seed(spec.seed)
    model, tokenizer = load_model(source)
    check_length(model.config, spec)
    attach_head(model, new_head(model, acts))
    return model, tokenizer


def _load_with_head(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    model, tokenizer = load_model(folder)
    attach_head(model, load_head(model, folder))
    model.eval()
    return model, tokenizer


def _reinforce(
    task: TrainingTask, settings: ReaderSettings, tuned: TunedModel, head: ActHead
) -> TunedModel:
    """The model after the phase of reinforcement learning, in that phase's folder."""
    spec, tokenizer, pairs = task.spec, tuned.tokenizer, task.pairs
    model: PreTrainedModel = tuned.model
    room = spec.training.max_length - settings.rl_max_new_tokens
    template = spec.decoding.prompt_template
    prompts = [encode_prompt(tokenizer, pair.prompt, template, room) for pair in pairs.train]

    def make_score() -> Score:
        judge = ActJudge(
            copy.deepcopy(model).requires_grad_(False),
            head,
            tokenizer,
            prompts,
            [pair.act for pair in pairs.train],
            spec.training.max_length,
        )
        references = [pair.reference for pair in pairs.train]
        return make_reward(settings, spec.metrics, references, judge)

    def save(policy: PreTrainedModel, folder: Path) -> None:
        save_model(policy, tokenizer, spec, folder)
        save_head(head, folder)

    reinforced = reinforce(
        task,
        settings,
        Start(model, tokenizer, tuned.digest),
        prompts,
        make_score,
        _scoring(task, settings),
        save,
        lambda folder: load_model(folder)[0].eval(),
    )
    course = reinforced.course
    adjusted = dict(tuned.adjusted)
    if course.at_once < settings.rl_mini_batch_size:
        adjusted["rl_mini_batch_size"] = course.at_once
    _, valid, _ = encode_splits(tokenizer, pairs, spec)
    loss = mean_token_loss(reinforced.model, valid, task.should_stop)
    last = tuned.rows[-1]
    task.on_epoch(EpochReport(last.epoch, last.step, last.step, tuned.train_loss, loss))
    return replace(
        tuned,
        model=reinforced.model,
        folder=reinforced.folder,
        valid_loss=loss,
        digest=reinforced.digest,
        seconds=tuned.seconds + course.seconds,
        adjusted=adjusted,
        measures=reinforced.measures(),
        notes=(*tuned.notes, *course.notes, *course.warnings),
    )


def _scoring(task: TrainingTask, settings: ReaderSettings) -> str:
    """Equal where rewards are; what the judge has learnt is known by the supervised model."""
    weights = {
        name: value
        for name, value in asdict(settings).items()
        if name.endswith("_weight") or name == "reward_shift"
    }
    content = {
        "weights": weights,
        "encoders": reward_fingerprints(settings, task.spec.metrics),
        "references": [[pair.reference, pair.act] for pair in task.pairs.train],
        "max_length": task.spec.training.max_length,
    }
    return json.dumps(content, sort_keys=True)
