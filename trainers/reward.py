"""A reward model: how much better one answer to a question is than another.

A sequence classifier with one output, from any encoder (DistilBERT, MiniLM) or GPT-2, trained on
questions with a preferred and a rejected answer.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpora.question_answers import QuestionAnswer
from search_spaces.errors import one_problem
from trainers.checkpoint_files import remove_checkpoints
from trainers.errors import DivergedError, ModelError, StoppedError
from trainers.fingerprint import folder_fingerprint
from trainers.loading import device_here
from trainers.model_files import find_dangers, read_object
from trainers.progress import ShouldStop, never
from trainers.whole_folders import (
    describe_files,
    discard_leftovers,
    first_difference,
    write_folder,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FORMAT = 1
_MODEL, _FILE = "model", "reward.json"
_SCORED_TOGETHER = 32


@dataclass(frozen=True)
class RewardSettings:
    """How a reward model is trained; the published one: DistilBERT, 5 epochs, 5e-5."""

    epochs: int = 5
    learning_rate: float = 5e-5
    """Peak; rises over the first tenth of the steps and falls to zero over the rest."""
    batch_size: int = 8
    """Comparisons per optimiser step."""
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
    """Mean output over the training answers: Bradley-Terry leaves the level open."""
    accuracy: float
    """Share of held-out comparisons in which the preferred answer got the higher output."""
    held_out: int
    """Comparisons behind `accuracy`."""
    train_accuracy: float
    notes: tuple[str, ...] = ()
    """What was found damaged or foreign, and was passed over."""

    def score(self, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
        """Rewards in (-1, 1), 2 (P - 0.5), P the chance that an answer beats an average one.

        Args:
            questions: B questions.
            answers: B answers.
        """
        import torch

        outputs = torch.tensor(_outputs(self, list(zip(questions, answers, strict=True))))
        return [float(r) for r in 2 * (torch.sigmoid(outputs - self.centre) - 0.5)]


def bradley_terry_loss(preferred_b: torch.Tensor, rejected_b: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood that each preferred answer wins, in nats.

    Args:
        preferred_b: [B] outputs for the preferred answers.
        rejected_b: [B] outputs for the rejected answers.

    Source: Ouyang et al. 2022, equation 1, for two answers a question.
    """
    import torch

    return -torch.nn.functional.logsigmoid(preferred_b - rejected_b).mean()


def split_comparisons(
    comparisons: Sequence[QuestionAnswer], held_out_fraction: float, seed: int
) -> tuple[list[QuestionAnswer], list[QuestionAnswer]]:
    """Comparisons to train on, and held-out ones; a question's comparisons stay together.

    Args:
        comparisons: at least two questions.
        held_out_fraction: of the questions; at least one is held out, and one is trained on.
        seed: of the draw.

    Raises:
        ModelError: fewer than two questions.
    """
    questions = sorted({c.question for c in comparisons})
    if len(questions) < 2:
        message = "a reward model needs comparisons on at least two questions"
        raise ModelError(one_problem("reward pairs", "", message, len(questions)))
    random.Random(seed).shuffle(questions)
    count = min(len(questions) - 1, max(1, round(len(questions) * held_out_fraction)))
    apart = set(questions[:count])
    train = [c for c in comparisons if c.question not in apart]
    return train, [c for c in comparisons if c.question in apart]


def reward_identity(
    source: Path, comparisons: Sequence[QuestionAnswer], settings: RewardSettings
) -> str:
    """Equal for reward models that are trained alike, whoever needs them.

    Args:
        source: folder of the model to start from; its contents count.
        comparisons: their texts count.
        settings: how it is trained.
    """
    content = {
        "format": _FORMAT,
        "model": folder_fingerprint(source),
        "comparisons": [[c.question, c.preferred, c.rejected] for c in comparisons],
        "settings": asdict(settings),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def train_reward(
    source: Path,
    comparisons: Sequence[QuestionAnswer],
    settings: RewardSettings,
    workdir: Path,
    *,
    should_stop: ShouldStop = never,
) -> RewardModel:
    """Train a reward model, or take the one that the folder holds, or continue it.

    Args:
        source: folder of an encoder or a causal language model.
        comparisons: questions with a preferred and a rejected answer.
        settings: how it is trained.
        workdir: the reward model's own folder: `model/`, and a checkpoint an epoch meanwhile.
        should_stop: asked before every optimiser step.

    Raises:
        ModelError: no sequence classifier can be made of the source.
        DivergedError: the loss became NaN or infinite.
        StoppedError: `should_stop` said so; the next call goes on from the last whole epoch.
        OSError: the disk is full.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    discard_leftovers(workdir)
    identity = reward_identity(source, comparisons, settings)
    found, notes = _read(workdir / _MODEL, identity)
    if found is not None:
        return found
    train, held_out = split_comparisons(comparisons, settings.held_out_fraction, settings.seed)
    model, tokenizer = _load_classifier(source, settings.seed)
    notes += _fit(model, tokenizer, train, settings, workdir, identity, should_stop)
    trained = RewardModel(model, tokenizer, settings.max_length, 0.0, 0.0, len(held_out), 0.0)
    outputs = [_both(trained, part) for part in (train, held_out)]
    centre = sum(sum(pair) for pair in outputs[0]) / (2 * len(train))
    train_accuracy, accuracy = (sum(a > b for a, b in part) / len(part) for part in outputs)
    numbers: dict[str, Any] = {
        "max_length": settings.max_length,
        "centre": centre,
        "accuracy": accuracy,
        "held_out": len(held_out),
        "train_accuracy": train_accuracy,
    }
    _write(workdir / _MODEL, model, tokenizer, identity, numbers)
    remove_checkpoints(workdir)
    return RewardModel(model, tokenizer, **numbers, notes=notes)


def _fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[QuestionAnswer],
    settings: RewardSettings,
    workdir: Path,
    identity: str,
    should_stop: ShouldStop,
) -> tuple[str, ...]:
    """Train in place; why checkpoints were passed over."""
    import torch

    from trainers.optimizer_state import restore_loop, save_loop

    weights = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(weights.values(), settings.learning_rate, weight_decay=0.01)
    state, notes = restore_loop(workdir, identity, weights, optimizer)
    step = int(state["step"]) if state else 0
    steps_per_epoch = -(-len(train) // settings.batch_size)
    total = steps_per_epoch * settings.epochs
    model.train()
    while step < total:
        if should_stop():
            raise StoppedError(f"the reward model's training was asked to stop at step {step}")
        epoch, place = divmod(step, steps_per_epoch)
        order = list(range(len(train)))
        random.Random(f"{settings.seed}/{epoch}").shuffle(order)
        chosen = order[place * settings.batch_size : (place + 1) * settings.batch_size]
        # Dropout is drawn by seed and step, so that a training that is continued draws the same.
        torch.manual_seed(settings.seed * 1_000_003 + step)
        texts = [(train[i].question, train[i].preferred) for i in chosen]
        texts += [(train[i].question, train[i].rejected) for i in chosen]
        outputs_b = _forward(model, tokenizer, texts, settings.max_length)
        loss = bradley_terry_loss(*outputs_b.chunk(2))
        if not torch.isfinite(loss):
            raise DivergedError(step + 1, float(loss), "reward model's loss")
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, total)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        step += 1
        if step % steps_per_epoch == 0 and step < total:
            save_loop(workdir, step, identity, weights, optimizer, {})
    model.eval()
    return notes


def _schedule(step: int, total: int) -> float:
    warm_up = max(1, total // 10)
    return min((step + 1) / warm_up, (total - step) / max(1, total - warm_up))


def _forward(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[tuple[str, str]],
    max_length: int,
) -> torch.Tensor:
    """[B] outputs for B questions and answers."""
    batch = tokenizer(
        [f"Human: {question}\n\nAssistant:" for question, _ in texts],
        [f" {answer}" for _, answer in texts],
        truncation=True,
        max_length=max_length,
        padding=True,
        return_tensors="pt",
    ).to(model.device)
    outputs_b: torch.Tensor = model(**batch).logits[:, 0].float()
    return outputs_b


def _outputs(reward: RewardModel, texts: Sequence[tuple[str, str]]) -> list[float]:
    """Outputs in the texts' order, computed by length so that little is padded."""
    import torch

    order = sorted(range(len(texts)), key=lambda i: len(texts[i][0]) + len(texts[i][1]))
    outputs = [0.0] * len(texts)
    with torch.inference_mode():
        for start in range(0, len(order), _SCORED_TOGETHER):
            part = order[start : start + _SCORED_TOGETHER]
            chosen = [texts[i] for i in part]
            values = _forward(reward.model, reward.tokenizer, chosen, reward.max_length)
            for place, value in zip(part, values.tolist(), strict=True):
                outputs[place] = value
    return outputs


def _both(reward: RewardModel, part: Sequence[QuestionAnswer]) -> list[tuple[float, float]]:
    preferred = _outputs(reward, [(c.question, c.preferred) for c in part])
    rejected = _outputs(reward, [(c.question, c.rejected) for c in part])
    return list(zip(preferred, rejected, strict=True))


def _load_classifier(folder: Path, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if dangers := find_dangers(folder, known_code=True):
        raise ModelError(dangers)
    torch.manual_seed(seed)  # For the new head.
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=1,
            dtype=torch.float32,
            trust_remote_code=False,
            weights_only=True,
            local_files_only=True,
        )
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, SafetensorError) as error:
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        message = f"no sequence classifier can be made of it: {first}"
        raise ModelError(one_problem("reward model", str(folder), message)) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # GPT-2 reads its output off the last token that is not this one.
    model.config.pad_token_id = tokenizer.pad_token_id
    torch.nn.Module.to(model, device_here())
    return model.eval(), tokenizer


def _write(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    identity: str,
    numbers: dict[str, Any],
) -> None:
    def fill(aside: Path) -> None:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        content = {
            "format": _FORMAT,
            "identity": identity,
            "numbers": numbers,
            "files": describe_files(aside),
        }
        text = json.dumps(content, indent=1, allow_nan=False)
        (aside / _FILE).write_text(text, encoding="utf-8")

    write_folder(folder, fill)


def _read(folder: Path, identity: str) -> tuple[RewardModel | None, tuple[str, ...]]:
    """The reward model in a folder, or why what is there does not count."""
    if not folder.exists():
        return None, ()
    try:
        content = read_object(folder / _FILE)
    except (OSError, ValueError) as error:
        return None, (f"the reward model was passed over: {error}",)
    if content.get("identity") != identity:
        return None, ("the reward model was passed over: it was trained otherwise",)
    if why := first_difference(folder, content.get("files"), ignored=(_FILE,)):
        return None, (f"the reward model was passed over: {why}",)
    model, tokenizer = _load_classifier(folder, 0)
    return RewardModel(model, tokenizer, **content["numbers"]), ()
