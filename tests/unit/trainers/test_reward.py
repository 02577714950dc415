from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from corpora.question_answers import QuestionAnswer
from trainers.errors import ModelError, StoppedError
from trainers.reward import (
    RewardModel,
    RewardSettings,
    bradley_terry_loss,
    split_comparisons,
    train_reward,
)

WORDS = [
    "tired",
    "bed",
    "wait",
    "pass",
    "feel",
    "ask",
    "stay",
    "lie",
    "awake",
    "count",
    "work",
    "mother",
    "letter",
    "summer",
    "night",
]
SETTINGS = RewardSettings(epochs=6, learning_rate=5e-3, max_length=48, held_out_fraction=0.5)


def comparisons(count: int = 48, *, shuffled: bool = False) -> list[QuestionAnswer]:
    """The preferred answer asks back, the rejected one does not; both of the same random words."""
    draw = random.Random(0)
    made = []
    for number in range(count):
        words = draw.choices(WORDS, k=9)
        answers = [f"What {words[6]} {words[7]}?", f"{words[6]} {words[7]}, so."]
        if shuffled and draw.random() < 0.5:
            answers.reverse()
        question = f"{number} {' '.join(words[:6])}"
        made.append(QuestionAnswer(str(number), question, answers[0], answers[1]))
    return made


def outputs(reward: RewardModel) -> list[float]:
    pairs = comparisons(6)
    return reward.score([c.question for c in pairs], [c.preferred for c in pairs])


def test_loss() -> None:
    """Odds of 3 to 1 and 1 to 3."""
    loss = bradley_terry_loss(torch.tensor([math.log(3), 0.0]), torch.tensor([0.0, math.log(3)]))
    assert float(loss) == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2, abs=1e-6)


def test_split() -> None:
    """Two answers to one question never stand on both sides."""
    asked = [replace(c, question=c.question[:1]) for c in comparisons(40)]
    train, held_out = split_comparisons(asked, 0.25, 0)
    assert not {c.question for c in train} & {c.question for c in held_out}
    assert len(train) + len(held_out) == 40
    assert len({c.question for c in held_out}) == round(0.25 * len({c.question for c in asked}))
    assert split_comparisons(asked, 0.25, 1) != (train, held_out)
    with pytest.raises(ModelError, match="at least two questions"):
        split_comparisons([replace(c, question="Why?") for c in asked], 0.25, 0)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reward")


@pytest.fixture
def trained(tiny_gpt2: Path, workdir: Path) -> RewardModel:
    """Trained by the first test that asks, read from the folder by the others."""
    return train_reward(tiny_gpt2, comparisons(), SETTINGS, workdir)


def test_it_learns(trained: RewardModel) -> None:
    assert trained.held_out == 24
    assert trained.accuracy >= 0.9
    assert trained.train_accuracy >= 0.9
    pairs = comparisons(6)
    good = outputs(trained)
    bad = trained.score([c.question for c in pairs], [c.rejected for c in pairs])
    assert all(-1 < b < g < 1 for g, b in zip(good, bad, strict=True))
    # Centred: the good lie above zero, the bad below.
    assert sum(good) > 0 > sum(bad)


def test_it_is_not_trained_again(trained: RewardModel, tiny_gpt2: Path, workdir: Path) -> None:
    again = train_reward(
        tiny_gpt2, comparisons(), SETTINGS, workdir, should_stop=lambda: pytest.fail("trained")
    )
    assert outputs(again) == outputs(trained)
    assert (again.accuracy, again.centre, again.notes) == (trained.accuracy, trained.centre, ())


def test_scores_do_not_depend_on_their_neighbours(trained: RewardModel) -> None:
    pairs = comparisons(6)
    alone = [trained.score([c.question], [c.preferred])[0] for c in pairs]
    assert alone == pytest.approx(outputs(trained), abs=1e-5)


@pytest.mark.parametrize("stop_before", [1, 5, 8])
def test_resuming(trained: RewardModel, tiny_gpt2: Path, tmp_path: Path, stop_before: int) -> None:
    """Stopped in an epoch and continued: the bits of an undisturbed training."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_before

    with pytest.raises(StoppedError):
        train_reward(tiny_gpt2, comparisons(), SETTINGS, tmp_path / "r", should_stop=should_stop)
    assert not (tmp_path / "r" / "model").exists()
    again = train_reward(tiny_gpt2, comparisons(), SETTINGS, tmp_path / "r")
    for name, weights in again.model.state_dict().items():
        assert torch.equal(weights, trained.model.state_dict()[name]), name
    assert [entry.name for entry in (tmp_path / "r").iterdir()] == ["model"]


def test_damage(tiny_gpt2: Path, tmp_path: Path) -> None:
    """A reward model that is not as it was written is trained again, and that is said."""
    quick = replace(SETTINGS, epochs=1)
    first = train_reward(tiny_gpt2, comparisons(), quick, tmp_path)
    file = tmp_path / "model" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    again = train_reward(tiny_gpt2, comparisons(), quick, tmp_path)
    assert "model.safetensors is not as it was written" in again.notes[0]
    assert outputs(again) == outputs(first)
    other = train_reward(tiny_gpt2, comparisons(), replace(quick, seed=1), tmp_path)
    assert "it was trained otherwise" in other.notes[0]


def test_shuffled_labels(tiny_gpt2: Path, tmp_path: Path) -> None:
    """A control: where preference is a coin's, nothing is learnt that holds."""
    control = train_reward(tiny_gpt2, comparisons(96, shuffled=True), SETTINGS, tmp_path)
    # 48 held-out comparisons: three deviations of a fair coin.
    assert abs(control.accuracy - 0.5) < 3 * 0.5 / math.sqrt(48)


def test_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no sequence classifier can be made of it"):
        train_reward(tmp_path / "empty", comparisons(), SETTINGS, tmp_path / "out")
