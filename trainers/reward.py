"""A reward model: how good an answer to a question is.

A classifier with one output, trained on comparisons of a preferred and a rejected answer, or on answers
that are labelled good or bad.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpora.question_answers import LabelledAnswer, QuestionAnswer, content_hash
from trainers.checkpoint_files import remove_checkpoints
from trainers.checkpoints import CheckpointClock, CheckpointSettings, checkpoint_bytes
from trainers.classifier import classify, classify_all, load_classifier
from trainers.errors import DivergedError, StoppedError, is_out_of_memory
from trainers.fingerprint import folder_fingerprint
from trainers.finished import model_folder, read_trained, write_trained
from trainers.loss import free_memory
from trainers.micro_batch import (
    forget_micro_batch,
    remember_at_once,
    remembered_at_once,
    smaller_cut,
)
from trainers.preferences import (
    Preference,
    chance_of_right,
    preference_loss,
    preference_texts,
    share_right,
    split_by_question,
)
from trainers.progress import ShouldStop, never
from trainers.whole_folders import discard_leftovers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FORMAT = 2
_DEFAULT = CheckpointSettings()


@dataclass(frozen=True)
class RewardSettings:
    """How a reward model is trained; the published one: DistilBERT, 5 epochs, 5e-5."""

    epochs: int = 5
    learning_rate: float = 5e-5
    """Peak; rises over the first tenth of the steps and falls to zero over the rest."""
    batch_size: int = 8
    """Comparisons, or labelled answers, per optimiser step."""
    max_length: int = 256
    """Tokens of question and answer together; the longer of the two is cut."""
    held_out_fraction: float = 0.2
    """Share of the questions that is not trained on, for the accuracy."""
    seed: int = 0


@dataclass(frozen=True)
class RewardModel:
    """A trained reward model."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    centre: float
    """Output of an average answer: Bradley-Terry leaves the level open, so that it is the mean over
    the training answers; 0 after labelled ones, whose outputs are log-odds."""
    accuracy: float
    """Share of held-out comparisons in which the preferred answer got the higher output; of held-out
    labelled answers, share on the right side of 0."""
    held_out: int
    """Comparisons or labelled answers behind `accuracy`; on questions that were not trained on."""
    chance: float
    """What `accuracy` is without reading any answer."""
    train_accuracy: float
    loss: float
    """Mean training loss of the last epoch, in nats per comparison or labelled answer."""
    seconds: float
    """Training time over all attempts; what was lost with a killed one does not count."""
    adjusted: Mapping[str, int] = field(default_factory=dict)
    """`reward_batch_size` per forward pass, where memory ran out; a step is as specified."""
    notes: tuple[str, ...] = ()
    """What was found damaged or foreign, and was passed over."""

    def score(self, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
        """Rewards in (-1, 1), 2 (P - 0.5).

        P is the chance that the answer beats an average one or, after labelled answers, that it is
        good.

        Args:
            questions: B questions.
            answers: B answers.

        Raises:
            torch.OutOfMemoryError: one answer at a time does not fit.
        """
        import torch

        texts = list(zip(questions, answers, strict=True))
        outputs = classify_all(self.model, self.tokenizer, texts, self.max_length)
        return [float(r) for r in 2 * (torch.sigmoid(torch.tensor(outputs) - self.centre) - 0.5)]


def reward_identity(
    source: Path,
    preferences: Sequence[QuestionAnswer] | Sequence[LabelledAnswer],
    settings: RewardSettings,
) -> str:
    """Equal for reward models that are trained alike, whoever needs them.

    Args:
        source: folder of the model to start from; its contents count.
        preferences: their texts and labels count.
        settings: how it is trained.
    """
    content = {
        "format": _FORMAT,
        "model": folder_fingerprint(source),
        "preferences": content_hash(preferences),
        "settings": asdict(settings),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def train_reward(
    source: Path,
    preferences: Sequence[QuestionAnswer] | Sequence[LabelledAnswer],
    settings: RewardSettings,
    workdir: Path,
    *,
    checkpoints: CheckpointSettings = _DEFAULT,
    should_stop: ShouldStop = never,
) -> RewardModel:
    """Train a reward model, or take the one that the folder holds, or continue it.

    Args:
        source: folder of an encoder or a causal language model.
        preferences: questions with a preferred and a rejected answer, or with a labelled one.
        settings: how it is trained.
        workdir: the reward model's own folder: `model/` and `trained.json`; checkpoints meanwhile.
        checkpoints: how often to save what an interrupted training continues from.
        should_stop: asked before every optimiser step, and while answers are scored.

    Raises:
        ModelError: no sequence classifier can be made of the source, or there are too few questions.
        DivergedError: the loss became NaN or infinite.
        StoppedError: `should_stop` said so; a checkpoint is in place.
        torch.OutOfMemoryError: one comparison, or labelled answer, at a time does not fit.
        OSError: the disk is full; the last whole checkpoint is kept.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    discard_leftovers(workdir)
    identity = reward_identity(source, preferences, settings)
    finished, _, why = read_trained(workdir, identity)
    notes: tuple[str, ...] = (why,) if why else ()
    if finished is None:
        every: Sequence[Preference] = preferences
        train, held_out = split_by_question(every, settings.held_out_fraction, settings.seed)
        attempt = _Attempt(source, train, settings, workdir, identity, checkpoints, should_stop)
        loop = _train_until_it_fits(attempt)
        notes += loop.notes
        model, tokenizer = loop.model, loop.tokenizer
        finished = _measured(loop, train, held_out)
        write_trained(workdir, identity, loop.save_model, finished)
    else:
        model, tokenizer = load_classifier(model_folder(workdir), settings.seed)
    remove_checkpoints(workdir)
    forget_micro_batch(workdir)
    return RewardModel(model, tokenizer, **finished, notes=notes)


@dataclass(frozen=True)
class _Attempt:
    """What is trained, from where and how."""

    source: Path
    train: Sequence[Preference]
    settings: RewardSettings
    workdir: Path
    identity: str
    checkpoints: CheckpointSettings
    should_stop: ShouldStop


class _Loop:
    """A training from its newest checkpoint on.

    Args:
        attempt: what is trained.
        at_once: comparisons or labelled answers per forward pass, at most.
    """

    def __init__(self, attempt: _Attempt, at_once: int) -> None:
        import torch

        from trainers.optimizer_state import restore_loop

        settings = attempt.settings
        self.attempt = attempt
        self.model, self.tokenizer = load_classifier(attempt.source, settings.seed)
        self._weights = dict(self.model.named_parameters())
        self._optimizer = torch.optim.AdamW(
            self._weights.values(), settings.learning_rate, weight_decay=0.01
        )
        state, self.notes = restore_loop(
            attempt.workdir, attempt.identity, self._weights, self._optimizer
        )
        known = state or {"step": 0, "at_once": at_once, "loss_sum": 0.0, "seconds": 0.0}
        self.at_once = min(at_once, int(known["at_once"]))
        self._step = self._saved = int(known["step"])
        self._loss_sum, self._earlier_s = float(known["loss_sum"]), float(known["seconds"])
        self._began = time.monotonic()
        self._epoch_steps = -(-len(attempt.train) // settings.batch_size)
        self._clock = CheckpointClock(
            attempt.checkpoints,
            checkpoint_bytes(self._weights.values()),
            step=self._step,
            epoch=self._step / self._epoch_steps,
            seconds=self._earlier_s,
        )

    @property
    def seconds(self) -> float:
        """Training time over all attempts."""
        return self._earlier_s + time.monotonic() - self._began

    @property
    def loss(self) -> float:
        """Mean loss of the epoch that is done."""
        return self._loss_sum / len(self.attempt.train)

    def train(self) -> None:
        """Train to the end; where that is asked for, stop at a checkpoint."""
        total = self._epoch_steps * self.attempt.settings.epochs
        self.model.train()
        while self._step < total:
            if self.attempt.should_stop():
                self.save()
                message = f"the reward model's training was asked to stop at step {self._step}"
                raise StoppedError(message)
            self._take_step(total)
            epoch = self._step / self._epoch_steps
            if self._step < total and self._clock.is_due(self._step, epoch, self.seconds):
                self.save()
        self.model.eval()

    def save(self) -> None:
        """Write a checkpoint of the last optimiser step, where there is none."""
        from trainers.optimizer_state import save_loop

        if self._step == self._saved:
            return
        began = time.monotonic()
        state = {"at_once": self.at_once, "loss_sum": self._loss_sum, "seconds": self.seconds}
        attempt, self._saved = self.attempt, self._step
        save_loop(
            attempt.workdir, self._step, attempt.identity, self._weights, self._optimizer, state
        )
        epoch, took = self._step / self._epoch_steps, time.monotonic() - began
        self._clock.saved(self._step, epoch, self.seconds, took)

    def save_model(self, folder: Path) -> None:
        """Save model and tokenizer as Hugging Face users expect them."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def outputs(self, preferences: Sequence[Preference]) -> list[float]:
        """Outputs for the preferences' texts; where a stop is asked for, a checkpoint is left."""
        attempt, texts = self.attempt, preference_texts(preferences)
        length = attempt.settings.max_length
        try:
            return classify_all(self.model, self.tokenizer, texts, length, attempt.should_stop)
        except StoppedError:
            self.save()
            raise

    def _take_step(self, total: int) -> None:
        import torch

        settings, train = self.attempt.settings, self.attempt.train
        epoch, place = divmod(self._step, self._epoch_steps)
        if place == 0:
            self._loss_sum = 0.0
        order = list(range(len(train)))
        random.Random(f"{settings.seed}/{epoch}").shuffle(order)
        batch = order[place * settings.batch_size : (place + 1) * settings.batch_size]
        # Dropout is drawn by seed and step, so that a training that is continued draws the same.
        torch.manual_seed(settings.seed * 1_000_003 + self._step)
        self._optimizer.zero_grad()
        for start in range(0, len(batch), self.at_once):
            part = [train[i] for i in batch[start : start + self.at_once]]
            texts = preference_texts(part)
            outputs_n = classify(self.model, self.tokenizer, texts, settings.max_length)
            loss = preference_loss(outputs_n, part)
            if not torch.isfinite(loss):
                raise DivergedError(self._step + 1, loss.item(), "reward model's loss")
            (loss * (len(part) / len(batch))).backward()
            self._loss_sum += loss.item() * len(part)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(self._step, total)
        torch.nn.utils.clip_grad_norm_(self._weights.values(), 1.0)
        self._optimizer.step()
        self._step += 1


def _schedule(step: int, total: int) -> float:
    warm_up = max(1, total // 10)
    return min((step + 1) / warm_up, (total - step) / max(1, total - warm_up))


def _train_until_it_fits(attempt: _Attempt) -> _Loop:
    """A finished training; each time memory runs out, from the last checkpoint with less at once."""
    at_once = remembered_at_once(attempt.workdir, attempt.settings.batch_size)
    while True:
        loop = _Loop(attempt, at_once)
        if _fits(loop):
            return loop
        at_once = smaller_cut(loop.at_once)
        remember_at_once(attempt.workdir, at_once)
        del loop
        free_memory()


def _fits(loop: _Loop) -> bool:
    """Whether the training came to its end; not where memory ran out and less can be tried."""
    try:
        loop.train()
    except (RuntimeError, MemoryError) as error:
        if loop.at_once == 1 or not is_out_of_memory(error):
            raise
        return False
    return True


def _measured(
    loop: _Loop, train: Sequence[Preference], held_out: Sequence[Preference]
) -> dict[str, Any]:
    """The numbers of a reward model whose training is done."""
    settings, seconds = loop.attempt.settings, loop.seconds
    outputs, held_out_outputs = loop.outputs(train), loop.outputs(held_out)
    labelled = isinstance(train[0], LabelledAnswer)
    return {
        "max_length": settings.max_length,
        "centre": 0.0 if labelled else sum(outputs) / len(outputs),
        "accuracy": share_right(held_out_outputs, held_out),
        "held_out": len(held_out),
        "chance": chance_of_right(train, held_out),
        "train_accuracy": share_right(outputs, train),
        "loss": loop.loss,
        "seconds": seconds,
        "adjusted": (
            {} if loop.at_once == settings.batch_size else {"reward_batch_size": loop.at_once}
        ),
    }
