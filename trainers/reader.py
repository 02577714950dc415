"""`reader`: a model learns replies and their acts jointly, then replies by reinforcement learning.

Source: READER (Srivastava et al. 2023): a language-model head and an act head on one backbone, then PPO
on the act, the similarity and the overlap with the reference.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpora.act_labels import require_acts
from search_spaces.atomic import write_atomically
from search_spaces.errors import one_problem
from search_spaces.spec import DecodingSpec, ReaderSettings, TrialSpec
from trainers.act_head import ActHead, attach_head, detach_head, load_head, new_head, save_head
from trainers.checkpoint_files import remove_checkpoints
from trainers.encoding import encode_prompt
from trainers.errors import ModelError
from trainers.examples import check_length, encode_splits
from trainers.finished import model_folder, read_trained, training_identity, write_trained
from trainers.loading import load_model
from trainers.loss import mean_token_loss
from trainers.phases import hold_phase, take_model
from trainers.reader_reward import ActLogits, make_reward, reward_fingerprints
from trainers.rl_course import RL_FILE, write_rows
from trainers.rl_training import train_rl
from trainers.saving import describe_model, save_model
from trainers.task import TrainingTask
from trainers.tune import tune
from trainers.tuned import TunedModel
from trainers.whole_folders import discard_leftovers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FORMAT = 1
_TRAIN_FILE = "train.csv"


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
        ModelError: the model cannot be loaded or is too short, a sampled reply leaves no room for
            a prompt, or an encoder of the reward cannot be had.
        DivergedError: a score, a loss or a gradient became NaN or infinite.
        StoppedError: the task was to stop; the next call continues.
        OSError: the disk is full; the last whole checkpoint is kept.
        torch.OutOfMemoryError: one pair or reply at a time does not fit.
    """
    acts = require_acts(task.spec.corpus.corpus, task.pairs)
    tuned, head = _tune_jointly(task, settings, acts)
    tuned = replace(
        tuned,
        acts=head,
        unknown_acts=sum(pair.act not in acts for pair in task.pairs.train),
    )
    return tuned if settings.rl == "none" else _reinforce(task, settings, tuned, head)


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
    """The supervised phase's model in the trial's folder, and its head."""
    spec = supervised_spec(task.spec, settings)
    identity = training_identity(spec, task.source, task.pairs)
    with hold_phase(task, "reader-sft", identity, spec.training.batch_size) as phase:
        tuned = tune(
            replace(task, spec=spec, workdir=phase),
            lambda: _build(spec, task.source, acts),
            _load_with_head,
        )
        # tune gives the model that _build or _load_with_head gave.
        model: Any = tuned.model
        head = detach_head(model).requires_grad_(False).eval()
        write_atomically(task.workdir / _TRAIN_FILE, (phase / _TRAIN_FILE).read_text("utf-8"))
        if settings.rl != "none":
            return tuned, head
        return replace(tuned, folder=_take_model(task, phase, model, tuned.tokenizer)), head


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
    """The tuned model after the reinforcement phase, in the trial's folder."""
    model: Any = tuned.model
    prompts = _encode_prompts(tuned.tokenizer, task, settings)
    identity = _reinforced_identity(task, settings, tuned.digest, prompts)
    name = f"reader-{settings.rl}"
    with hold_phase(task, name, identity, settings.rl_mini_batch_size) as phase:
        discard_leftovers(phase)
        found, digest, why = read_trained(phase, identity)
        notes = [why] if why else []
        if found is not None:
            model, _ = load_model(model_folder(phase))
            model.eval()
        else:
            found, passed_over = _train(
                model, head, tuned.tokenizer, prompts, settings, task, phase, identity
            )
            notes += passed_over
            digest = write_trained(
                phase, identity, lambda aside: _save(model, head, tuned, task.spec, aside), found
            )
        remove_checkpoints(phase)
        write_rows(task.workdir / RL_FILE, found["rows"])
        folder = _take_model(task, phase, model, tuned.tokenizer)
    at_once = int(found["at_once"])
    smaller = {"rl_mini_batch_size": at_once} if at_once < settings.rl_mini_batch_size else {}
    return replace(
        tuned,
        model=model,
        folder=folder,
        valid_loss=float(found["valid_loss"]),
        seconds=tuned.seconds + float(found["seconds"]),
        digest=digest,
        adjusted={**tuned.adjusted, **smaller},
        notes=(*tuned.notes, *notes, *found["warnings"]),
    )


def _encode_prompts(
    tokenizer: PreTrainedTokenizerBase, task: TrainingTask, settings: ReaderSettings
) -> list[list[int]]:
    room = task.spec.training.max_length - settings.rl_max_new_tokens
    if room < 1:
        message = "`rl_max_new_tokens < max_length` must hold, so that a prompt has room"
        raise ModelError(
            one_problem(
                "search space",
                "rl_max_new_tokens",
                message,
                settings.rl_max_new_tokens,
                str(task.spec.training.max_length // 2),
            )
        )
    template = task.spec.decoding.prompt_template
    return [encode_prompt(tokenizer, p.prompt, template, room) for p in task.pairs.train]


def _reinforced_identity(
    task: TrainingTask,
    settings: ReaderSettings,
    supervised: str,
    prompts: Sequence[Sequence[int]],
) -> str:
    """Equal for phases that come to the same."""
    content = {
        "format": _FORMAT,
        "supervised": supervised,
        # The encoder's contents count instead.
        "settings": asdict(settings) | {"similarity_model": None},
        "encoders": reward_fingerprints(settings, task.spec.metrics),
        "prompts": prompts,
        "references": [[pair.reference, pair.act] for pair in task.pairs.train],
        "max_length": task.spec.training.max_length,
        "seed": task.spec.seed,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _train(
    policy: PreTrainedModel,
    head: ActHead,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    settings: ReaderSettings,
    task: TrainingTask,
    phase: Path,
    identity: str,
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Train the policy in place: what it came to, and which checkpoints were passed over."""
    spec, pairs = task.spec, task.pairs
    judge = ActLogits(
        copy.deepcopy(policy).eval().requires_grad_(False),
        head,
        tokenizer,
        prompts,
        [pair.act for pair in pairs.train],
        spec.training.max_length,
    )
    references = [pair.reference for pair in pairs.train]
    reward = make_reward(settings, spec.metrics, references, judge)
    course = train_rl(policy, tokenizer, prompts, reward, settings, task, phase, identity)
    policy.eval()
    _, valid, _ = encode_splits(tokenizer, pairs, spec)
    found = {
        "rows": [dict(row) for row in course.rows],
        "valid_loss": mean_token_loss(policy, valid, task.should_stop),
        "seconds": course.seconds,
        "at_once": course.at_once,
        "warnings": list(course.warnings),
    }
    return found, course.notes


def _save(
    model: PreTrainedModel, head: ActHead, tuned: TunedModel, spec: TrialSpec, folder: Path
) -> None:
    save_model(model, tuned.tokenizer, spec, folder)
    save_head(head, folder)


def _take_model(
    task: TrainingTask, phase: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Path:
    """The phase's model in the trial's folder, described as this trial's."""
    return take_model(
        task.workdir, phase, lambda aside: describe_model(model, tokenizer, task.spec, aside)
    )
