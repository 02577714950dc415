from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainers.checkpoints import CheckpointSettings
from trainers.errors import DivergedError, StoppedError
from trainers.loading import load_model
from trainers.ppo import ActorCritic, PpoSettings, PpoStatistics
from trainers.ppo_loop import (
    LoopSettings,
    Score,
    guard,
    sample_replies,
    train_ppo,
)
from trainers.rl_course import RL_FILE, RlCourse

QUIET = PpoStatistics(
    reward=0.0,
    kl=1.0,
    kl_coef=0.2,
    entropy=2.0,
    clip_fraction=0.1,
    approximate_kl=0.01,
    policy_loss=0.0,
    value_loss=0.1,
    explained_variance=0.5,
    tokens=20.0,
)
EVERY_STEP = CheckpointSettings(1, "steps")
LOOP = LoopSettings(steps=4, batch_size=4, max_new_tokens=6, learning_rate=1e-3)


def prompts_for(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    texts = ["I feel tired", "Nobody asks me why, so I stay", "My mother"]
    return [tokenizer(text)["input_ids"] for text in texts]


def letters(prompts: Sequence[int], replies: Sequence[str]) -> list[float]:
    return [reply.count("e") / 4 for reply in replies]


def run(
    source: Path,
    workdir: Path,
    *,
    loop: LoopSettings = LOOP,
    settings: PpoSettings | None = None,
    score: Score = letters,
    checkpoints: CheckpointSettings = EVERY_STEP,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[PreTrainedModel, RlCourse]:
    model, tokenizer = load_model(source)
    course = train_ppo(
        model,
        tokenizer,
        prompts_for(tokenizer),
        score,
        settings or PpoSettings(),
        loop,
        workdir,
        "test",
        checkpoints=checkpoints,
        should_stop=should_stop,
    )
    return model, course


def vector(model: PreTrainedModel) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_sampling(family: str, request: pytest.FixtureRequest) -> None:
    """Replies do not depend on the padding beside them, end once, and are counted to their end."""
    model, tokenizer = load_model(request.getfixturevalue(f"tiny_{family}"))
    prompts = prompts_for(tokenizer)
    eos = int(tokenizer.eos_token_id)

    def sample(chosen: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return sample_replies(
            model,
            chosen,
            30,
            eos_token_id=eos,
            # So cold that the likeliest token is drawn, whatever else is drawn beside it.
            temperature=1e-4,
            generator=torch.Generator().manual_seed(1),
        )

    together_ids, seen, mask = sample(prompts)
    assert together_ids.shape == seen.shape
    for row, prompt in enumerate(prompts):
        alone_ids, _, alone_mask = sample([prompt])
        together = together_ids[row, -mask.shape[1] :][mask[row].bool()].tolist()
        assert together == alone_ids[0, len(prompt) :][alone_mask[0].bool()].tolist()
        assert eos not in together[:-1]
        assert int(seen[row].sum()) == len(prompt) + len(together)


def test_sampling_is_from_the_model(tiny_gpt2: Path) -> None:
    """First tokens come as often as the model says: a chi-square that a wrong draw would not pass."""
    model, tokenizer = load_model(tiny_gpt2)
    ids = torch.tensor([tokenizer("I feel tired")["input_ids"]])
    with torch.no_grad():
        chances = model(input_ids=ids).logits[0, -1].softmax(-1)
    drawn, _, _ = sample_replies(
        model,
        [ids[0].tolist()] * 4000,
        1,
        eos_token_id=int(tokenizer.eos_token_id),
        temperature=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    counts = torch.bincount(drawn[:, -1], minlength=len(chances)).float()
    usual = chances > 10 / 4000
    statistic = ((counts - 4000 * chances) ** 2 / (4000 * chances))[usual].sum()
    degrees = int(usual.sum())
    assert degrees >= 5
    assert statistic < degrees + 4 * math.sqrt(2 * degrees)


@pytest.mark.parametrize("stop_before", [1, 2, 4])
def test_resuming(tiny_gpt2: Path, tmp_path: Path, stop_before: int) -> None:
    """Stopped before an update and continued: the bits and the log of an undisturbed loop."""
    undisturbed, course = run(tiny_gpt2, tmp_path / "a")
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_before

    lazy = CheckpointSettings(100, "steps")
    with pytest.raises(StoppedError):
        run(tiny_gpt2, tmp_path / "b", checkpoints=lazy, should_stop=should_stop)
    again, resumed = run(tiny_gpt2, tmp_path / "b", checkpoints=lazy)
    assert torch.equal(vector(undisturbed), vector(again))
    assert course.rows == resumed.rows
    assert resumed.seconds > 0
    logs = [(tmp_path / name / RL_FILE).read_text() for name in "ab"]
    assert logs[0] == logs[1]
    assert len(logs[0].splitlines()) == 1 + LOOP.steps


@pytest.mark.parametrize("method", ["own", "shared"])
def test_memory_that_runs_out(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Fewer replies at once, from the last checkpoint on, and the same updates but for rounding."""
    settings = PpoSettings(own_value_model=method == "own")
    undisturbed, course = run(tiny_gpt2, tmp_path / "a", settings=settings)
    assert course.at_once == 4
    forward, sizes = ActorCritic.forward, []

    def limited(model: ActorCritic, ids: torch.Tensor, seen: torch.Tensor) -> Any:
        sizes.append(len(ids))
        if len(ids) > 2 and sizes.count(4) > 7:  # In the second update.
            raise torch.OutOfMemoryError("no more")
        return forward(model, ids, seen)

    monkeypatch.setattr(ActorCritic, "forward", limited)
    cut, less = run(tiny_gpt2, tmp_path / "b", settings=settings)
    assert less.at_once == 2
    assert set(sizes) == {4, 2}
    assert less.rows[0] == course.rows[0]
    assert less.rows[-1] == pytest.approx(course.rows[-1], rel=1e-3, abs=1e-4)
    # Adam makes a whole step of a gradient whose sign is a matter of rounding, here and there.
    assert float((vector(cut) - vector(undisturbed)).abs().mean()) < 1e-5
    assert not (tmp_path / "b" / "micro_batch.json").exists()


def test_one_reply_that_does_not_fit(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: ActorCritic, ids: torch.Tensor, seen: torch.Tensor) -> Any:
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(ActorCritic, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        run(tiny_gpt2, tmp_path)
    assert json.loads((tmp_path / "micro_batch.json").read_text()) == {"batch_size": 1}


def test_replies_do_not_depend_on_those_beside_them(tiny_gpt2: Path) -> None:
    model, tokenizer = load_model(tiny_gpt2)
    drawn = [
        sample_replies(
            model,
            prompts_for(tokenizer),
            12,
            eos_token_id=int(tokenizer.eos_token_id),
            temperature=1.0,
            generator=torch.Generator().manual_seed(3),
            at_once=at_once,
        )
        for at_once in (None, 2, 1)
    ]
    for other in drawn[1:]:
        for one, two in zip(drawn[0], other, strict=True):
            assert torch.equal(one, two)


def test_first_update_starts_at_the_reference(tiny_gpt2: Path, tmp_path: Path) -> None:
    _, course = run(tiny_gpt2, tmp_path)
    first, last = course.rows[0], course.rows[-1]
    assert first["kl"] == pytest.approx(0.0, abs=1e-4)
    assert abs(last["kl"]) > 1e-3
    assert 1 <= first["tokens"] <= 6
    assert course.notes == ()


def test_a_reward_that_is_no_number(tiny_gpt2: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="at step 1"):
        run(tiny_gpt2, tmp_path, score=lambda prompts, replies: [math.nan] * len(replies))


def test_weights_that_are_no_numbers(tiny_gpt2: Path) -> None:
    model, tokenizer = load_model(tiny_gpt2)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(DivergedError, match="distribution must stay finite"):
        sample_replies(
            model,
            [[1, 2]],
            2,
            eos_token_id=int(tokenizer.eos_token_id),
            temperature=1.0,
            generator=torch.Generator(),
        )


def rows(
    early: PpoStatistics, late: PpoStatistics, distinct: tuple[float, float] = (1.0, 1.0)
) -> list[Mapping[str, float]]:
    return [
        {
            "step": step + 1,
            **asdict(early if step < 5 else late),
            "distinct": distinct[step >= 5],
        }
        for step in range(10)
    ]


@pytest.mark.parametrize(
    ("late", "distinct", "says"),
    [
        (replace(QUIET, reward=0.5), 1.0, None),
        (replace(QUIET, kl=-0.5), 1.0, None),
        (replace(QUIET, kl=-1.5), 1.0, "negative KL: -1.50 nats per reply at step 6"),
        (replace(QUIET, reward=0.5, kl=30.0), 1.0, "KL reached 30.0 nats per reply"),
        (replace(QUIET, kl=30.0), 1.0, None),
        (replace(QUIET, reward=0.5), 0.25, "only 25% of the replies differ (100% at first)"),
        (replace(QUIET, reward=0.5, tokens=3.0), 1.0, "shrank to 3.0 tokens from 20.0"),
    ],
)
def test_guards(late: PpoStatistics, distinct: float, says: str | None) -> None:
    found = guard(rows(QUIET, late, (1.0, distinct)), 6.0)
    assert len(found) == (says is not None)
    if says is not None:
        assert says in found[0]


def contains(prompts: Sequence[int], replies: Sequence[str]) -> list[float]:
    """What about one reply in four has at first."""
    return [1.0 if "w" in reply else -1.0 for reply in replies]


def last(course: RlCourse, name: str) -> float:
    return sum(row[name] for row in course.rows[-5:]) / 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_toy_reward(tiny_gpt2: Path, tmp_path: Path, seed: int) -> None:
    """The mean reward rises clearly, and the KL stays bounded."""
    toy = LoopSettings(steps=30, batch_size=32, max_new_tokens=6, learning_rate=1e-3, seed=seed)
    settings = PpoSettings(kl_coef=0.05, kl_target=None, mini_batch_size=16)
    _, course = run(tiny_gpt2, tmp_path, loop=toy, settings=settings, score=contains)
    first = sum(row["reward"] for row in course.rows[:5]) / 5
    kl = max(row["kl"] for row in course.rows)
    print(f"seed {seed}: reward {first:.2f} to {last(course, 'reward'):.2f}, KL at most {kl:.1f}")
    assert last(course, "reward") > first + 0.5
    assert kl < 15


@pytest.mark.slow
def test_huge_kl_coefficient(tiny_gpt2: Path, tmp_path: Path) -> None:
    """Where the penalty outweighs everything, the policy stays where it was."""
    toy = LoopSettings(steps=40, batch_size=32, max_new_tokens=6, learning_rate=4e-4)
    held = PpoSettings(kl_coef=100, kl_target=None, mini_batch_size=16)
    free = replace(held, kl_coef=0.0)
    courses = [
        run(tiny_gpt2, tmp_path / f"{one.kl_coef}", loop=toy, settings=one, score=contains)[1]
        for one in (held, free)
    ]
    print([(last(course, "kl"), last(course, "reward")) for course in courses])
    assert max(abs(row["kl"]) for row in courses[0].rows) < 1.5
    assert last(courses[1], "kl") > 5
    assert last(courses[0], "reward") < last(courses[1], "reward") - 0.5
