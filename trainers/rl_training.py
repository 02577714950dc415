"""From a method's settings of reinforcement learning to the loop that follows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from search_spaces.spec import RlSettings
from trainers.ppo import PpoSettings
from trainers.ppo_loop import LoopSettings, Score, train_ppo
from trainers.rl_course import RlCourse
from trainers.task import TrainingTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MAX_GRAD_NORM = 1.0
"""Of every loop; `max_grad_norm` of a trial is that of its supervised training."""


def train_rl(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    score: Score,
    settings: RlSettings,
    task: TrainingTask,
    workdir: Path,
    identity: str,
) -> RlCourse:
    """Train a policy in place towards the score, by the loop that the settings name.

    Args:
        policy: a causal language model.
        tokenizer: its tokenizer.
        prompts: token ids of what is replied to; at least one.
        score: the reward of whole replies.
        settings: of the method; its `rl` is not `none`.
        task: for its seed, how often it saves, and whether it is to stop.
        workdir: the loop's own folder.
        identity: of all that the loop depends on.

    Raises:
        DivergedError: a score, a loss or a gradient became NaN or infinite.
        StoppedError: the task was to stop; a checkpoint is in place.
        OSError: the disk is full; the last whole checkpoint is kept.
        torch.OutOfMemoryError: one reply at a time does not fit.
    """
    replies_a_prompt = settings.num_generations if settings.rl == "rloo" else 1
    replies = len(prompts) * settings.rl_epochs * replies_a_prompt
    loop = LoopSettings(
        steps=-(-replies // settings.rl_batch_size),
        batch_size=settings.rl_batch_size,
        max_new_tokens=settings.rl_max_new_tokens,
        learning_rate=settings.rl_learning_rate,
        seed=task.spec.seed,
    )
    match settings.rl:
        case "ppo":
            return train_ppo(
                policy,
                tokenizer,
                prompts,
                score,
                PpoSettings(
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
                    max_grad_norm=_MAX_GRAD_NORM,
                ),
                loop,
                workdir,
                identity,
                checkpoints=task.checkpoints,
                should_stop=task.should_stop,
            )
        case "rloo":
            from trainers.rloo import RlooSettings, train_rloo

            return train_rloo(
                policy,
                tokenizer,
                prompts,
                score,
                RlooSettings(
                    kl_coef=settings.kl_coef,
                    clip_range=settings.clip_range,
                    num_generations=settings.num_generations,
                    iterations=settings.rl_iterations,
                    mini_batch_size=settings.rl_mini_batch_size,
                    temperature=settings.rl_temperature,
                    max_grad_norm=_MAX_GRAD_NORM,
                ),
                loop,
                workdir,
                identity,
                checkpoints=task.checkpoints,
                should_stop=task.should_stop,
            )
        case "none":
            raise ValueError("there is no reinforcement learning to do: rl is none")
        case _:
            assert_never(settings.rl)
