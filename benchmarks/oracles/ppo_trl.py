"""One batch of replies through TRL's PPOTrainer and through `trainers/ppo.py`: the same update?

TRL's trainer runs as it is, on given replies: only its sampling and its shuffling are replaced. TRL
1.12.0 is the last with a PPOTrainer, so this needs an environment of its own. From the repository:

    python -m venv /tmp/trl && /tmp/trl/bin/pip install torch==2.13.0 trl==1.12.0 pydantic
    PYTHONPATH=. /tmp/trl/bin/python benchmarks/oracles/ppo_trl.py

Replies have one length. In shorter ones TRL puts the score on the padding after the last token
(and counts a value there); here it stands on the last token, as in Ziegler et al. 2019.
"""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import numpy as np
import torch
import trl.experimental.ppo.ppo_trainer as theirs
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from trainers import ppo

B, P, R, V = 8, 6, 10, 60
PAD = V - 1
# Not Adam: it makes steps of full size of gradients that are nothing but rounding.
LEARNING_RATE, KL_COEF, EPOCHS, MINI_BATCHES = 3e-3, 0.2, 4, 2


class Separate(torch.nn.Module):
    """TRL's arrangement: a value model of its own beside the policy."""

    def __init__(self, policy: Any, value: Any) -> None:
        super().__init__()
        self.policy, self.value = policy, value

    def forward(self, ids_bt: torch.Tensor, attention_bt: torch.Tensor) -> tuple[Any, Any]:
        inputs = {
            "input_ids": ids_bt,
            "attention_mask": attention_bt,
            "position_ids": ppo.position_ids(attention_bt),
        }
        hidden = self.value.transformer(**inputs).last_hidden_state
        return self.policy(**inputs).logits, self.value.score(hidden)[..., 0]


def main() -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=V,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=PAD,
    )
    config.num_labels = 1
    policy = GPT2LMHeadModel(config)
    reference = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    value, reward = GPT2ForSequenceClassification(config), GPT2ForSequenceClassification(config)
    with torch.no_grad():
        value.score.weight.normal_()
        reward.score.weight.normal_()
    prompts = torch.randint(2, PAD, (B, P))
    for row in range(B):
        prompts[row, : row % 4] = PAD
    ids = torch.cat([prompts, torch.randint(2, PAD, (B, R))], 1)
    ours = Separate(copy.deepcopy(policy), copy.deepcopy(value))
    start = torch.nn.utils.parameters_to_vector(ours.parameters()).detach().clone()

    np.random.permutation = lambda count: np.arange(count)
    torch.randperm = lambda count, **_: torch.arange(count)  # type: ignore[assignment]
    their_numbers = run_theirs(policy, reference, value, reward, prompts, ids)
    our_numbers = run_ours(ours, reference, reward, ids)

    print(f"{'':22}{'TRL 1.12.0':>16}{'ours':>16}{'difference':>14}")
    for name, number in our_numbers.items():
        other = their_numbers[name]
        print(f"{name:22}{other:16.9f}{number:16.9f}{abs(other - number):14.2e}")
    end = torch.nn.utils.parameters_to_vector(ours.parameters()).detach()
    their_end = torch.nn.utils.parameters_to_vector(Separate(policy, value).parameters()).detach()
    apart = float((end - their_end).abs().max())
    moved = float((end - start).abs().max())
    print(f"weights after {EPOCHS * MINI_BATCHES} optimiser steps: moved by up to {moved:.2e},")
    print(f"apart by up to {apart:.2e}")
    worst = max(abs(their_numbers[name] - number) for name, number in our_numbers.items())
    if worst > 1e-5 or apart > 1e-5:
        raise SystemExit("not the same update")


def run_theirs(
    policy: Any, reference: Any, value: Any, reward: Any, prompts: torch.Tensor, ids: torch.Tensor
) -> dict[str, float]:
    words = {f"w{i}": i for i in range(V)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0")),
        pad_token=f"w{PAD}",
        eos_token="w1",
        padding_side="left",
    )

    def given(model: Any, queries: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        # Their loader shuffles the prompts: each gets its own reply.
        rows = [int((prompts == query).all(1).nonzero()[0, 0]) for query in queries]
        order.extend(rows)
        chosen = ids[rows]
        return chosen, theirs.forward(model, chosen, PAD).logits[:, P - 1 : -1]

    order: list[int] = []
    theirs.batch_generation = given
    with tempfile.TemporaryDirectory() as folder:
        args = theirs.PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=B,
            gradient_accumulation_steps=1,
            num_mini_batches=MINI_BATCHES,
            num_ppo_epochs=EPOCHS,
            total_episodes=B,
            response_length=R,
            local_rollout_forward_batch_size=B,
            kl_coef=KL_COEF,
            kl_estimator="k1",
            missing_eos_penalty=None,
            temperature=1.0,
            num_sample_generations=0,
            report_to="none",
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            disable_tqdm=True,
        )
        weights = [*policy.parameters(), *value.parameters()]
        optimizer = torch.optim.SGD(weights, LEARNING_RATE, momentum=0.9)
        trainer = theirs.PPOTrainer(
            args=args,
            processing_class=tokenizer,
            model=policy,
            ref_model=reference,
            reward_model=reward,
            value_model=value,
            train_dataset=Dataset.from_list([{"input_ids": row.tolist()} for row in prompts]),
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
            data_collator=lambda rows: {
                "input_ids": torch.tensor([row["input_ids"] for row in rows])
            },
        )
        logged: dict[str, float] = {}
        trainer.log = lambda metrics, *_: logged.update(metrics)
        trainer.train()
    ids.copy_(ids[order].clone())  # The mini-batches are then the same.
    names = {
        "reward": "objective/scores",
        "kl": "objective/kl",
        "entropy": "policy/entropy_avg",
        "clip_fraction": "policy/clipfrac_avg",
        "approximate_kl": "policy/approxkl_avg",
        "policy_loss": "loss/policy_avg",
        "value_loss": "loss/value_avg",
    }
    return {ours: logged[name] for ours, name in names.items()}


def run_ours(model: Separate, reference: Any, reward: Any, ids: torch.Tensor) -> dict[str, float]:
    attention = (ids != PAD).long()
    inputs = ids.masked_fill(ids == PAD, 0)
    with torch.no_grad():
        logits, values = ppo.measure(model, inputs, attention, R)
        reference_logits, _ = ppo.measure(Separate(reference, model.value), inputs, attention, R)
        _, all_scores = Separate(reference, reward)(inputs, attention)
    rollout = ppo.Rollout(
        input_ids_bt=inputs,
        attention_bt=attention,
        mask_br=torch.ones(B, R),
        log_probs_br=ppo.token_log_probs(logits, ids[:, P:]),
        reference_br=ppo.token_log_probs(reference_logits, ids[:, P:]),
        values_br=values,
        scores_b=all_scores[:, -1],
    )
    settings = ppo.PpoSettings(
        ppo_epochs=EPOCHS, mini_batch_size=B // MINI_BATCHES, max_grad_norm=1e9
    )
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=0.9)
    done = ppo.update(model, optimizer, rollout, KL_COEF, settings, torch.Generator(), 1)
    names = ("reward", "kl", "entropy", "clip_fraction", "approximate_kl")
    return {name: getattr(done, name) for name in (*names, "policy_loss", "value_loss")}


if __name__ == "__main__":
    main()
