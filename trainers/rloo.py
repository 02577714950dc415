"""REINFORCE leave-one-out: the policy is trained by TRL, and each reply is its siblings' baseline.

Sources: Ahmadian et al. 2024 (2402.14740), and for the clipped ratio, which RLOO's one pass over its
replies does without, Schulman et al. 2017 (1707.06347). As in PPO here, what is random follows from
the seed, and a loop that is continued goes on with the bits that an undisturbed one would have (on
CPU).
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import Problem, one_problem
from trainers.checkpoint_files import newest_checkpoint
from trainers.checkpoints import CheckpointClock, CheckpointSettings, checkpoint_bytes
from trainers.errors import ModelError, StoppedError, is_out_of_memory
from trainers.loading import device_here
from trainers.loss import free_memory
from trainers.micro_batch import (
    forget_micro_batch,
    largest_cut,
    remember_at_once,
    remembered_at_once,
    smaller_cut,
)
from trainers.progress import ShouldStop, never
from trainers.rl_course import RL_FILE, RlCourse, write_rows
from trainers.supervised import checkpointing_argument, take_off_training, trainer_folder
from trainers.whole_folders import discard_leftovers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import RLOOConfig

    from trainers.ppo_loop import LoopSettings, Score


@dataclass(frozen=True)
class RlooSettings:
    """What an update depends on."""

    kl_coef: float = 0.05
    """Weight of the KL penalty, which is taken from each reply's reward; fixed."""
    clip_range: float = 0.2
    """How far a reply's probability ratio may move before its gradient ends."""
    num_generations: int = 2
    """Replies per prompt."""
    iterations: int = 1
    """Passes over a batch of replies, in the same mini-batches."""
    mini_batch_size: int = 4
    """Replies per optimiser step."""
    temperature: float = 1.0
    """Of the replies that are sampled, and so of the policy that is trained."""
    max_grad_norm: float = 1.0


def rloo_problems(
    batch_size: int, mini_batch_size: int, num_generations: int
) -> tuple[Problem, ...]:
    """What keeps an update from being cut into prompts and optimiser steps; empty where nothing does.

    Args:
        batch_size: replies per update.
        mini_batch_size: replies per optimiser step; divides the former, within groups or across.
        num_generations: replies per prompt; at least 2, and divides the first.
    """
    found: list[Problem] = []
    groups = [size for size in range(2, batch_size + 1) if batch_size % size == 0]
    if not groups:
        found += one_problem(
            "search space",
            "rl_batch_size",
            "rloo compares at least 2 replies to a prompt within an update",
            batch_size,
            str(max(2, num_generations)),
        )
    elif num_generations not in groups:
        found += one_problem(
            "search space",
            "num_generations",
            f"rloo needs at least 2, in a number that divides rl_batch_size ({batch_size})",
            num_generations,
            str(min(groups, key=lambda size: abs(size - num_generations))),
        )
    if mini_batch_size < 1 or batch_size % mini_batch_size:
        found += one_problem(
            "search space",
            "rl_mini_batch_size",
            f"with rloo, it must divide rl_batch_size ({batch_size})",
            mini_batch_size,
            str(largest_cut(batch_size, max(1, mini_batch_size))),
        )
    return tuple(found)


def train_rloo(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    score: Score,
    settings: RlooSettings,
    loop: LoopSettings,
    workdir: Path,
    identity: str,
    *,
    checkpoints: CheckpointSettings | None = None,
    should_stop: ShouldStop = never,
) -> RlCourse:
    """Train a policy in place towards the score, and not far from what it was.

    Nothing is cut from the distribution that replies are drawn from, and dropout is off throughout,
    so that the ratio of the policy to itself is 1. TRL writes the replies of an update all at once,
    and shuffles them into mini-batches.

    Args:
        policy: a causal language model; as it is now, a copy of it is the frozen reference.
        tokenizer: its tokenizer.
        prompts: token ids of what is replied to, and all that stands before a reply; at least one.
        score: the reward of whole replies.
        settings: of the updates.
        loop: of the loop; `rloo_problems` says which batches can be cut.
        workdir: the loop's own folder, for `rl.csv` and checkpoints. The last checkpoint stays
            until the caller has saved the policy and removes it.
        identity: of all that the loop depends on: policy, prompts, score, settings.
        checkpoints: how often to save; a step is an update, an epoch a pass over the prompts.
        should_stop: asked before every update.

    Returns:
        Rows of `reward` (mean score, without the penalty), `kl` (nats per reply, the sum of the
        log-ratios of its tokens to the reference when it was written, as PPO's), `kl_coef`,
        `entropy` (nats per token) and `clip_fraction` (share of replies whose ratio was clipped) and
        `policy_loss`, each a mean over the update's forward passes, `tokens` and `distinct`
        (different replies per reply).

    Raises:
        ModelError: the batches cannot be cut as asked.
        DivergedError: a score, a loss or a gradient became NaN or infinite.
        StoppedError: `should_stop` said so; a checkpoint is in place.
        torch.OutOfMemoryError: one reply at a time does not fit.
        OSError: the disk is full; the last whole checkpoint is kept.
    """
    if problems := rloo_problems(
        loop.batch_size, settings.mini_batch_size, settings.num_generations
    ):
        raise ModelError(problems)
    workdir.mkdir(parents=True, exist_ok=True)
    discard_leftovers(workdir)
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    at_once = remembered_at_once(workdir, settings.mini_batch_size)
    while True:
        this = _Attempt(tokenizer, settings, loop, workdir, identity, at_once)
        try:
            course = this.run(
                policy,
                reference,
                prompts,
                score,
                checkpoints or CheckpointSettings(),
                should_stop,
            )
            break
        except (RuntimeError, MemoryError) as error:
            if at_once == 1 or not is_out_of_memory(error):
                raise
        finally:
            shutil.rmtree(trainer_folder(workdir), ignore_errors=True)
        # Past the error: what its traceback held is free.
        at_once = smaller_cut(at_once)
        remember_at_once(workdir, at_once)
        policy.load_state_dict(reference.state_dict())
        free_memory()
    forget_micro_batch(workdir)
    return course


@dataclass(frozen=True)
class _Attempt:
    """One attempt at a loop, from its newest checkpoint on, with so many replies per forward pass."""

    tokenizer: PreTrainedTokenizerBase
    settings: RlooSettings
    loop: LoopSettings
    workdir: Path
    identity: str
    at_once: int

    def run(
        self,
        policy: PreTrainedModel,
        reference: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        score: Score,
        checkpoints: CheckpointSettings,
        should_stop: ShouldStop,
    ) -> RlCourse:
        """All updates that are left."""
        from datasets import Dataset

        from trainers.ppo_loop import choose_prompts, guard
        from trainers.rloo_trainer import ResumableRlooTrainer, RlooSurroundings, UpdateLog

        trained = {n: p for n, p in policy.named_parameters() if p.requires_grad}
        shapes = {name: tuple(parameter.shape) for name, parameter in trained.items()}
        checkpoint, notes = newest_checkpoint(self.workdir, self.identity, shapes)
        log = UpdateLog(score, self.settings.kl_coef, checkpoint.state if checkpoint else None)
        if len(log.rows) < self.loop.steps and should_stop():
            raise StoppedError(f"RLOO was asked to stop at update {len(log.rows)}")
        groups = self.loop.batch_size // self.settings.num_generations
        numbers = choose_prompts(len(prompts), range(self.loop.steps * groups), self.loop.seed)
        rows = [{"prompt": list(prompts[number]), "number": number} for number in numbers]
        clock = CheckpointClock(
            checkpoints,
            checkpoint_bytes(trained.values()),
            step=len(log.rows),
            epoch=len(log.rows) * groups / len(prompts),
            seconds=log.seconds,
        )
        with _lent_to_trl(policy, self.tokenizer):
            trainer = ResumableRlooTrainer(
                model=policy,
                reward_funcs=log.reward,  # type: ignore[call-arg]  # TRL's classes have no types.
                args=self._config(),
                train_dataset=Dataset.from_list(rows),
                # TRL gives it a padding token where it has none.
                processing_class=copy.deepcopy(self.tokenizer),
            )
            around = RlooSurroundings(
                workdir=self.workdir,
                identity=self.identity,
                batch_size=self.at_once,
                checkpoint=checkpoint,
                content=log.to_json,
                reference=reference,
                kl_coef=self.settings.kl_coef,
                log=log,
                steps=self.loop.steps,
                epochs_per_step=groups / len(prompts),
                clock=clock,
                should_stop=should_stop,
            )
            try:
                trainer.begin(around)
            finally:
                if log.rows:
                    write_rows(self.workdir / RL_FILE, log.rows)
        return RlCourse(
            rows=tuple(log.rows),
            warnings=guard(log.rows, None),
            notes=notes,
            seconds=log.seconds,
            at_once=self.at_once,
        )

    def _config(self) -> RLOOConfig:
        from trl import RLOOConfig

        settings, loop = self.settings, self.loop
        on_cpu = device_here().type == "cpu"
        return RLOOConfig(
            output_dir=str(trainer_folder(self.workdir)),
            per_device_train_batch_size=self.at_once,
            gradient_accumulation_steps=settings.mini_batch_size // self.at_once,
            steps_per_generation=loop.batch_size // self.at_once,
            num_generations=settings.num_generations,
            num_iterations=settings.iterations,
            # The rows are those of all updates, in order.
            num_train_epochs=1,
            shuffle_dataset=False,
            max_completion_length=loop.max_new_tokens,
            temperature=settings.temperature,
            # Else TRL would read the reference from the folder that the policy was once read from.
            beta=0.0,
            epsilon=settings.clip_range,
            learning_rate=loop.learning_rate,
            lr_scheduler_type="constant",
            optim="adamw_torch",
            weight_decay=0.0,
            max_grad_norm=settings.max_grad_norm,
            bf16=False,
            seed=loop.seed,
            use_cpu=on_cpu,
            dataloader_pin_memory=not on_cpu,
            logging_steps=1,
            logging_nan_inf_filter=False,
            eval_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **checkpointing_argument(RLOOConfig, False),
        )


@contextmanager
def _lent_to_trl(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """A policy whose own decoding settings do not touch its sampling; afterwards, as it was."""
    from transformers import GenerationConfig

    config = policy.config.get_text_config()
    tokens = {name: getattr(config, f"{name}_token_id", None) for name in ("bos", "eos", "pad")}
    use_cache, decoding = policy.config.use_cache, policy.generation_config
    policy.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    try:
        yield
    finally:
        policy.generation_config = decoding
        for name, token in tokens.items():
            setattr(config, f"{name}_token_id", token)
        take_off_training(policy, use_cache)
