"""The loop around PPO: sample replies, score them, update; guarded, logged, and resumable.

What is random is drawn anew from the seed and the step, so that a loop that is continued goes on with
the bits that an undisturbed one would have (on CPU).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad

from trainers.checkpoints import CheckpointClock, CheckpointSettings
from trainers.errors import DivergedError, StoppedError, is_out_of_memory
from trainers.loss import free_memory
from trainers.micro_batch import (
    forget_micro_batch,
    remember_at_once,
    remembered_at_once,
    smaller_cut,
)
from trainers.optimizer_state import restore_loop, save_loop
from trainers.ppo import (
    ActorCritic,
    PpoSettings,
    Rollout,
    adapt_kl_coef,
    measure,
    position_ids,
    takes_position_ids,
    token_log_probs,
    update,
)
from trainers.progress import ShouldStop, never
from trainers.rl_course import RL_FILE, RlCourse, write_rows
from trainers.whole_folders import discard_leftovers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Score = Callable[[Sequence[int], Sequence[str]], Sequence[float]]
"""Rewards of B replies, as text, to B prompts, which are given by their number."""

_WINDOW = 5
"""Updates at the beginning and at the end that are compared by the guards."""
_NEGATIVE_KL = -1.0
"""Nats per reply below which the estimate is no longer noise: the sampling is not the policy's."""
_KL_BOUND = 4.0
"""Times the target above which a rising reward is not believed."""
_USUAL_KL = 6.0
"""Nats per reply that count as the target where there is none."""
_FEW_DISTINCT = 0.5


@dataclass(frozen=True)
class LoopSettings:
    """How long, how much at once, and how fast."""

    steps: int
    """Updates."""
    batch_size: int = 16
    """Replies per update."""
    max_new_tokens: int = 64
    learning_rate: float = 1.41e-5
    seed: int = 0


def train_ppo(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    score: Score,
    settings: PpoSettings,
    loop: LoopSettings,
    workdir: Path,
    identity: str,
    *,
    checkpoints: CheckpointSettings | None = None,
    should_stop: ShouldStop = never,
) -> RlCourse:
    """Train a policy in place towards the score, and not far from what it was.

    Args:
        policy: a causal language model; as it is now, a copy of it is the frozen reference.
        tokenizer: its tokenizer.
        prompts: token ids of what is replied to; at least one.
        score: the reward of whole replies.
        settings: of the updates.
        loop: of the loop.
        workdir: the loop's own folder, for `rl.csv` and checkpoints. The last checkpoint stays
            until the caller has saved the policy and removes it.
        identity: of all that the loop depends on: policy, prompts, score, settings.
        checkpoints: how often to save; a step is an update, an epoch a pass over the prompts.
        should_stop: asked before every update.

    Raises:
        DivergedError: a score, a loss or a gradient became NaN or infinite.
        StoppedError: `should_stop` said so; a checkpoint is in place.
        torch.OutOfMemoryError: one reply at a time does not fit.
        OSError: the disk is full; the last whole checkpoint is kept.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    discard_leftovers(workdir)
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    at_once = remembered_at_once(workdir, settings.mini_batch_size)
    while True:
        this = _Loop(
            policy,
            reference,
            tokenizer,
            prompts,
            score,
            settings,
            loop,
            workdir,
            identity,
            checkpoints or CheckpointSettings(),
            at_once,
        )
        try:
            course = this.run(should_stop)
            break
        except (RuntimeError, MemoryError) as error:
            if at_once == 1 or not is_out_of_memory(error):
                raise
        # Past the error: what its traceback held is free.
        at_once = smaller_cut(at_once)
        remember_at_once(workdir, at_once)
        policy.load_state_dict(reference.state_dict())
        del this
        free_memory()
    forget_micro_batch(workdir)
    return course


class _Loop:
    """One attempt at a loop, from its newest checkpoint on."""

    def __init__(
        self,
        policy: PreTrainedModel,
        reference: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Sequence[int]],
        score: Score,
        settings: PpoSettings,
        loop: LoopSettings,
        workdir: Path,
        identity: str,
        checkpoints: CheckpointSettings,
        at_once: int,
    ) -> None:
        self.reference, self.tokenizer = reference, tokenizer
        self.prompts, self.score, self.settings, self.loop = prompts, score, settings, loop
        self.workdir, self.identity, self.at_once = workdir, identity, at_once
        torch.manual_seed(loop.seed)  # For the value head.
        backbone = copy.deepcopy(policy) if settings.own_value_model else None
        # Without dropout: the ratio of a policy to itself must be 1.
        self.model = ActorCritic(policy, backbone).eval()
        self.weights = dict(self.model.named_parameters())
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), loop.learning_rate, weight_decay=0.0
        )
        state, self.notes = restore_loop(workdir, identity, self.weights, self.optimizer)
        state = state or {"step": 0, "kl_coef": settings.kl_coef, "rows": [], "seconds": 0.0}
        self.step, self.kl_coef = int(state["step"]), float(state["kl_coef"])
        self.rows: list[Mapping[str, float]] = list(state["rows"])
        self.seconds = float(state["seconds"])
        self.saved = self.step
        self.clock = CheckpointClock(
            checkpoints,
            3 * sum(p.numel() * p.element_size() for p in self.weights.values()),
            step=self.step,
            epoch=self._epoch(),
            seconds=self.seconds,
        )

    def run(self, should_stop: ShouldStop) -> RlCourse:
        """All updates that are left."""
        while self.step < self.loop.steps:
            if should_stop():
                self._save()
                raise StoppedError(f"PPO was asked to stop at step {self.step}")
            began = time.monotonic()
            self._update()
            self.seconds += time.monotonic() - began
            if self.clock.is_due(self.step, self._epoch(), self.seconds):
                self._save()
        self._save()
        write_rows(self.workdir / RL_FILE, self.rows)
        return RlCourse(
            rows=tuple(self.rows),
            warnings=guard(self.rows, self.settings.kl_target),
            notes=self.notes,
            seconds=self.seconds,
            at_once=self.at_once,
        )

    def _update(self) -> None:
        places = range(self.step * self.loop.batch_size, (self.step + 1) * self.loop.batch_size)
        chosen = choose_prompts(len(self.prompts), places, self.loop.seed)
        generator = torch.Generator().manual_seed(self.loop.seed * 1_000_003 + self.step)
        rollout, replies = roll_out(
            self.model,
            self.reference,
            self.tokenizer,
            [self.prompts[number] for number in chosen],
            partial(self.score, chosen),
            self.settings.temperature,
            self.loop.max_new_tokens,
            generator,
            self.at_once,
        )
        done = update(
            self.model,
            self.optimizer,
            rollout,
            self.kl_coef,
            self.settings,
            generator,
            self.step + 1,
            self.at_once,
        )
        self.step += 1
        self.kl_coef = adapt_kl_coef(self.kl_coef, done.kl, self.settings, len(replies))
        distinct = len(set(replies)) / len(replies)
        self.rows.append({"step": self.step, **asdict(done), "distinct": distinct})

    def _save(self) -> None:
        if self.step <= self.saved:
            return
        began = time.monotonic()
        state = {"kl_coef": self.kl_coef, "rows": self.rows, "seconds": self.seconds}
        save_loop(self.workdir, self.step, self.identity, self.weights, self.optimizer, state)
        write_rows(self.workdir / RL_FILE, self.rows)
        self.saved = self.step
        self.clock.saved(self.step, self._epoch(), self.seconds, time.monotonic() - began)

    def _epoch(self) -> float:
        return self.step * self.loop.batch_size / len(self.prompts)


def roll_out(
    model: ActorCritic,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    score: Callable[[Sequence[str]], Sequence[float]],
    temperature: float,
    max_new_tokens: int,
    generator: torch.Generator,
    at_once: int | None = None,
) -> tuple[Rollout, list[str]]:
    """Sampled replies with all that an update needs to know of them, and their texts.

    Args:
        model: policy and values.
        reference: the frozen policy.
        tokenizer: the policy's.
        prompts: B prompts' token ids.
        score: the rewards of the B replies.
        temperature: of the sampling.
        max_new_tokens: R at most.
        generator: of the sampling; on the CPU.
        at_once: replies per forward pass; absent: all.

    Raises:
        DivergedError: the policy's logits are no numbers.
    """
    ids_bt, attention_bt, mask_br = sample_replies(
        model.policy,
        prompts,
        max_new_tokens,
        eos_token_id=int(tokenizer.eos_token_id),
        temperature=temperature,
        generator=generator,
        at_once=at_once,
    )
    width = mask_br.shape[1]
    ids_br = ids_bt[:, -width:]
    parts = []
    with torch.no_grad():
        for rows in torch.arange(len(prompts), device=ids_bt.device).split(at_once or len(prompts)):
            ids, attention = ids_bt[rows], attention_bt[rows]
            logits_brv, values_br = measure(model, ids, attention, width)
            positions = {"position_ids": position_ids(attention)} if model.takes_positions else {}
            reference_btv = reference(
                input_ids=ids, attention_mask=attention, use_cache=False, **positions
            ).logits
            log_probs_br, reference_br = (
                token_log_probs(logits, ids_br[rows], temperature)
                for logits in (logits_brv, reference_btv[:, -width - 1 : -1])
            )
            parts.append((log_probs_br, reference_br, values_br))
    log_probs_br, reference_br, values_br = (torch.cat(part) for part in zip(*parts, strict=True))
    replies = [
        str(tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)).strip()
        for ids, mask in zip(ids_br, mask_br, strict=True)
    ]
    rollout = Rollout(
        input_ids_bt=ids_bt,
        attention_bt=attention_bt,
        mask_br=mask_br,
        log_probs_br=log_probs_br,
        reference_br=reference_br,
        values_br=values_br,
        scores_b=torch.tensor(list(score(replies)), dtype=torch.float32, device=ids_bt.device),
    )
    return rollout, replies


def sample_replies(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    eos_token_id: int,
    temperature: float,
    generator: torch.Generator,
    at_once: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Replies drawn from the model's own distribution, nothing cut from it.

    Args:
        model: causal language model in evaluation mode.
        prompts: B prompts' token ids, at least one each.
        max_new_tokens: R at most; less where all replies end before.
        eos_token_id: ends a reply, and counts in it.
        temperature: divides the logits.
        generator: on the CPU, so that replies are the same wherever the model is.
        at_once: replies that are written together; absent: all. They do not depend on it.

    Returns:
        Token ids [B, T], prompts padded left and replies right; 1 where there is a token [B, T];
        and the latter for the replies alone [B, R].

    Raises:
        DivergedError: the logits are no numbers.
    """
    device = next(model.parameters()).device
    longest = max(len(prompt) for prompt in prompts)
    ids_bt = torch.tensor([[eos_token_id] * (longest - len(p)) + list(p) for p in prompts])
    seen_bt = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    draws_br = torch.rand(len(prompts), max_new_tokens, generator=generator, dtype=torch.float64)
    written = [
        _write(
            model,
            ids_bt[rows].to(device),
            seen_bt[rows].to(device),
            draws,
            eos_token_id,
            temperature,
        )
        for rows, draws in zip(
            torch.arange(len(prompts)).split(at_once or len(prompts)),
            draws_br.split(at_once or len(prompts)),
            strict=True,
        )
    ]
    width = max(ids.shape[1] for ids, _ in written)
    ids_bt = torch.cat(
        [pad(ids, (0, width - ids.shape[1]), value=eos_token_id) for ids, _ in written]
    )
    seen_bt = torch.cat([pad(seen, (0, width - seen.shape[1])) for _, seen in written])
    return ids_bt, seen_bt, seen_bt[:, longest:]


@torch.no_grad()
def _write(
    model: PreTrainedModel,
    ids_bt: torch.Tensor,
    seen_bt: torch.Tensor,
    draws_br: torch.Tensor,
    eos_token_id: int,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts with replies after them, [B, T], and 1 where there is a token, [B, T]."""
    takes_positions = takes_position_ids(model)
    open_b = torch.ones(len(ids_bt), dtype=torch.long, device=ids_bt.device)
    cache, step_ids = None, ids_bt
    for draws_b in draws_br.T:
        positions: dict[str, Any] = {}
        if takes_positions:
            positions = {"position_ids": position_ids(seen_bt)[:, -step_ids.shape[1] :]}
        output = model(
            input_ids=step_ids,
            attention_mask=seen_bt,
            past_key_values=cache,
            use_cache=True,
            **positions,
        )
        cache = output.past_key_values
        chances_bv = (output.logits[:, -1].double() / temperature).softmax(-1).cpu()
        if not torch.isfinite(chances_bv).all():
            raise DivergedError(0, math.nan, "policy's next-token distribution")
        drawn_b = _draw(chances_bv, draws_b).to(ids_bt.device)
        drawn_b = torch.where(open_b.bool(), drawn_b, eos_token_id)
        ids_bt = torch.cat([ids_bt, drawn_b[:, None]], 1)
        seen_bt = torch.cat([seen_bt, open_b[:, None]], 1)
        open_b = open_b * (drawn_b != eos_token_id)
        step_ids = drawn_b[:, None]
        if not open_b.any():
            break
    return ids_bt, seen_bt


def _draw(chances_bv: torch.Tensor, draws_b: torch.Tensor) -> torch.Tensor:
    """[B] token ids: where each distribution's running sum first exceeds the draw."""
    sums_bv = chances_bv.cumsum(-1)
    return torch.searchsorted(sums_bv, draws_b[:, None] * sums_bv[:, -1:], right=True)[:, 0]


def guard(rows: Sequence[Mapping[str, float]], kl_target: float | None) -> tuple[str, ...]:
    """What is suspicious about a loop; empty where nothing is.

    Args:
        rows: all updates so far, each with `step`, `reward`, `kl`, `tokens` and `distinct`.
        kl_target: nats per reply; says how much KL is too much.
    """
    found = []
    if negative := [row for row in rows if row["kl"] < _NEGATIVE_KL]:
        first = negative[0]
        found.append(
            f"negative KL: {first['kl']:.2f} nats per reply at step {first['step']:.0f}; replies "
            "are not drawn from the policy that is trained, or it has forgotten the reference"
        )
    if len(rows) >= 2 * _WINDOW:
        early, late = rows[:_WINDOW], rows[-_WINDOW:]
        rise = _mean(late, "reward") - _mean(early, "reward")
        kl, bound = _mean(late, "kl"), _KL_BOUND * (kl_target or _USUAL_KL)
        distinct, distinct_before = _mean(late, "distinct"), _mean(early, "distinct")
        shrunk = _mean(late, "tokens") < 0.25 * _mean(early, "tokens")
        if rise > 0 and kl > bound:
            found.append(
                f"reward hacking? the reward rose by {rise:.3f} while the KL reached {kl:.1f} nats "
                f"per reply (more than {bound:.1f})"
            )
        if rise > 0 and distinct < _FEW_DISTINCT * distinct_before:
            found.append(
                f"reward hacking? the reward rose by {rise:.3f} while only {distinct:.0%} of the "
                f"replies differ ({distinct_before:.0%} at first)"
            )
        if rise > 0 and shrunk:
            found.append(
                f"reward hacking? the reward rose by {rise:.3f} while the replies shrank to "
                f"{_mean(late, 'tokens'):.1f} tokens from {_mean(early, 'tokens'):.1f}"
            )
    return tuple(found)


def choose_prompts(prompts: int, places: range, seed: int) -> list[int]:
    """Numbers of the prompts at some places of an endless row: pass after pass over all of them.

    Args:
        prompts: how many there are.
        places: counted from 0, in order.
        seed: of the order, which each pass has of its own.
    """
    orders: dict[int, list[int]] = {}
    for epoch in range(places.start // prompts, (places.stop - 1) // prompts + 1):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        orders[epoch] = torch.randperm(prompts, generator=generator).tolist()
    return [orders[place // prompts][place % prompts] for place in places]


def _mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)
