from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trainers.errors import DivergedError
from trainers.ppo import (
    PpoSettings,
    Rollout,
    adapt_kl_coef,
    compute_advantages,
    entropy,
    explained_variance,
    kl_penalty,
    measure,
    policy_loss,
    position_ids,
    token_log_probs,
    token_rewards,
    update,
    value_loss,
    whiten,
)

MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
"""Replies of three tokens and of two."""


def near(value: torch.Tensor | float, expected: list[list[float]] | float) -> None:
    torch.testing.assert_close(
        torch.as_tensor(value, dtype=torch.float64),
        torch.tensor(expected, dtype=torch.float64),
        rtol=0,
        atol=1e-6,
    )


def test_log_probs_and_entropy() -> None:
    logits = torch.tensor([[[0.0, math.log(3)], [math.log(4), 0.0]]])
    ids = torch.tensor([[1, 1]])
    near(token_log_probs(logits, ids), [[math.log(3 / 4), math.log(1 / 5)]])
    # At temperature 1/2 the odds are squared: 9 to 1, and 16 to 1.
    near(token_log_probs(logits, ids, 0.5), [[math.log(0.9), math.log(1 / 17)]])
    near(
        entropy(logits),
        [
            [
                -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)),
                -(0.8 * math.log(0.8) + 0.2 * math.log(0.2)),
            ]
        ],
    )


def test_rewards() -> None:
    """The penalty on each token, the score on the last one; nothing after it."""
    policy = torch.tensor([[-1.0, -2.0, -0.5], [-1.5, -0.25, -9.0]])
    reference = torch.tensor([[-1.5, -1.0, -0.5], [-2.0, -0.75, -1.0]])
    kl = kl_penalty(policy, reference)
    near(kl[:, :2], [[0.5, -1.0], [0.5, 0.5]])
    near(
        token_rewards(torch.tensor([0.6, -0.4]), kl, MASK, 0.2),
        [[-0.1, 0.2, 0.6], [-0.1, -0.5, 0.0]],
    )


def test_advantages() -> None:
    """By hand, with gamma 0.9 and lambda 0.5 (their product 0.45).

    First reply, backwards: delta = 1 - 0.3 = 0.7; then 0.1 + 0.9 x 0.3 - 0.2 = 0.17 and
    0.17 + 0.45 x 0.7 = 0.485; then 0 + 0.9 x 0.2 - 0.5 = -0.32 and -0.32 + 0.45 x 0.485 = -0.10175.
    Second: 2 - 0.4 = 1.6; then -0.1 + 0.9 x 0.4 - 0.6 = -0.34 and -0.34 + 0.45 x 1.6 = 0.38.
    """
    rewards = torch.tensor([[0.0, 0.1, 1.0], [-0.1, 2.0, 7.0]])
    values = torch.tensor([[0.5, 0.2, 0.3], [0.6, 0.4, 5.0]])
    advantages, returns = compute_advantages(rewards, values, MASK, 0.9, 0.5)
    near(advantages, [[-0.10175, 0.485, 0.7], [0.38, 1.6, 0.0]])
    near(returns, [[0.39825, 0.685, 1.0], [0.98, 2.0, 0.0]])


def test_advantages_at_the_ends_of_lambda() -> None:
    """0 gives the one-step error; 1 with gamma 1 what is still to come, less the value."""
    rewards = torch.tensor([[0.25, -0.5, 2.0]])
    values = torch.tensor([[0.1, 0.2, 0.3]])
    mask = torch.ones(1, 3)
    near(compute_advantages(rewards, values, mask, 1.0, 0.0)[0], [[0.35, -0.4, 1.7]])
    near(compute_advantages(rewards, values, mask, 1.0, 1.0)[1], [[1.75, 1.5, 2.0]])


def test_whitening() -> None:
    """1, 2, 3, 4 and 5 over the tokens: mean 3, unbiased variance 2.5."""
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 99.0]])
    unit = 1 / math.sqrt(2.5)
    near(whiten(values, MASK), [[-2 * unit, -unit, 0.0], [unit, 2 * unit, 0.0]])
    near(
        whiten(values, MASK, shift_mean=False),
        [[3 - 2 * unit, 3 - unit, 3.0], [3 + unit, 3 + 2 * unit, 0.0]],
    )


def test_policy_loss() -> None:
    """Ratios 1.5, 0.5, 1, 1.5 and 0.5, clipped to 1.2 and 0.8 where that is the worse.

    Losses: -1 x 1.2; -1 x 0.5 (0.8 would be better: not clipped); -1 x 1; +1 x 1.5 (1.2 would be
    better); +1 x 0.8. Clipped are the first and the last.
    """
    ratios = torch.tensor([[1.5, 0.5, 1.0], [1.5, 0.5, 3.0]])
    advantages = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    loss, clipped = policy_loss(ratios.log(), torch.zeros(2, 3), advantages, MASK, 0.2)
    near(loss, (-1.2 - 0.5 - 1.0 + 1.5 + 0.8) / 5)
    near(clipped, 2 / 5)


def test_clipping_ends_the_gradient() -> None:
    new = torch.tensor([[1.5, 1.1, 0.5]]).log().requires_grad_()
    loss, _ = policy_loss(new, torch.zeros(1, 3), torch.ones(1, 3), torch.ones(1, 3), 0.2)
    loss.backward()
    assert new.grad is not None
    near(new.grad, [[0.0, -1.1 / 3, -0.5 / 3]])


def test_value_loss() -> None:
    """New values 0.5, 0.1 and 1 clipped to within 0.2 of 0: 0.2, 0.1, 0.2; returns 1, 1, 0.

    The worse squared errors: 0.64 (clipped), 0.81, 1 (not clipped). Second row: 0.25 and 0.
    """
    new = torch.tensor([[0.5, 0.1, 1.0], [0.0, 0.1, 9.0]])
    returns = torch.tensor([[1.0, 1.0, 0.0], [0.5, 0.1, 0.0]])
    loss = value_loss(new, torch.zeros(2, 3), returns, MASK, 0.2)
    near(loss, 0.5 * (0.64 + 0.81 + 1.0 + 0.25 + 0.0) / 5)


def test_explained_variance() -> None:
    returns = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]])
    near(explained_variance(returns + 10, returns, MASK), 1.0)
    near(explained_variance(torch.zeros(2, 3), returns, MASK), 0.0)
    near(explained_variance(2 * returns, returns, MASK), 0.0)
    near(explained_variance(3 * returns, returns, MASK), -3.0)
    near(explained_variance(returns, torch.ones(2, 3), MASK), 0.0)


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(6.0, 0.2), (6.6, 0.2002), (60.0, 0.2004), (0.0, 0.1996), (-5.0, 0.1996)],
)
def test_adaptive_kl(kl: float, expected: float) -> None:
    """At most a fifth of 100 / 10,000 either way."""
    settings = PpoSettings(kl_target=6.0, kl_horizon=10_000)
    assert adapt_kl_coef(0.2, kl, settings, 100) == pytest.approx(expected, abs=1e-9)
    assert adapt_kl_coef(0.2, kl, PpoSettings(kl_target=None), 100) == 0.2


def test_positions() -> None:
    attention = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    assert position_ids(attention).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2]]


class Table(nn.Module):
    """Logits and values that are parameters: one reply position, whatever the text."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2))
        self.value = nn.Parameter(torch.zeros(()))

    def forward(
        self, input_ids_bt: torch.Tensor, attention_bt: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, length = input_ids_bt.shape
        return self.logits.expand(rows, length, 2), self.value.expand(rows, length)


def roll_out(scores: list[float], model: nn.Module) -> Rollout:
    """A prompt of one token, and replies 0 and 1."""
    ids = torch.tensor([[0, 0], [0, 1]])
    logits, values = measure(model, ids, torch.ones_like(ids), 1)
    log_probs = token_log_probs(logits, ids[:, 1:]).detach()
    return Rollout(
        input_ids_bt=ids,
        attention_bt=torch.ones_like(ids),
        mask_br=torch.ones(2, 1, dtype=torch.long),
        log_probs_br=log_probs,
        reference_br=log_probs.clone(),
        values_br=values.detach(),
        scores_b=torch.tensor(scores),
    )


def test_one_update() -> None:
    """One step of plain descent, by hand.

    Scores +1 and -1: advantages +1 and -1, whitened by the unbiased deviation sqrt(2). Each ratio
    is 1 and each probability 1/2, so the loss's gradient by the first logit is
    -(1/2)(1/sqrt(2))(1/2 + 1/2) = -1/(2 sqrt(2)). The values are 0, the mean return too: no change.
    """
    model = Table()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = PpoSettings(ppo_epochs=1, mini_batch_size=2)
    done = update(
        model, optimizer, roll_out([1.0, -1.0], model), 0.2, settings, torch.Generator(), 1
    )
    step = 0.1 / (2 * math.sqrt(2))
    near(model.logits.detach()[None], [[step, -step]])
    near(model.value.detach(), 0.0)
    assert (done.reward, done.kl, done.tokens, done.clip_fraction) == (0.0, 0.0, 1.0, 0.0)
    assert done.entropy == pytest.approx(math.log(2), abs=1e-6)
    assert done.value_loss == pytest.approx(0.5, abs=1e-6)
    assert done.policy_loss == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_no_number(score: float) -> None:
    """Nothing is changed by a reward that is no number."""
    model = Table()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rollout = roll_out([score, 1.0], model)
    with pytest.raises(DivergedError, match=r"reward must stay finite, but got .* at step 7"):
        update(model, optimizer, rollout, 0.2, PpoSettings(), torch.Generator(), 7)
    assert model.logits.detach().tolist() == [0.0, 0.0]
