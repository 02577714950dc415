"""`chatmgl`: the study's baseline, made by us: SFT on questions and answers, a reward model, RL on it.

The dialogues of the corpus are not trained on; they are what the model is measured by. Each phase is
shared by the trials that have it in common (see `phases.py`).

Source: the three phases are those of Ouyang et al. 2022, figure 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from corpora.dialogue import PairSplits
from corpora.findings import Findings
from corpora.question_answers import read_preferences, read_questions
from corpora.question_splits import split_questions
from search_spaces.spec import ChatMglSettings, DecodingSpec, TrialSpec
from trainers.encoder_files import fetch_encoder
from trainers.encoding import encode_prompt
from trainers.errors import StoppedError
from trainers.examples import check_length, encode_splits
from trainers.finished import take_model, training_identity
from trainers.inputs import data_file
from trainers.loading import load_model
from trainers.loss import mean_token_loss
from trainers.phases import hold_phase
from trainers.ppo_loop import Score
from trainers.progress import EpochReport, StepRow, write_steps
from trainers.reinforce import Start, reinforce
from trainers.reward import RewardModel, RewardSettings, reward_identity, train_reward
from trainers.saving import generation_settings, save_model
from trainers.task import TrainingTask
from trainers.tune import tune
from trainers.tuned import TunedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train_chatmgl(task: TrainingTask, settings: ChatMglSettings) -> TunedModel:
    """Tune a model to answer questions, and then towards what a reward model prefers.

    Args:
        task: of its pairs only the validation pairs are read, to measure the finished model; the
            model is saved under `model/`.
        settings: the data, the reward model, and the reinforcement learning.

    Raises:
        CorpusError: the question-answer data cannot be read.
        ModelError: a model cannot be loaded, is too short, or settings do not fit one another.
        DivergedError: a loss, a reward or a gradient became NaN or infinite.
        StoppedError: the task was to stop; the next call continues.
        torch.OutOfMemoryError: one example at a time does not fit.
    """
    if task.should_stop():
        raise StoppedError("training was asked to stop before it began")
    found = Findings()
    questions = read_questions(data_file(settings.qa_data, "qa_data"), found)
    pairs = split_questions(questions, task.spec.split.split_seed)
    tuned = _supervise(task, pairs)
    tuned = replace(tuned, notes=(*tuned.notes, *map(str, found.oddities)))
    if settings.rl != "none":
        tuned = _reinforce(task, settings, tuned, [pair.prompt for pair in pairs.train])
    return _measured(task, tuned)


def _supervise(task: TrainingTask, pairs: PairSplits) -> TunedModel:
    """The first phase: full fine-tuning on the answers."""
    # All that the phase reads, so that trials that differ elsewhere share it.
    spec = TrialSpec(
        model=task.spec.model,
        method=ChatMglSettings(rl="none"),
        seed=task.spec.seed,
        training=task.spec.training,
        decoding=DecodingSpec(prompt_template=task.spec.decoding.prompt_template),
    )
    identity = training_identity(spec, task.source, pairs)
    with hold_phase(task, "sft", identity, spec.training.batch_size) as folder:
        phase = replace(task, spec=spec, pairs=pairs, workdir=folder, on_epoch=_unheard)
        return tune(phase, lambda: _build(spec, task.source), load_model)


def _build(spec: TrialSpec, source: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import set_seed

    set_seed(spec.seed)
    model, tokenizer = load_model(source)
    check_length(model.config, spec)
    return model, tokenizer


def _unheard(report: EpochReport) -> None:
    """The validation loss of a phase is not that of the trial."""


def _reinforce(
    task: TrainingTask, settings: ChatMglSettings, tuned: TunedModel, questions: Sequence[str]
) -> TunedModel:
    """The second and the third phase: a reward model, and the policy that it rewards."""
    spec, tokenizer = task.spec, tuned.tokenizer
    reward, scoring = _train_reward(task, settings)

    def score() -> Score:
        return lambda numbers, replies: reward.score([questions[n] for n in numbers], replies)

    room = spec.training.max_length - settings.rl_max_new_tokens
    template = spec.decoding.prompt_template
    model: PreTrainedModel = tuned.model
    reinforced = reinforce(
        task,
        settings,
        Start(model, tokenizer, tuned.digest),
        [encode_prompt(tokenizer, question, template, room) for question in questions],
        score,
        scoring,
        lambda model, folder: save_model(model, tokenizer, spec, folder),
        lambda folder: load_model(folder)[0],
    )
    course = reinforced.course
    adjusted = {**tuned.adjusted, **reward.adjusted}
    if course.at_once < settings.rl_mini_batch_size:
        adjusted["rl_mini_batch_size"] = course.at_once
    return replace(
        tuned,
        model=reinforced.model,
        folder=reinforced.folder,
        digest=reinforced.digest,
        seconds=tuned.seconds + reward.seconds + course.seconds,
        adjusted=adjusted,
        measures={
            "reward/accuracy": reward.accuracy,
            "reward/train_accuracy": reward.train_accuracy,
            "reward/held_out": float(reward.held_out),
            **reinforced.measures(),
        },
        notes=(*tuned.notes, *reward.notes, *course.notes, *course.warnings),
    )


def _train_reward(task: TrainingTask, settings: ChatMglSettings) -> tuple[RewardModel, str]:
    """The reward model, and what it depends on."""
    source = task.source
    if settings.reward_model is not None:
        source, _ = fetch_encoder(settings.reward_model, "reward_model")
    found = Findings()
    preferences = read_preferences(data_file(settings.preference_data, "preference_data"), found)
    how = RewardSettings(
        epochs=settings.reward_epochs,
        learning_rate=settings.reward_learning_rate,
        batch_size=settings.reward_batch_size,
        seed=task.spec.seed,
    )
    identity = reward_identity(source, preferences, how)
    with hold_phase(task, "reward", identity, settings.reward_batch_size) as folder:
        reward = train_reward(
            source,
            preferences,
            how,
            folder,
            checkpoints=task.checkpoints,
            should_stop=task.should_stop,
        )
    return replace(reward, notes=(*reward.notes, *map(str, found.oddities))), identity


def _measured(task: TrainingTask, tuned: TunedModel) -> TunedModel:
    """The finished model in the trial's folder, and its loss on the corpus's validation pairs."""
    spec, tokenizer = task.spec, tuned.tokenizer
    _, valid, _ = encode_splits(tokenizer, task.pairs, spec)
    loss = mean_token_loss(tuned.model, valid, task.should_stop)
    steps, epoch = tuned.rows[-1].step, tuned.rows[-1].epoch
    # The phase's own validation loss is of its questions, and would stand in the same column.
    rows = [replace(row, valid_loss=None) for row in tuned.rows if row.train_loss is not None]
    write_steps(task.workdir / "train.csv", [*rows, StepRow(steps, epoch, valid_loss=loss)])
    task.on_epoch(EpochReport(epoch, steps, steps, tuned.train_loss, loss))
    folder = take_model(task.workdir, tuned.folder, tokenizer, spec)
    tuned.model.generation_config = generation_settings(tokenizer, spec)
    return replace(tuned, folder=folder, valid_loss=loss)
