from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainers.checkpoints import CheckpointSettings
from trainers.errors import DivergedError, ModelError, StoppedError
from trainers.loading import load_model
from trainers.ppo_loop import LoopSettings, Score
from trainers.rl_course import RL_FILE, RlCourse
from trainers.rloo import RlooSettings, rloo_problems, train_rloo
from trainers.rloo_trainer import ResumableRlooTrainer

ROOT = Path(__file__).parents[3]
EVERY_STEP = CheckpointSettings(1, "steps")
LAZY = CheckpointSettings(100, "steps")
LOOP = LoopSettings(steps=4, batch_size=4, max_new_tokens=6, learning_rate=1e-3)
SETTINGS = RlooSettings(iterations=2, mini_batch_size=2)
"""4 optimiser steps an update."""


def prompts_for(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    texts = ["I feel tired", "Nobody asks me why, so I stay", "My mother"]
    return [tokenizer(text)["input_ids"] for text in texts]


def letters(prompts: Sequence[int], replies: Sequence[str]) -> list[float]:
    """Rewards that depend on the prompt, too."""
    return [number + reply.count("e") / 4 for number, reply in zip(prompts, replies, strict=True)]


def run(
    source: Path,
    workdir: Path,
    *,
    loop: LoopSettings = LOOP,
    settings: RlooSettings = SETTINGS,
    score: Score = letters,
    checkpoints: CheckpointSettings = EVERY_STEP,
    should_stop: Callable[[], bool] = lambda: False,
    prepare: Callable[[PreTrainedModel], None] = lambda model: None,
) -> tuple[PreTrainedModel, RlCourse]:
    model, tokenizer = load_model(source)
    prepare(model)
    course = train_rloo(
        model,
        tokenizer,
        prompts_for(tokenizer),
        score,
        settings,
        loop,
        workdir,
        "test",
        checkpoints=checkpoints,
        should_stop=should_stop,
    )
    return model, course


def vector(model: PreTrainedModel) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path
) -> tuple[torch.Tensor, RlCourse, str]:
    """Weights, course and log of a loop that nothing stopped, and that never saved meanwhile."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    model, course = run(tiny_gpt2, workdir, checkpoints=LAZY)
    return vector(model), course, (workdir / RL_FILE).read_text()


def expect_undisturbed(
    model: PreTrainedModel,
    course: RlCourse,
    workdir: Path,
    undisturbed: tuple[torch.Tensor, RlCourse, str],
) -> None:
    weights, whole, log = undisturbed
    assert torch.equal(vector(model), weights)
    assert replace(course, seconds=0) == replace(whole, seconds=0)
    assert course.seconds > 0
    assert (workdir / RL_FILE).read_text() == log
    assert len(log.splitlines()) == 1 + LOOP.steps
    assert left(workdir) == {RL_FILE, "checkpoint-16"}


def left(workdir: Path) -> set[str]:
    return {entry.name for entry in workdir.iterdir()}


def stop_when_asked(count: int) -> Callable[[], bool]:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == count

    return should_stop


@dataclass(frozen=True)
class Sampled:
    """What TRL made of an update's rows, and the policy's weights at that time."""

    rows: list[dict[str, Any]]
    output: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[Sampled]:
    seen: list[Sampled] = []
    sample = ResumableRlooTrainer._generate_and_score_completions

    def record(self: Any, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = sample(self, inputs)
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        seen.append(Sampled(inputs, dict(output), weights))
        return output

    monkeypatch.setattr(ResumableRlooTrainer, "_generate_and_score_completions", record)
    return seen


def log_prob(model: PreTrainedModel, prompt: list[int], reply: list[int], heat: float) -> float:
    """Of a reply, with nothing beside it and no padding."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
    return float((logits / heat).log_softmax(-1)[range(len(reply)), reply].sum())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_advantages_by_hand(
    family: str, request: pytest.FixtureRequest, tmp_path: Path, sampled: list[Sampled]
) -> None:
    """Prompts arrive as given, rewards at their replies, and padding on the left counts nowhere."""
    source = request.getfixturevalue(f"tiny_{family}")
    settings = replace(SETTINGS, kl_coef=0.3, temperature=0.7, num_generations=4)
    loop = replace(LOOP, batch_size=8)
    told: list[tuple[int, str, float]] = []

    def score(prompts: Sequence[int], replies: Sequence[str]) -> list[float]:
        rewards = [float(len(told) + place) for place in range(len(replies))]
        told.extend(zip(prompts, replies, rewards, strict=True))
        return rewards

    _, course = run(source, tmp_path, loop=loop, settings=settings, score=score)
    policy, tokenizer = load_model(source)
    reference, _ = load_model(source)
    prompts = prompts_for(tokenizer)
    assert sorted(row["number"] for update in sampled[:3] for row in update.rows) == sorted(
        [0, 1, 2] * 8
    ), "two prompts an update, and each prompt once before any comes again"
    for number, update in enumerate(sampled):
        policy.load_state_dict(update.weights)
        output = update.output
        penalised, ratios = [], []
        for place, row in enumerate(update.rows):
            prompt = output["prompt_ids"][place][output["prompt_mask"][place].bool()].tolist()
            reply = output["completion_ids"][place][
                output["completion_mask"][place].bool()
            ].tolist()
            text = str(tokenizer.decode(reply, skip_special_tokens=True)).strip()
            assert prompt == prompts[row["number"]] == row["prompt"]
            asked, heard, reward = told[number * 8 + place]
            assert (asked, heard) == (row["number"], text)
            own = log_prob(policy, prompt, reply, 0.7)
            assert float(output["old_logps"][place]) == pytest.approx(own, abs=1e-4)
            ratios.append(own - log_prob(reference, prompt, reply, 0.7))
            penalised.append(reward - 0.3 * ratios[-1])
        by_hand = [
            own - (sum(penalised[place - place % 4 : place - place % 4 + 4]) - own) / 3
            for place, own in enumerate(penalised)
        ]
        assert output["advantages"].tolist() == pytest.approx(by_hand, abs=1e-3)
        logged = course.rows[number]
        assert logged["kl"] == pytest.approx(sum(ratios) / 8, abs=1e-4)
        assert logged["reward"] == pytest.approx(number * 8 + 3.5)
        assert logged["tokens"] == pytest.approx(
            float(output["completion_mask"].sum(1).float().mean())
        )
        replies = [reply for _, reply, _ in told[number * 8 : number * 8 + 8]]
        assert logged["distinct"] == len(set(replies)) / 8
    assert course.rows[0]["kl"] == pytest.approx(0.0, abs=1e-5)
    assert abs(course.rows[-1]["kl"]) > 1e-2


def test_sampling_is_from_the_model(
    tiny_gpt2: Path, tmp_path: Path, sampled: list[Sampled]
) -> None:
    """A chi-square of first tokens, whatever the policy's own decoding settings would cut."""

    def restrict(model: PreTrainedModel) -> None:
        model.generation_config.update(top_k=3, repetition_penalty=1.9, min_new_tokens=4)
        model.generation_config.eos_token_id = [int(model.config.eos_token_id), 5]

    loop = replace(LOOP, steps=1, batch_size=1500, max_new_tokens=1)
    settings = replace(SETTINGS, mini_batch_size=1500, num_generations=1500, iterations=1)
    model, _ = run(tiny_gpt2, tmp_path, loop=loop, settings=settings, prepare=restrict)
    assert model.generation_config.top_k == 3
    assert model.generation_config.eos_token_id == [int(model.config.eos_token_id), 5]
    untouched, _ = load_model(tiny_gpt2)
    prompt = sampled[0].rows[0]["prompt"]
    with torch.no_grad():
        chances = untouched(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1)
    counts = torch.bincount(sampled[0].output["completion_ids"][:, 0], minlength=len(chances))
    usual = chances > 10 / 1500
    statistic = ((counts - 1500 * chances) ** 2 / (1500 * chances))[usual].sum()
    degrees = int(usual.sum())
    assert degrees >= 5
    assert statistic < degrees + 4 * math.sqrt(2 * degrees)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_dropout_is_off(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The policy's ratio to itself is 1, so that the first loss is the mean of the advantages: 0."""

    def drop(model: PreTrainedModel) -> None:
        layers: list[Any] = list(model.modules())
        for layer in layers:
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.5
            if hasattr(layer, "attention_dropout"):
                layer.attention_dropout = 0.5

    settings = replace(SETTINGS, iterations=1, mini_batch_size=4)
    source = request.getfixturevalue(f"tiny_{family}")
    _, course = run(source, tmp_path, settings=settings, prepare=drop)
    for row in course.rows:
        assert row["policy_loss"] == pytest.approx(0.0, abs=1e-5)
        assert row["clip_fraction"] == 0.0


@pytest.mark.parametrize("stop_before", [2, 3, 4])
def test_resuming(
    tiny_gpt2: Path,
    tmp_path: Path,
    undisturbed: tuple[torch.Tensor, RlCourse, str],
    stop_before: int,
) -> None:
    """Stopped between updates and continued: the bits and the log of an undisturbed loop."""
    with pytest.raises(StoppedError):
        run(tiny_gpt2, tmp_path, checkpoints=LAZY, should_stop=stop_when_asked(stop_before))
    assert left(tmp_path) == {RL_FILE, f"checkpoint-{4 * (stop_before - 1)}"}
    torch.rand(3)  # A new process has other random states.
    again, resumed = run(tiny_gpt2, tmp_path)
    expect_undisturbed(again, resumed, tmp_path, undisturbed)


def test_stopped_before_it_begins(tiny_gpt2: Path, tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="update 0"):
        run(tiny_gpt2, tmp_path / "loop", should_stop=lambda: True)
    assert left(tmp_path / "loop") == set()


def train_until_killed(source: Path, workdir: Path, count: int) -> None:
    """End this process by SIGKILL at an optimiser step."""
    step, steps = torch.optim.AdamW.step, []

    def step_or_die(self: Any, *args: Any, **kwargs: Any) -> Any:
        steps.append(1)
        if len(steps) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args, **kwargs)

    torch.optim.AdamW.step = step_or_die  # type: ignore[method-assign]
    run(source, workdir)


def test_killed(
    tiny_gpt2: Path, tmp_path: Path, undisturbed: tuple[torch.Tensor, RlCourse, str]
) -> None:
    """SIGKILL in the middle of an update, whose replies are then sampled again."""
    workdir = tmp_path / "loop"
    program = (
        "import sys, pathlib, torch; from tests.unit.trainers.test_rloo import train_until_killed; "
        f"torch.set_num_threads({torch.get_num_threads()}); "
        "train_until_killed(*map(pathlib.Path, sys.argv[1:3]), 11)"
    )
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, tiny_gpt2, workdir],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert left(workdir) == {RL_FILE, "checkpoint-8", "trainer"}
    again, resumed = run(tiny_gpt2, workdir)
    expect_undisturbed(again, resumed, workdir, undisturbed)


def test_a_finished_loop_is_taken_as_it_is(tiny_gpt2: Path, tmp_path: Path) -> None:
    """Until the caller has saved the policy, its last checkpoint gives it again."""
    model, course = run(tiny_gpt2, tmp_path)
    assert left(tmp_path) == {RL_FILE, "checkpoint-16"}

    def unexpected(prompts: Sequence[int], replies: Sequence[str]) -> list[float]:
        pytest.fail("sampled again")

    again, taken = run(tiny_gpt2, tmp_path, score=unexpected, should_stop=lambda: True)
    assert torch.equal(vector(model), vector(again))
    assert taken == course


def test_a_trainer_without_the_hooks_is_not_trusted(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoppedError):
        run(tiny_gpt2, tmp_path, should_stop=stop_when_asked(2))
    monkeypatch.setattr(ResumableRlooTrainer, "_load_rng_state", lambda *_: None)
    with pytest.raises(RuntimeError, match="restores no random"):
        run(tiny_gpt2, tmp_path)


def test_other_prompts_than_those_given_are_not_trusted(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tokenize(self: Any, prompts: Any) -> Any:
        return [[1, *prompt] for prompt in prompts], None, {}

    monkeypatch.setattr(ResumableRlooTrainer, "_tokenize_prompts", tokenize)
    with pytest.raises(RuntimeError, match="other ids than the prompt's"):
        run(tiny_gpt2, tmp_path)


@pytest.mark.parametrize("reward", [math.nan, math.inf])
def test_a_reward_that_is_no_number(tiny_gpt2: Path, tmp_path: Path, reward: float) -> None:
    def score(prompts: Sequence[int], replies: Sequence[str]) -> list[float]:
        calls.append(1)
        return [0.0 if len(calls) < 3 else reward, *[0.0] * (len(replies) - 1)]

    calls: list[int] = []
    with pytest.raises(DivergedError, match="reward must stay finite") as caught:
        run(tiny_gpt2, tmp_path, score=score)
    assert caught.value.step == 3
    assert left(tmp_path) >= {RL_FILE, "checkpoint-8"}
    assert "trainer" not in left(tmp_path)
    with (tmp_path / RL_FILE).open(newline="") as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["1", "2"]


def test_weights_that_are_no_numbers(tiny_gpt2: Path, tmp_path: Path) -> None:
    def spoil(model: PreTrainedModel) -> None:
        with torch.no_grad():
            next(model.parameters()).fill_(math.nan)

    with pytest.raises(DivergedError, match="distribution must stay finite"):
        run(tiny_gpt2, tmp_path, prepare=spoil)


@pytest.mark.parametrize("what", ["loss", "gradient norm"])
def test_a_step_that_is_no_number(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    compute = ResumableRlooTrainer._compute_loss
    calls: list[int] = []

    def diverge(self: Any, model: Any, inputs: Any) -> torch.Tensor:
        loss: torch.Tensor = compute(self, model, inputs)
        calls.append(1)
        if len(calls) < 6:
            return loss
        if what == "loss":
            return loss * math.nan
        return (loss - loss.detach()).abs().sqrt()  # 0, with a slope that is no number.

    monkeypatch.setattr(ResumableRlooTrainer, "_compute_loss", diverge)
    with pytest.raises(DivergedError, match=f"RLOO {what} must stay finite") as caught:
        run(tiny_gpt2, tmp_path)
    assert caught.value.step == 2
    assert left(tmp_path) == {RL_FILE, "checkpoint-4"}


@pytest.mark.parametrize(
    ("batch_size", "mini_batch_size", "num_generations", "found"),
    [
        (8, 4, 2, []),
        (8, 1, 8, []),
        (6, 2, 3, []),
        (8, 3, 2, [("rl_mini_batch_size", "3", "2")]),
        (8, 16, 2, [("rl_mini_batch_size", "16", "8")]),
        (8, 4, 3, [("num_generations", "3", "2")]),
        (8, 4, 7, [("num_generations", "7", "8")]),
        (8, 4, 1, [("num_generations", "1", "2")]),
        (1, 1, 4, [("rl_batch_size", "1", "4")]),
        (6, 4, 4, [("num_generations", "4", "3"), ("rl_mini_batch_size", "4", "3")]),
    ],
)
def test_batches_that_cannot_be_cut(
    tiny_gpt2: Path,
    tmp_path: Path,
    batch_size: int,
    mini_batch_size: int,
    num_generations: int,
    found: list[tuple[str, str, str]],
) -> None:
    problems = rloo_problems(batch_size, mini_batch_size, num_generations)
    assert [(problem.place, problem.value, problem.nearest) for problem in problems] == found
    if found:
        settings = replace(
            SETTINGS, mini_batch_size=mini_batch_size, num_generations=num_generations
        )
        with pytest.raises(ModelError) as caught:
            run(
                tiny_gpt2,
                tmp_path / "loop",
                loop=replace(LOOP, batch_size=batch_size),
                settings=settings,
            )
        assert caught.value.problems == problems
        assert not (tmp_path / "loop").exists()


def test_nothing_is_left(
    tiny_gpt2: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither in folders, nor on the terminal, nor on the policy and its tokenizer."""
    loaded, _ = load_model(tiny_gpt2)
    model, tokenizer = load_model(tiny_gpt2)
    tokenizer.pad_token = None
    before = tokenizer.special_tokens_map
    loaded.config.use_cache = model.config.use_cache = True
    capfd.readouterr()
    workdir = tmp_path / "here" / "loop"
    train_rloo(model, tokenizer, prompts_for(tokenizer), letters, SETTINGS, LOOP, workdir, "test")
    assert capfd.readouterr() == ("", "")
    assert left(tmp_path) == {"here"}
    assert left(tmp_path / "here") == {"loop"}
    assert left(workdir) == {RL_FILE, "checkpoint-16"}
    assert tokenizer.special_tokens_map == before
    assert not any(module.training for module in model.modules())
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    for settings in ("config", "generation_config"):
        assert getattr(model, settings).to_dict() == getattr(loaded, settings).to_dict()
    assert {name for name in vars(model) if name not in vars(loaded)} == set()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_without_a_penalty_the_kl_is_measured_too(tiny_gpt2: Path, tmp_path: Path) -> None:
    """And the reference is not the policy that is trained."""
    free = run(tiny_gpt2, tmp_path / "free", settings=replace(SETTINGS, kl_coef=0.0))
    light = run(tiny_gpt2, tmp_path / "light", settings=replace(SETTINGS, kl_coef=1e-30))
    for one, two in zip(free[1].rows, light[1].rows, strict=True):
        assert one["kl"] == pytest.approx(two["kl"], abs=1e-3)
    assert abs(free[1].rows[-1]["kl"]) > 1e-2
    assert free[1].rows[0]["kl_coef"] == 0.0


def test_memory_that_runs_out(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer replies at once, from the last checkpoint on, and the same updates but for rounding."""
    settings = replace(SETTINGS, mini_batch_size=4)
    undisturbed, course = run(tiny_gpt2, tmp_path / "a", settings=settings)
    assert course.at_once == 4
    compute, sizes = ResumableRlooTrainer._compute_loss, []

    def limited(self: Any, model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        sizes.append(len(inputs["advantages"]))
        if sizes[-1] > 2 and sizes.count(4) > 3:  # In the second update.
            raise torch.OutOfMemoryError("no more")
        loss: torch.Tensor = compute(self, model, inputs)
        return loss

    monkeypatch.setattr(ResumableRlooTrainer, "_compute_loss", limited)
    cut, less = run(tiny_gpt2, tmp_path / "b", settings=settings)
    assert less.at_once == 2
    assert sizes == [4] * 4 + [2] * 12
    assert less.rows[0] == course.rows[0]
    assert less.rows[-1] == pytest.approx(course.rows[-1], rel=1e-3, abs=1e-4)
    # Adam makes a whole step of a gradient whose sign is a matter of rounding, here and there.
    assert float((vector(cut) - vector(undisturbed)).abs().mean()) < 1e-5
    assert left(tmp_path / "b") == {RL_FILE, "checkpoint-8"}


def test_one_reply_that_does_not_fit(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, model: Any, inputs: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(ResumableRlooTrainer, "_compute_loss", full)
    with pytest.raises(torch.OutOfMemoryError):
        run(tiny_gpt2, tmp_path)
    assert json.loads((tmp_path / "micro_batch.json").read_text()) == {"batch_size": 1}


def contains(prompts: Sequence[int], replies: Sequence[str]) -> list[float]:
    """What about one reply in four has at first."""
    return [1.0 if "w" in reply else -1.0 for reply in replies]


def mean(rows: Sequence[Any], name: str) -> float:
    return sum(float(row[name]) for row in rows) / len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_toy_reward(tiny_gpt2: Path, tmp_path: Path, seed: int) -> None:
    """The mean reward rises clearly, and the KL stays bounded."""
    toy = LoopSettings(steps=40, batch_size=32, max_new_tokens=6, learning_rate=1e-3, seed=seed)
    settings = RlooSettings(num_generations=4, iterations=2, mini_batch_size=16)
    _, course = run(
        tiny_gpt2,
        tmp_path,
        loop=toy,
        settings=settings,
        score=contains,
        checkpoints=CheckpointSettings(),
    )
    first, last = mean(course.rows[:5], "reward"), mean(course.rows[-5:], "reward")
    kl = max(row["kl"] for row in course.rows)
    print(f"seed {seed}: reward {first:.2f} to {last:.2f}, KL at most {kl:.1f}")
    assert last > first + 0.5
    assert kl < 15


@pytest.mark.slow
def test_huge_kl_coefficient(tiny_gpt2: Path, tmp_path: Path) -> None:
    """Where the penalty outweighs everything, the policy stays where it was."""
    toy = LoopSettings(steps=40, batch_size=32, max_new_tokens=6, learning_rate=4e-4)
    held = RlooSettings(kl_coef=100, num_generations=4, iterations=2, mini_batch_size=16)
    rows = [
        run(
            tiny_gpt2,
            tmp_path / f"{one.kl_coef}",
            loop=toy,
            settings=one,
            score=contains,
            checkpoints=CheckpointSettings(),
        )[1].rows
        for one in (held, replace(held, kl_coef=0.0))
    ]
    print([(mean(one[-5:], "kl"), mean(one[-5:], "reward")) for one in rows])
    assert max(abs(row["kl"]) for row in rows[0]) < 1.5
    assert mean(rows[1][-5:], "kl") > 2
    assert mean(rows[0][-5:], "reward") < mean(rows[1][-5:], "reward") - 0.5
