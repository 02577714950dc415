"""The loop around PPO: sample replies, score them, update; guarded, logged, and resumable.

What is random is drawn anew from the seed and the step, so that a loop that is continued goes on with
the bits that an undisturbed one would have (on CPU).
"""

from __future__ import annotations

import copy
import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from search_spaces.atomic import write_atomically
from trainers.errors import DivergedError, StoppedError
from trainers.optimizer_state import restore_loop, save_loop
from trainers.ppo import (
    ActorCritic,
    PpoSettings,
    PpoStatistics,
    Rollout,
    adapt_kl_coef,
    measure,
    position_ids,
    takes_position_ids,
    token_log_probs,
    update,
)
from trainers.progress import ShouldStop, never
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
    save_every: int = 10
    """Updates between checkpoints."""


@dataclass(frozen=True)
class PpoRow:
    """One line of `rl.csv`: an update's statistics."""

    step: int
    statistics: PpoStatistics
    distinct: float
    """Different replies per reply."""


@dataclass(frozen=True)
class PpoCourse:
    """What a loop came to."""

    rows: tuple[PpoRow, ...]
    warnings: tuple[str, ...]
    """What the guards said, each once."""
    notes: tuple[str, ...] = ()
    """Checkpoints that were passed over, and why."""


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
    should_stop: ShouldStop = never,
) -> PpoCourse:
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
        should_stop: asked before every update.

    Raises:
        DivergedError: a score, a loss or a gradient became NaN or infinite.
        StoppedError: `should_stop` said so; a checkpoint is in place.
        OSError: the disk is full; the last whole checkpoint is kept.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    discard_leftovers(workdir)
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    torch.manual_seed(loop.seed)  # For the value head.
    # Without dropout: the ratio of a policy to itself must be 1.
    model = ActorCritic(policy, copy.deepcopy(policy) if settings.own_value_model else None).eval()
    weights = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(weights.values(), loop.learning_rate, weight_decay=0.0)
    state, notes = restore_loop(workdir, identity, weights, optimizer)
    step, kl_coef, rows = 0, settings.kl_coef, []
    if state is not None:
        step, kl_coef = int(state["step"]), float(state["kl_coef"])
        rows = [_row_from_json(row) for row in state["rows"]]
    saved = step

    def save() -> None:
        nonlocal saved
        if step > saved:
            content = {"kl_coef": kl_coef, "rows": [asdict(row) for row in rows]}
            save_loop(workdir, step, identity, weights, optimizer, content)
            write_rows(workdir / "rl.csv", rows)
            saved = step

    while step < loop.steps:
        if should_stop():
            save()
            raise StoppedError(f"PPO was asked to stop at step {step}")
        chosen = _choose(len(prompts), loop, step)
        generator = torch.Generator().manual_seed(loop.seed * 1_000_003 + step)
        rollout, replies = roll_out(
            model,
            reference,
            tokenizer,
            [prompts[number] for number in chosen],
            partial(score, chosen),
            settings,
            loop.max_new_tokens,
            generator,
        )
        done = update(model, optimizer, rollout, kl_coef, settings, generator, step + 1)
        step += 1
        kl_coef = adapt_kl_coef(kl_coef, done.kl, settings, len(replies))
        rows.append(PpoRow(step, done, _distinct(replies)))
        if step % loop.save_every == 0:
            save()
    save()
    write_rows(workdir / "rl.csv", rows)
    return PpoCourse(tuple(rows), guard(rows, settings), notes)


def roll_out(
    model: ActorCritic,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    score: Callable[[Sequence[str]], Sequence[float]],
    settings: PpoSettings,
    max_new_tokens: int,
    generator: torch.Generator,
) -> tuple[Rollout, list[str]]:
    """Sampled replies with all that an update needs to know of them, and their texts.

    Args:
        model: policy and values.
        reference: the frozen policy.
        tokenizer: the policy's.
        prompts: B prompts' token ids.
        score: the rewards of the B replies.
        settings: the temperature is used.
        max_new_tokens: R at most.
        generator: of the sampling; on the CPU.

    Raises:
        DivergedError: the policy's logits are no numbers.
    """
    ids_bt, attention_bt, mask_br = sample_replies(
        model.policy,
        prompts,
        max_new_tokens,
        eos_token_id=int(tokenizer.eos_token_id),
        temperature=settings.temperature,
        generator=generator,
    )
    width = mask_br.shape[1]
    ids_br = ids_bt[:, -width:]
    with torch.no_grad():
        logits_brv, values_br = measure(model, ids_bt, attention_bt, width)
        log_probs_br = token_log_probs(logits_brv, ids_br, settings.temperature)
        positions = {"position_ids": position_ids(attention_bt)} if model.takes_positions else {}
        reference_btv = reference(
            input_ids=ids_bt, attention_mask=attention_bt, use_cache=False, **positions
        ).logits
        reference_br = token_log_probs(
            reference_btv[:, -width - 1 : -1], ids_br, settings.temperature
        )
    replies = [
        str(tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)).strip()
        for ids, mask in zip(ids_br, mask_br, strict=True)
    ]
    scores = list(score(replies))
    rollout = Rollout(
        input_ids_bt=ids_bt,
        attention_bt=attention_bt,
        mask_br=mask_br,
        log_probs_br=log_probs_br,
        reference_br=reference_br,
        values_br=values_br,
        scores_b=torch.tensor(scores, dtype=torch.float32, device=ids_bt.device),
    )
    return rollout, replies


@torch.no_grad()
def sample_replies(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    eos_token_id: int,
    temperature: float,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Replies drawn from the model's own distribution, nothing cut from it.

    Args:
        model: causal language model in evaluation mode.
        prompts: B prompts' token ids, at least one each.
        max_new_tokens: R at most; less where all replies end before.
        eos_token_id: ends a reply, and counts in it.
        temperature: divides the logits.
        generator: on the CPU, so that replies are the same wherever the model is.

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
    ids_bt, seen_bt = ids_bt.to(device), seen_bt.to(device)
    takes_positions = takes_position_ids(model)
    open_b = torch.ones(len(prompts), dtype=torch.long, device=device)
    masks, cache, step_ids = [], None, ids_bt
    for _ in range(max_new_tokens):
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
        chances_bv = (output.logits[:, -1].float() / temperature).softmax(-1).cpu()
        if not torch.isfinite(chances_bv).all():
            raise DivergedError(0, math.nan, "policy's next-token distribution")
        drawn_b = torch.multinomial(chances_bv, 1, generator=generator)[:, 0].to(device)
        drawn_b = torch.where(open_b.bool(), drawn_b, eos_token_id)
        masks.append(open_b)
        ids_bt = torch.cat([ids_bt, drawn_b[:, None]], 1)
        seen_bt = torch.cat([seen_bt, open_b[:, None]], 1)
        open_b = open_b * (drawn_b != eos_token_id)
        step_ids = drawn_b[:, None]
        if not open_b.any():
            break
    return ids_bt, seen_bt, torch.stack(masks, 1)


def guard(rows: Sequence[PpoRow], settings: PpoSettings) -> tuple[str, ...]:
    """What is suspicious about a loop; empty where nothing is.

    Args:
        rows: all updates so far.
        settings: the KL target says how much KL is too much.
    """
    found = []
    if negative := [row for row in rows if row.statistics.kl < _NEGATIVE_KL]:
        first = negative[0]
        found.append(
            f"negative KL: {first.statistics.kl:.2f} nats per reply at step {first.step}; replies "
            "are not drawn from the policy that is trained, or it has forgotten the reference"
        )
    if len(rows) >= 2 * _WINDOW:
        early, late = rows[:_WINDOW], rows[-_WINDOW:]
        rise = _mean(late, "reward") - _mean(early, "reward")
        kl, bound = _mean(late, "kl"), _KL_BOUND * (settings.kl_target or 6.0)
        distinct = sum(row.distinct for row in late) / _WINDOW
        distinct_before = sum(row.distinct for row in early) / _WINDOW
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


def write_rows(file: Path, rows: Sequence[PpoRow]) -> None:
    """Write the log of a loop, one line an update.

    Args:
        file: `rl.csv`.
        rows: in order.
    """
    text = io.StringIO(newline="")
    names = ["step", *(field.name for field in fields(PpoStatistics)), "distinct"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({"step": row.step, **asdict(row.statistics), "distinct": row.distinct})
    write_atomically(file, text.getvalue())


def _choose(prompts: int, loop: LoopSettings, step: int) -> list[int]:
    """Numbers of an update's prompts: pass after pass over all, each pass in an order of its own."""
    chosen = []
    for number in range(step * loop.batch_size, (step + 1) * loop.batch_size):
        epoch, place = divmod(number, prompts)
        generator = torch.Generator().manual_seed(loop.seed * 1_000_003 + epoch)
        order = torch.randperm(prompts, generator=generator)
        chosen.append(int(order[place]))
    return chosen


def _distinct(replies: Sequence[str]) -> float:
    return len(set(replies)) / len(replies)


def _mean(rows: Sequence[PpoRow], name: str) -> float:
    return sum(float(getattr(row.statistics, name)) for row in rows) / len(rows)


def _row_from_json(row: dict[str, Any]) -> PpoRow:
    return PpoRow(row["step"], PpoStatistics(**row["statistics"]), row["distinct"])
