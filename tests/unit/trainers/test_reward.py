from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from corpora.question_answers import LabelledAnswer, QuestionAnswer
from trainers import classifier, reward
from trainers.checkpoints import CheckpointSettings
from trainers.errors import ModelError, StoppedError
from trainers.micro_batch import halve_at_once
from trainers.reward import RewardModel, RewardSettings, train_reward

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


def labelled() -> list[LabelledAnswer]:
    """The answers of the comparisons, each by itself."""
    return [
        LabelledAnswer(c.id, c.question, answer, good)
        for c in comparisons()
        for answer, good in ((c.preferred, True), (c.rejected, False))
    ]


def rewards(model: RewardModel) -> list[float]:
    pairs = comparisons(6)
    return model.score([c.question for c in pairs], [c.preferred for c in pairs])


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
    good = rewards(trained)
    bad = trained.score([c.question for c in pairs], [c.rejected for c in pairs])
    assert all(-1 < b < g < 1 for g, b in zip(good, bad, strict=True))
    # Centred: the good lie above zero, the bad below.
    assert sum(good) > 0 > sum(bad)


def test_it_is_not_trained_again(trained: RewardModel, tiny_gpt2: Path, workdir: Path) -> None:
    again = train_reward(
        tiny_gpt2, comparisons(), SETTINGS, workdir, should_stop=lambda: pytest.fail("trained")
    )
    assert rewards(again) == rewards(trained)
    assert (again.accuracy, again.centre, again.notes) == (trained.accuracy, trained.centre, ())
    assert (again.loss, again.seconds) == (trained.loss, trained.seconds)
    assert (again.chance, again.adjusted) == (0.5, {})


def test_scores_do_not_depend_on_their_neighbours(trained: RewardModel) -> None:
    pairs = comparisons(6)
    alone = [trained.score([c.question], [c.preferred])[0] for c in pairs]
    assert alone == pytest.approx(rewards(trained), abs=1e-5)


def test_labelled_answers(tiny_gpt2: Path, tmp_path: Path) -> None:
    model = train_reward(tiny_gpt2, labelled(), SETTINGS, tmp_path)
    assert (model.held_out, model.chance, model.centre) == (48, 0.5, 0.0)
    assert model.accuracy >= 0.9
    assert 0 < model.loss < math.log(2)
    pairs = comparisons(6)
    bad = model.score([c.question for c in pairs], [c.rejected for c in pairs])
    assert sum(rewards(model)) > 0 > sum(bad)
    again = train_reward(
        tiny_gpt2, labelled(), SETTINGS, tmp_path, should_stop=lambda: pytest.fail("trained")
    )
    assert rewards(again) == rewards(model)


STEPS = 18


@pytest.mark.parametrize("stop_before", [1, 5, 8, STEPS + 1, STEPS + 2])
def test_resuming(trained: RewardModel, tiny_gpt2: Path, tmp_path: Path, stop_before: int) -> None:
    """Stopped in an epoch or while it is scored: nothing is lost, and the bits are the same."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_before

    folder = tmp_path / "r"
    with pytest.raises(StoppedError):
        train_reward(tiny_gpt2, comparisons(), SETTINGS, folder, should_stop=should_stop)
    assert not (folder / "model").exists()
    done = min(stop_before - 1, STEPS)
    assert [entry.name for entry in folder.iterdir()] == [f"checkpoint-{done}"] * (done > 0)
    before, asked = asked, stop_before
    again = train_reward(tiny_gpt2, comparisons(), SETTINGS, folder, should_stop=should_stop)
    assert asked - before == STEPS - done + 4  # Twice 48 texts are scored, 32 at once.
    for name, weights in again.model.state_dict().items():
        assert torch.equal(weights, trained.model.state_dict()[name]), name
    assert (again.loss, again.accuracy) == (trained.loss, trained.accuracy)
    assert sorted(entry.name for entry in folder.iterdir()) == ["model", "trained.json"]


def test_a_killed_training_goes_on(
    trained: RewardModel, tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the last checkpoint that was due, with the time that was spent until then."""

    def killed() -> bool:
        if (tmp_path / "checkpoint-8").exists():
            raise KeyboardInterrupt
        return False

    often = CheckpointSettings(4, "steps")
    with pytest.raises(KeyboardInterrupt):
        train_reward(
            tiny_gpt2, comparisons(), SETTINGS, tmp_path, checkpoints=often, should_stop=killed
        )
    assert [entry.name for entry in tmp_path.glob("checkpoint-*")] == ["checkpoint-8"]
    state = json.loads((tmp_path / "checkpoint-8" / "state.json").read_text())
    again = train_reward(tiny_gpt2, comparisons(), SETTINGS, tmp_path)
    assert rewards(again) == rewards(trained)
    assert again.seconds > state["seconds"] > 0


class Memory:
    """A device on which so many texts are read at once, from the given forward pass on."""

    def __init__(self, patch: pytest.MonkeyPatch, module: ModuleType, texts: int, after: int = 0):
        self.seen: list[int] = []
        whole = classifier.classify

        def limited(*given: Any) -> torch.Tensor:
            self.seen.append(len(given[2]))
            if len(self.seen) > after and len(given[2]) > texts:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return whole(*given)

        patch.setattr(module, "classify", limited)


@pytest.fixture
def norms(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The gradient's norm at each optimiser step."""
    seen: list[float] = []
    clip = torch.nn.utils.clip_grad_norm_

    def remember(*given: Any) -> torch.Tensor:
        norm = clip(*given)
        seen.append(norm.item())
        return norm

    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", remember)
    return seen


ONE_EPOCH = replace(SETTINGS, epochs=1, learning_rate=1e-4)


def some(kind: str) -> list[QuestionAnswer] | list[LabelledAnswer]:
    """22 of which 11 are trained on: steps of 8 and of 3."""
    return comparisons(22) if kind == "compared" else labelled()[::2][:22]


@pytest.mark.parametrize(("kind", "texts"), [("compared", 2), ("labelled", 1)])
def test_memory_that_is_short_changes_no_step(
    plain_gpt2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    norms: list[float],
    kind: str,
    texts: int,
) -> None:
    """A step is the mean over its batch, however that is cut."""
    found = {}
    for at_once in (8, 4, 2):
        with monkeypatch.context() as patch:
            memory = Memory(patch, reward, at_once * texts)
            model = train_reward(plain_gpt2, some(kind), ONE_EPOCH, tmp_path / str(at_once))
        assert model.adjusted == ({} if at_once == 8 else {"reward_batch_size": at_once})
        found[at_once] = (norms.copy(), model.loss, rewards(model))
        norms.clear()
    assert memory.seen == [rows * texts for rows in (8, 4, 2, 2, 2, 2, 2, 1)]
    for cut in (4, 2):
        for part, whole in zip(found[cut], found[8], strict=True):
            assert part == pytest.approx(whole, rel=1e-3)
    again = train_reward(plain_gpt2, some(kind), ONE_EPOCH, tmp_path / "2")
    assert again.adjusted == {"reward_batch_size": 2}
    assert sorted(entry.name for entry in (tmp_path / "2").iterdir()) == ["model", "trained.json"]


def test_memory_that_runs_out_later(
    trained: RewardModel,
    tiny_gpt2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    norms: list[float],
) -> None:
    """Goes on from the last checkpoint."""
    with monkeypatch.context() as patch:
        Memory(patch, reward, 8, after=9)
        often = CheckpointSettings(1, "steps")
        model = train_reward(tiny_gpt2, comparisons(), SETTINGS, tmp_path, checkpoints=often)
    assert len(norms) == STEPS
    assert model.adjusted == {"reward_batch_size": 4}
    assert model.accuracy >= 0.9


def test_one_that_does_not_fit(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(monkeypatch, reward, 1)
    with pytest.raises(torch.OutOfMemoryError):
        train_reward(tiny_gpt2, comparisons(), SETTINGS, tmp_path)
    assert memory.seen == [16, 8, 4, 2]


def test_killed_for_memory(tiny_gpt2: Path, tmp_path: Path) -> None:
    """From outside: whoever killed it leaves word."""
    assert halve_at_once(tmp_path, SETTINGS.batch_size)
    model = train_reward(tiny_gpt2, comparisons(), ONE_EPOCH, tmp_path)
    assert model.adjusted == {"reward_batch_size": 4}
    assert not (tmp_path / "micro_batch.json").exists()


def test_scoring_where_memory_is_short(
    trained: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rewards(trained)
    with monkeypatch.context() as patch:
        memory = Memory(patch, classifier, 2)
        assert rewards(trained) == pytest.approx(expected, abs=1e-5)
    assert memory.seen == [6, 3, 1, 1, 1, 1, 1, 1]
    Memory(monkeypatch, classifier, 0)
    with pytest.raises(torch.OutOfMemoryError):
        rewards(trained)


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
    assert rewards(again) == rewards(first)
    other = train_reward(tiny_gpt2, comparisons(), replace(quick, seed=1), tmp_path)
    assert "it belongs to other settings" in other.notes[0]
    swapped = [replace(c, preferred=c.rejected, rejected=c.preferred) for c in comparisons()]
    assert train_reward(tiny_gpt2, swapped, replace(quick, seed=1), tmp_path).notes
    renamed = [replace(c, id=f"x{c.id}") for c in swapped]
    assert not train_reward(tiny_gpt2, renamed, replace(quick, seed=1), tmp_path).notes


def test_shuffled_labels(tiny_gpt2: Path, tmp_path: Path) -> None:
    """A control: where preference is a coin's, nothing is learnt that holds."""
    control = train_reward(tiny_gpt2, comparisons(96, shuffled=True), SETTINGS, tmp_path)
    # 48 held-out comparisons: three deviations of a fair coin.
    assert abs(control.accuracy - 0.5) < 3 * 0.5 / math.sqrt(48)


def test_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no sequence classifier can be made of it"):
        train_reward(tmp_path / "empty", comparisons(), SETTINGS, tmp_path / "out")
