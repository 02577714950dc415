"""TRL's RLOOTrainer, given token ids and a reference that is in memory, and made to continue.

Imported late: TRL is slow to import. Shapes: B replies of an update, P prompt positions (padded
left), R reply positions (padded right).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from trl import RLOOTrainer

from trainers.checkpointed_trainer import CheckpointedTrainer, NothingLeftError, Surroundings
from trainers.checkpoints import CheckpointClock
from trainers.errors import DivergedError
from trainers.ppo import position_ids, takes_position_ids
from trainers.progress import ShouldStop
from trainers.rl_course import RL_FILE, write_rows

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from trainers.ppo_loop import Score


class UpdateLog:
    """What the updates of a loop came to, while it runs.

    Args:
        score: the reward of whole replies.
        kl_coef: weight of the KL penalty.
        saved: what `to_json` gave an earlier attempt; absent: there was none.
    """

    def __init__(self, score: Score, kl_coef: float, saved: Mapping[str, Any] | None) -> None:
        self.rows: list[Mapping[str, float]] = list(saved["rows"]) if saved else []
        self.seconds: float = saved["seconds"] if saved else 0.0
        self._score, self._kl_coef = score, kl_coef
        self._sampled: dict[str, float] = {}
        self._logged: list[tuple[float, float, float]] = []
        self._began = 0.0

    def to_json(self) -> dict[str, Any]:
        """What a later attempt needs."""
        return {"rows": self.rows, "seconds": self.seconds}

    def begin_update(self) -> None:
        """Replies are sampled next."""
        self._began = time.monotonic()
        self._logged = []

    def reward(
        self, completions: Sequence[str], number: Sequence[int], **others: object
    ) -> list[float]:
        """Rewards of B replies; TRL's reward function.

        Args:
            completions: the replies' texts.
            number: of their prompts.
            others: what else TRL says.

        Raises:
            DivergedError: a reward is no number.
        """
        replies = [text.strip() for text in completions]
        rewards = torch.tensor(list(self._score(number, replies)), dtype=torch.float32)
        reward = self.see_finite(float(rewards.mean()), "reward")
        self._sampled = {"reward": reward, "distinct": len(set(replies)) / len(replies)}
        return rewards.tolist()

    def sampled(self, kl_b: torch.Tensor, tokens_b: torch.Tensor) -> None:
        """Replies were sampled and scored.

        Args:
            kl_b: [B] nats from the reference.
            tokens_b: [B] lengths.

        Raises:
            DivergedError: the KL is no number.
        """
        kl = self.see_finite(float(kl_b.mean()), "KL from the reference")
        self._sampled |= {"kl": kl, "tokens": float(tokens_b.float().mean())}

    def optimised(self, logs: Mapping[str, float]) -> None:
        """An optimiser step was taken.

        Args:
            logs: what the Trainer says of it.

        Raises:
            DivergedError: its gradient was no number.
        """
        self.see_finite(float(logs.get("grad_norm") or 0.0), "RLOO gradient norm")
        self._logged.append((logs["entropy"], logs["clip_ratio/region_mean"], logs["loss"]))

    def end_update(self) -> None:
        """All steps on the replies were taken."""
        entropy, clip_fraction, policy_loss = (
            sum(column) / len(column) for column in zip(*self._logged, strict=True)
        )
        self.rows.append(
            {
                "step": len(self.rows) + 1,
                "reward": self._sampled["reward"],
                "kl": self._sampled["kl"],
                "kl_coef": self._kl_coef,
                "entropy": entropy,
                "clip_fraction": clip_fraction,
                "policy_loss": policy_loss,
                "tokens": self._sampled["tokens"],
                "distinct": self._sampled["distinct"],
            }
        )
        self.seconds += time.monotonic() - self._began

    def see_finite(self, value: float, what: str) -> float:
        """The value itself.

        Args:
            value: that was measured in the update that runs.
            what: it is.

        Raises:
            DivergedError: it is no number.
        """
        if not math.isfinite(value):
            raise DivergedError(len(self.rows) + 1, value, what)
        return value


@dataclass(frozen=True)
class RlooSurroundings(Surroundings):
    """What the loop needs to know beside what the Trainer does."""

    reference: PreTrainedModel
    """The frozen policy."""
    kl_coef: float
    log: UpdateLog
    steps: int
    """Updates."""
    epochs_per_step: float
    """Passes over the prompts per update."""
    clock: CheckpointClock
    should_stop: ShouldStop


class ResumableRlooTrainer(CheckpointedTrainer, RLOOTrainer):  # type: ignore[misc]
    """An RLOOTrainer whose prompts are token ids, and which stops and saves between updates."""

    around: RlooSurroundings
    _reference_br: torch.Tensor

    def begin(self, around: RlooSurroundings) -> None:
        """Train to the end.

        Args:
            around: set once, before training.

        Raises:
            DivergedError: a score, a loss or a gradient became NaN or infinite.
            StoppedError: `should_stop` said so; a checkpoint is in place.
        """
        self.around = around
        reference: Any = around.reference
        # TRL measures with a head of its own over `forward`; the reference is measured with the same.
        reference.forward = MethodType(self.model.forward.__func__, reference)
        self.ref_model, self.beta = reference, around.kl_coef
        self.add_callback(_Listener(self))
        hooks = [self.model.register_forward_hook(self._see_logits)]
        if takes_position_ids(self.model):
            hooks += [
                model.register_forward_pre_hook(_count_positions, with_kwargs=True)
                for model in (self.model, reference)
            ]
        try:
            self.run()
        finally:
            for hook in hooks:
                hook.remove()

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One forward and backward pass; ends the training where the loss is no number."""
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.around.log.see_finite(loss.item(), "RLOO loss")
        return loss

    def save(self) -> bool:
        """Write a checkpoint of the last update, and the log; False where it is there already."""
        around, began = self.around, time.monotonic()
        if not super().save():
            return False
        step, seconds = len(around.log.rows), around.log.seconds
        write_rows(around.workdir / RL_FILE, around.log.rows)
        epoch = step * around.epochs_per_step
        around.clock.saved(step, epoch, seconds, time.monotonic() - began)
        return True

    # TRL's hooks, by the names they have had since its version 1.

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        # TRL asks the outermost module whether this is training, and dropout the others.
        for module in self.model.children():
            module.eval()
        prepared: dict[str, Any] = super()._prepare_inputs(generation_batch)
        return prepared

    def _tokenize_prompts(
        self, prompts: Sequence[Sequence[int]]
    ) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(prompt) for prompt in prompts], None, {}

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        measured = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        if model is self.around.reference:
            self._reference_br = measured[0]
        return measured

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        prompt_bp, seen_bp = output["prompt_ids"], output["prompt_mask"].bool()
        for ids, seen, row in zip(prompt_bp, seen_bp, inputs, strict=True):
            if ids[seen].tolist() != row["prompt"]:
                raise RuntimeError(
                    "this version of TRL gives the policy other ids than the prompt's"
                )
        reply_br, mask_br = output["completion_ids"], output["completion_mask"]
        if self.beta == 0:  # Measured all the same; TRL would not.
            with torch.no_grad():
                self._get_per_token_logps_and_entropies(
                    self.around.reference,
                    torch.cat([prompt_bp, reply_br], 1),
                    torch.cat([output["prompt_mask"], mask_br], 1),
                    reply_br.shape[1],
                    self.around.batch_size,
                )
        kl_b = output["old_logps"] - (self._reference_br * mask_br).sum(1)
        self.around.log.sampled(kl_b, mask_br.sum(1))
        return output

    def _see_logits(self, module: nn.Module, args: Any, output: Any) -> None:
        """End the training where there is nothing to draw a token from."""
        logits = getattr(output, "logits", None)
        if logits is not None:
            self.around.log.see_finite(
                float(logits[:, -1].float().logsumexp(-1).sum()),
                "policy's next-token distribution",
            )


class _Listener(TrainerCallback):
    """Tells the log of an update's beginning, steps and end; says when to save and when to stop."""

    def __init__(self, trainer: ResumableRlooTrainer) -> None:
        self.trainer = trainer
        self.around = trainer.around

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.trainer.expect_restored("weights", "optimizer")
        if state.global_step >= state.max_steps:
            raise NothingLeftError

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self._is_between_updates(state):
            self.around.log.begin_update()

    def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if "loss" not in rest["logs"]:
            return  # The Trainer's closing summary is no step.
        around = self.around
        self.trainer.expect_restored("random")
        around.log.optimised(rest["logs"])
        if not self._is_between_updates(state):
            return
        around.log.end_update()
        done = len(around.log.rows)
        if done < around.steps and around.should_stop():
            self.trainer.stopping = True
        epoch = done * around.epochs_per_step
        due = around.clock.is_due(done, epoch, around.log.seconds)
        control.should_save = due or self.trainer.stopping or done == around.steps

    def _is_between_updates(self, state: Any) -> bool:
        steps: int = state.max_steps // self.around.steps
        return int(state.global_step) % steps == 0


def _count_positions(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Have positions begin after the padding on the left, where TRL leaves that to the model.

    A model with learnt positions would give other log-probabilities than those it sampled from.
    """
    if kwargs.get("position_ids") is None:
        positions_bt = position_ids(kwargs["attention_mask"])[:, -kwargs["input_ids"].shape[1] :]
        kwargs = {**kwargs, "position_ids": positions_bt}
    return args, kwargs
