"""Proximal policy optimisation of a language model: its quantities, its losses, one update.

Shapes: B replies, P prompt positions (padded left), R reply positions (padded right), T = P + R,
V vocabulary, H width. A mask is 1 where a reply has a token, its end-of-text token included.

Sources: Schulman et al. 2017 (PPO, 1707.06347), Schulman et al. 2016 (GAE, 1506.02438), Ziegler et
al. 2019 (KL penalty and its control, 1909.08593).
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from trainers.errors import DivergedError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PpoSettings:
    """What an update depends on; the defaults are Ziegler's and Schulman's."""

    kl_coef: float = 0.2
    """Weight of the KL penalty, at the beginning where it is adapted."""
    kl_target: float | None = 6.0
    """KL per reply, in nats, that the weight is adapted towards; absent: the weight is fixed."""
    kl_horizon: int = 10_000
    """Replies over which the weight adapts."""
    gamma: float = 1.0
    """Discount a token."""
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    """How far a token's probability ratio may move before its gradient ends."""
    value_clip_range: float = 0.2
    value_coef: float = 0.1
    """Weight of the value loss."""
    own_value_model: bool = True
    """The values have a backbone of their own, which begins as the policy; else the policy's."""
    whiten_rewards: bool = False
    ppo_epochs: int = 4
    """Passes over a batch of replies."""
    mini_batch_size: int = 4
    """Replies per optimiser step."""
    temperature: float = 1.0
    """Of the replies that are sampled, and so of the policy that is trained."""
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class Rollout:
    """Replies of the policy, and what was measured before it is changed by them."""

    input_ids_bt: torch.Tensor
    """[B, T] prompts and replies."""
    attention_bt: torch.Tensor
    """[B, T] 1 where there is a token."""
    mask_br: torch.Tensor
    """[B, R] 1 where the reply has a token; no gaps."""
    log_probs_br: torch.Tensor
    """[B, R] of the reply's tokens under the policy that wrote them."""
    reference_br: torch.Tensor
    """[B, R] of the reply's tokens under the frozen reference."""
    values_br: torch.Tensor
    """[B, R] expected return before each token."""
    scores_b: torch.Tensor
    """[B] the reward model's word on each whole reply."""


@dataclass(frozen=True)
class PpoStatistics:
    """What one update came to; means over replies, or over their tokens."""

    reward: float
    """Mean score per reply, without the KL penalty."""
    kl: float
    """KL from the reference, in nats per reply: the sum of log-ratios (k1), which can be negative."""
    kl_coef: float
    """As it was in this update."""
    entropy: float
    """Of the policy's next-token distribution, in nats per token."""
    clip_fraction: float
    """Share of tokens whose ratio was clipped."""
    approximate_kl: float
    """From the policy before the update, in nats per token: half the mean squared log-ratio."""
    policy_loss: float
    value_loss: float
    explained_variance: float
    """Share of the returns' variance that the values explain; 1 is perfect, 0 a constant's."""
    tokens: float
    """Mean length of the replies."""


class ActorCritic(nn.Module):
    """A causal language model, and a value head on last hidden states.

    Args:
        policy: the language model.
        value_backbone: the language model whose hidden states the value head reads. Absent: the
            policy's own, which the value loss then changes too, whatever the KL penalty says.
    """

    def __init__(
        self, policy: PreTrainedModel, value_backbone: PreTrainedModel | None = None
    ) -> None:
        super().__init__()
        self.policy = policy
        self.value_backbone = None if value_backbone is None else value_backbone.base_model
        embedding: nn.Module = policy.get_input_embeddings()
        width = int(policy.config.hidden_size)
        weight: torch.Tensor = next(embedding.parameters())
        self.value_head = nn.Linear(width, 1, device=weight.device)
        nn.init.normal_(self.value_head.weight, std=1 / math.sqrt(width + 1))  # Ziegler 2019.
        nn.init.zeros_(self.value_head.bias)
        self.takes_positions = takes_position_ids(policy)

    def forward(
        self, input_ids_bt: torch.Tensor, attention_bt: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Next-token logits [B, T, V] and values [B, T].

        Args:
            input_ids_bt: [B, T] token ids.
            attention_bt: [B, T] 1 where there is a token.
        """
        text = {"input_ids": input_ids_bt, "attention_mask": attention_bt, "use_cache": False}
        if self.takes_positions:
            text["position_ids"] = position_ids(attention_bt)
        shared = self.value_backbone is None
        output = self.policy(**text, output_hidden_states=shared)
        hidden_bth: torch.Tensor = (
            output.hidden_states[-1]
            if self.value_backbone is None
            else self.value_backbone(**text).last_hidden_state
        )
        return output.logits, self.value_head(hidden_bth.float())[..., 0]


def takes_position_ids(model: PreTrainedModel) -> bool:
    """Whether a model must be told that padding on the left does not count.

    Args:
        model: a causal language model; ALiBi families count by the attention mask themselves.
    """
    return "position_ids" in inspect.signature(model.forward).parameters


def position_ids(attention_bt: torch.Tensor) -> torch.Tensor:
    """[B, T] positions that padding on the left does not count in.

    Args:
        attention_bt: [B, T] 1 where there is a token.
    """
    return (attention_bt.cumsum(1) - 1).clamp(min=0)


def token_log_probs(
    logits_brv: torch.Tensor, ids_br: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """[B, R] log-probability of each token.

    Args:
        logits_brv: [B, R, V] at the position before each token.
        ids_br: [B, R] the tokens.
        temperature: that they were sampled at.
    """
    log_probs_brv = (logits_brv.float() / temperature).log_softmax(-1)
    return log_probs_brv.gather(-1, ids_br[..., None])[..., 0]


def entropy(logits_brv: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """[B, R] entropy of each next-token distribution, in nats.

    Args:
        logits_brv: [B, R, V].
        temperature: as the policy's.
    """
    log_probs_brv = (logits_brv.float() / temperature).log_softmax(-1)
    return -(log_probs_brv.exp() * log_probs_brv).sum(-1)


def kl_penalty(log_probs_br: torch.Tensor, reference_br: torch.Tensor) -> torch.Tensor:
    """[B, R] log-ratio of each token: an unbiased estimate (k1) of the KL, negative at times.

    Args:
        log_probs_br: [B, R] under the policy.
        reference_br: [B, R] under the reference.

    Source: Ziegler et al. 2019, equation 2.
    """
    return log_probs_br - reference_br


def token_rewards(
    scores_b: torch.Tensor, kl_br: torch.Tensor, mask_br: torch.Tensor, kl_coef: float
) -> torch.Tensor:
    """[B, R] reward of each token: its KL penalty, and the score at the reply's last token.

    Args:
        scores_b: [B] one per reply.
        kl_br: [B, R] as `kl_penalty` gives it.
        mask_br: [B, R] the reply's tokens; at least one each.
        kl_coef: weight of the penalty.

    Source: Ziegler et al. 2019, equation 2.
    """
    rewards_br = -kl_coef * kl_br * mask_br
    last_b = mask_br.sum(1).long() - 1
    return rewards_br.scatter_add(1, last_b[:, None], scores_b[:, None].to(rewards_br.dtype))


def masked_mean(values_br: torch.Tensor, mask_br: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens of all replies together.

    Args:
        values_br: [B, R].
        mask_br: [B, R].
    """
    return (values_br * mask_br).sum() / mask_br.sum()


def whiten(
    values_br: torch.Tensor, mask_br: torch.Tensor, *, shift_mean: bool = True
) -> torch.Tensor:
    """[B, R] values of unit variance and, where shifted, zero mean over the tokens.

    Args:
        values_br: [B, R].
        mask_br: [B, R].
        shift_mean: rewards keep their mean, because its sign means something.
    """
    mean = masked_mean(values_br, mask_br)
    # The unbiased variance; a single token has none.
    spread = ((values_br - mean) ** 2 * mask_br).sum() / (mask_br.sum() - 1).clamp(min=1)
    whitened_br = (values_br - mean) * torch.rsqrt(spread + 1e-8)
    return (whitened_br if shift_mean else whitened_br + mean) * mask_br


def compute_advantages(
    rewards_br: torch.Tensor,
    values_br: torch.Tensor,
    mask_br: torch.Tensor,
    gamma: float,
    gae_lambda: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantages [B, R], not yet whitened, and returns [B, R]; 0 beyond the replies.

    Args:
        rewards_br: [B, R] per token.
        values_br: [B, R] before each token.
        mask_br: [B, R]; after a reply's last token nothing is to be had.
        gamma: discount a token.
        gae_lambda: 0 trusts the values, 1 the rewards.

    Source: Schulman et al. 2016, equations 11 and 12 (the latter read backwards).
    """
    values_br, rewards_br = values_br * mask_br, rewards_br * mask_br
    advantages_br = torch.zeros_like(values_br)
    later_b = torch.zeros_like(values_br[:, 0])
    next_value_b = torch.zeros_like(later_b)
    for place in reversed(range(values_br.shape[1])):
        delta_b = rewards_br[:, place] + gamma * next_value_b - values_br[:, place]
        later_b = (delta_b + gamma * gae_lambda * later_b) * mask_br[:, place]
        advantages_br[:, place] = later_b
        next_value_b = values_br[:, place]
    return advantages_br, advantages_br + values_br


def policy_loss(
    new_br: torch.Tensor,
    old_br: torch.Tensor,
    advantages_br: torch.Tensor,
    mask_br: torch.Tensor,
    clip_range: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The clipped surrogate as a loss, a mean over tokens, and the share of tokens it clipped.

    Args:
        new_br: [B, R] log-probabilities under the policy as it is.
        old_br: [B, R] under the policy that wrote the replies.
        advantages_br: [B, R].
        mask_br: [B, R].
        clip_range: epsilon.

    Source: Schulman et al. 2017, equation 7.
    """
    ratio_br = ((new_br - old_br) * mask_br).exp()
    plain_br = -advantages_br * ratio_br
    clipped_br = -advantages_br * ratio_br.clamp(1 - clip_range, 1 + clip_range)
    loss = masked_mean(torch.maximum(plain_br, clipped_br), mask_br)
    return loss, masked_mean((clipped_br > plain_br).float(), mask_br).detach()


def value_loss(
    new_br: torch.Tensor,
    old_br: torch.Tensor,
    returns_br: torch.Tensor,
    mask_br: torch.Tensor,
    clip_range: float,
) -> torch.Tensor:
    """Half the squared error of the values, the worse of moved and clipped, a mean over tokens.

    Args:
        new_br: [B, R] values as they are.
        old_br: [B, R] values before the update.
        returns_br: [B, R].
        mask_br: [B, R].
        clip_range: how far a value may move from the old one.

    Source: the value term of Schulman et al. 2017, equation 9, clipped as in the authors' code.
    """
    clipped_br = torch.clamp(new_br, old_br - clip_range, old_br + clip_range)
    worse_br = torch.maximum((new_br - returns_br) ** 2, (clipped_br - returns_br) ** 2)
    return 0.5 * masked_mean(worse_br, mask_br)


def explained_variance(
    values_br: torch.Tensor, returns_br: torch.Tensor, mask_br: torch.Tensor
) -> float:
    """1 - Var(returns - values) / Var(returns) over the tokens; 0 where the returns do not vary.

    Args:
        values_br: [B, R].
        returns_br: [B, R].
        mask_br: [B, R].
    """
    counted = mask_br.bool()
    returns, values = returns_br[counted], values_br[counted]
    variance = returns.var(correction=0)
    if float(variance) == 0:
        return 0.0
    return float(1 - (returns - values).var(correction=0) / variance)


def adapt_kl_coef(kl_coef: float, kl: float, settings: PpoSettings, replies: int) -> float:
    """The next update's weight of the KL penalty.

    Args:
        kl_coef: this update's.
        kl: measured, in nats per reply.
        settings: target and horizon; without a target the weight stays.
        replies: in this update.

    Source: Ziegler et al. 2019, section 2.2.
    """
    if settings.kl_target is None:
        return kl_coef
    error = min(max(kl / settings.kl_target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * replies / settings.kl_horizon)


def measure(
    model: nn.Module, input_ids_bt: torch.Tensor, attention_bt: torch.Tensor, replies: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, R, V] and values [B, R] at the positions from which the reply's tokens follow.

    Args:
        model: gives logits [B, T, V] and values [B, T], as `ActorCritic` does.
        input_ids_bt: [B, T] prompts and replies.
        attention_bt: [B, T].
        replies: R, the reply's positions.
    """
    logits_btv, values_bt = model(input_ids_bt, attention_bt)
    return logits_btv[:, -replies - 1 : -1], values_bt[:, -replies - 1 : -1]


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    kl_coef: float,
    settings: PpoSettings,
    generator: torch.Generator,
    step: int,
    at_once: int | None = None,
) -> PpoStatistics:
    """Change the policy and the values by one batch of replies.

    Args:
        model: gives logits and values, as `ActorCritic` does; without dropout, so that ratios
            begin at 1.
        optimizer: over its parameters.
        rollout: the replies.
        kl_coef: weight of the KL penalty.
        settings: the rest.
        generator: draws the mini-batches; on the CPU.
        step: for the message of an error.
        at_once: replies per forward pass; absent: a whole mini-batch. Gradients are the same.

    Raises:
        DivergedError: a score, a loss or a gradient became NaN or infinite; the step that it
            belongs to is not taken.
    """
    mask_br = rollout.mask_br.float()
    kl_br = kl_penalty(rollout.log_probs_br, rollout.reference_br) * mask_br
    _see_finite(rollout.scores_b.mean(), step, "reward")
    _see_finite(kl_br.sum(), step, "KL from the reference")
    rewards_br = token_rewards(rollout.scores_b, kl_br, mask_br, kl_coef)
    if settings.whiten_rewards:
        rewards_br = whiten(rewards_br, mask_br, shift_mean=False)
    advantages_br, returns_br = compute_advantages(
        rewards_br, rollout.values_br, mask_br, settings.gamma, settings.gae_lambda
    )
    advantages_br = whiten(advantages_br, mask_br)
    seen: list[torch.Tensor] = []
    for _ in range(settings.ppo_epochs):
        order = torch.randperm(len(mask_br), generator=generator).to(mask_br.device)
        for rows in order.split(settings.mini_batch_size):
            optimizer.zero_grad()
            measured = torch.zeros(len(_MEASURED), device=mask_br.device)
            for part in rows.split(at_once or len(rows)):
                # Means are over the mini-batch's tokens, of which this is a part.
                share = mask_br[part].sum() / mask_br[rows].sum()
                loss, of_part = _losses(model, rollout, part, advantages_br, returns_br, settings)
                _see_finite(loss, step, "PPO loss")
                (loss * share).backward()
                measured += of_part * share
            norm = nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            _see_finite(norm, step, "PPO gradient norm")
            optimizer.step()
            seen.append(measured)
    means = dict(zip(_MEASURED, torch.stack(seen).mean(0).tolist(), strict=True))
    return PpoStatistics(
        reward=float(rollout.scores_b.mean()),
        kl=float(kl_br.sum(1).mean()),
        kl_coef=kl_coef,
        explained_variance=explained_variance(rollout.values_br, returns_br, mask_br),
        tokens=float(mask_br.sum(1).mean()),
        **means,
    )


_MEASURED = ("entropy", "clip_fraction", "approximate_kl", "policy_loss", "value_loss")


def _losses(
    model: nn.Module,
    rollout: Rollout,
    rows: torch.Tensor,
    advantages_br: torch.Tensor,
    returns_br: torch.Tensor,
    settings: PpoSettings,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss over some replies, and what is measured of it, as `_MEASURED` names it."""
    mask_br = rollout.mask_br[rows].float()
    width = mask_br.shape[1]
    logits_brv, values_br = measure(
        model, rollout.input_ids_bt[rows], rollout.attention_bt[rows], width
    )
    new_br = token_log_probs(
        logits_brv, rollout.input_ids_bt[rows][:, -width:], settings.temperature
    )
    old_br = rollout.log_probs_br[rows]
    of_policy, clipped = policy_loss(
        new_br, old_br, advantages_br[rows], mask_br, settings.clip_range
    )
    of_values = value_loss(
        values_br, rollout.values_br[rows], returns_br[rows], mask_br, settings.value_clip_range
    )
    with torch.no_grad():
        spread = masked_mean(entropy(logits_brv, settings.temperature), mask_br)
        moved = masked_mean(0.5 * (new_br - old_br) ** 2, mask_br)
    measured = torch.stack([spread, clipped, moved, of_policy.detach(), of_values.detach()])
    return of_policy + settings.value_coef * of_values, measured


def _see_finite(value: torch.Tensor, step: int, what: str) -> None:
    if not torch.isfinite(value):
        raise DivergedError(step, float(value), what)
