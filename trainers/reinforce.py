"""The phase of reinforcement learning, by whichever algorithm: held, resumed, saved, and shared.

It is computed in fp32, whatever the trial's `precision`: ratios of probabilities begin at 1.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import one_problem
from search_spaces.spec import RlSettings
from trainers.checkpoint_files import remove_checkpoints
from trainers.errors import ModelError
from trainers.finished import model_folder, read_trained, write_trained
from trainers.phases import hold_phase
from trainers.ppo_loop import LoopSettings, Score, train_ppo
from trainers.rl_course import RL_FILE, RlCourse, write_rows
from trainers.task import TrainingTask
from trainers.whole_folders import discard_leftovers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LAST = 5
"""Updates over which the end of a loop is measured."""


@dataclass(frozen=True)
class Start:
    """A supervised model, as the policy and the reference begin."""

    model: PreTrainedModel
    """Trained in place."""
    tokenizer: PreTrainedTokenizerBase
    digest: str
    """By which its weights are known."""


@dataclass(frozen=True)
class Reinforced:
    """A policy after reinforcement learning."""

    model: PreTrainedModel
    folder: Path
    """Where the phase has saved it."""
    digest: str
    course: RlCourse

    def measures(self) -> dict[str, float]:
        """Where the loop ended, as results name it: means over its last updates."""
        rows = self.course.rows[-_LAST:]
        means = {name: sum(row[name] for row in rows) / len(rows) for name in ("reward", "kl")}
        return {f"rl/{name}": mean for name, mean in means.items() if math.isfinite(mean)}


def reinforce(
    task: TrainingTask,
    settings: RlSettings,
    start: Start,
    prompts: Sequence[Sequence[int]],
    score: Callable[[], Score],
    scoring: str,
    save: Callable[[PreTrainedModel, Path], None],
    load: Callable[[Path], PreTrainedModel],
) -> Reinforced:
    """Train a policy towards a score, or take the one that the phase's folder holds, or continue it.

    Args:
        task: the trial's.
        settings: which algorithm, and how; `rl: none` has no such phase.
        start: the supervised model.
        prompts: token ids of what is replied to; at least one.
        score: gives the reward of whole replies; called only where the phase is not done.
        scoring: equal where rewards are.
        save: saves the policy in the folder it is given.
        load: gives the policy from such a folder.

    Raises:
        ModelError: settings of the algorithm do not fit one another.
        DivergedError: a score, a loss or a gradient became NaN or infinite.
        StoppedError: the task was to stop; the next call continues.
        torch.OutOfMemoryError: one reply at a time does not fit.
        OSError: the disk is full; the last whole checkpoint is kept.
    """
    content = {
        "start": start.digest,
        "prompts": [list(prompt) for prompt in prompts],
        "scoring": scoring,
        "settings": {field.name: getattr(settings, field.name) for field in fields(RlSettings)},
        "seed": task.spec.seed,
        "max_grad_norm": task.spec.training.max_grad_norm,
    }
    identity = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    with hold_phase(task, settings.rl, identity, settings.rl_mini_batch_size) as folder:
        discard_leftovers(folder)
        trained, digest, why = read_trained(folder, identity)
        if trained is not None:
            course = RlCourse(
                rows=tuple(trained["rows"]),
                warnings=tuple(trained["warnings"]),
                seconds=float(trained["seconds"]),
                at_once=int(trained["at_once"]),
            )
            model = load(model_folder(folder))
        else:
            model = start.model
            course = _train(task, settings, start, prompts, score(), folder, identity)
            kept = asdict(course)
            del kept["notes"]  # They are about this machine's files, not about the policy.
            digest = write_trained(folder, identity, lambda aside: save(model, aside), kept)
            remove_checkpoints(folder)
        write_rows(task.workdir / RL_FILE, course.rows)
    if why:
        course = RlCourse(**{**vars(course), "notes": (why, *course.notes)})
    return Reinforced(model, model_folder(folder), digest, course)


def rl_steps(settings: RlSettings, prompts: int) -> int:
    """Updates that the phase takes.

    Args:
        settings: the method's.
        prompts: number of prompts.
    """
    replies = prompts * settings.rl_epochs
    if settings.rl == "rloo":
        replies *= settings.num_generations
    return math.ceil(replies / settings.rl_batch_size)


def _train(
    task: TrainingTask,
    settings: RlSettings,
    start: Start,
    prompts: Sequence[Sequence[int]],
    score: Score,
    folder: Path,
    identity: str,
) -> RlCourse:
    loop = LoopSettings(
        steps=rl_steps(settings, len(prompts)),
        batch_size=settings.rl_batch_size,
        max_new_tokens=settings.rl_max_new_tokens,
        learning_rate=settings.rl_learning_rate,
        seed=task.spec.seed,
    )
    max_grad_norm = task.spec.training.max_grad_norm or math.inf
    match settings.rl:
        case "ppo":
            from trainers.ppo import PpoSettings

            ppo = PpoSettings(
                kl_coef=settings.kl_coef,
                kl_target=settings.kl_target,
                kl_horizon=settings.kl_horizon,
                gamma=settings.gamma,
                gae_lambda=settings.gae_lambda,
                clip_range=settings.clip_range,
                value_clip_range=settings.value_clip_range,
                value_coef=settings.value_coef,
                own_value_model=settings.value_model == "own",
                whiten_rewards=settings.whiten_rewards,
                ppo_epochs=settings.rl_iterations,
                mini_batch_size=settings.rl_mini_batch_size,
                temperature=settings.rl_temperature,
                max_grad_norm=max_grad_norm,
            )
            return train_ppo(
                start.model,
                start.tokenizer,
                prompts,
                score,
                ppo,
                loop,
                folder,
                identity,
                checkpoints=task.checkpoints,
                should_stop=task.should_stop,
            )
        case "rloo":
            from trainers.rloo import RlooSettings, train_rloo

            rloo = RlooSettings(
                kl_coef=settings.kl_coef,
                clip_range=settings.clip_range,
                num_generations=settings.num_generations,
                iterations=settings.rl_iterations,
                mini_batch_size=settings.rl_mini_batch_size,
                temperature=settings.rl_temperature,
                max_grad_norm=max_grad_norm,
            )
            return train_rloo(
                start.model,
                start.tokenizer,
                prompts,
                score,
                rloo,
                loop,
                folder,
                identity,
                checkpoints=task.checkpoints,
                should_stop=task.should_stop,
            )
        case "none":
            raise ModelError(
                one_problem("search space", "rl", "there is nothing to reinforce", "none", "ppo")
            )
