"""ChatMGL's phases: what each comes to, what trials share, and what interrupts them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from corpora.dialogue import CorpusError
from search_spaces.spec import ChatMglSettings, SftSettings, TrialSpec
from tests.tiny import tiny_spec
from tests.unit.trainers.interrupted import after
from tests.unit.trainers.phased import PAIRS, Trial, left, run_until_killed, table
from trainers import tune as tuning
from trainers.errors import StoppedError
from trainers.examples import encode_splits
from trainers.loading import load_model
from trainers.loss import mean_token_loss
from trainers.select import train
from trainers.tuned import TunedModel

WORDS = ["sleep", "work", "mother", "letters", "summer", "night", "bed", "tired"]


def write_data(folder: Path) -> Path:
    """Eight questions; the preferred answers ask, the rejected ones tell."""
    rows = [
        {
            "id": f"q{number}",
            "question": f"I lie awake over my {word}.",
            "preferred": f"What is it about {word}?",
            "rejected": f"Stop it. {word} is nothing.",
        }
        for number, word in enumerate(WORDS)
    ]
    file = folder / "qa.json"
    file.write_text(json.dumps(rows))
    return file


def chatmgl_spec(
    source: Path, data: Path, training: dict[str, Any] | None = None, **own: Any
) -> TrialSpec:
    settings: dict[str, Any] = {
        "qa_data": str(data),
        "preference_data": str(data),
        "reward_model": None,
        "reward_epochs": 2,
        "reward_batch_size": 4,
        "rl_batch_size": 4,
        "rl_mini_batch_size": 2,
        "rl_max_new_tokens": 6,
        "rl_learning_rate": 1e-3,
        "rl_iterations": 2,
        **own,
    }
    spec = tiny_spec(
        source,
        ChatMglSettings(**settings),
        **{"max_steps": None, "epochs": 1, "batch_size": 2, **(training or {})},
    )
    return spec


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path, data: Path
) -> tuple[Trial, TunedModel]:
    sweep = tmp_path_factory.mktemp("undisturbed")
    trial = Trial(sweep, "a", chatmgl_spec(tiny_gpt2, data), tiny_gpt2)
    return trial, trial()


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which phases were trained, in place of taken."""
    from trainers import reinforce, reward

    done: list[str] = []
    supervise, fit, loop = tuning.train_supervised, reward._train_until_it_fits, reinforce.train_ppo

    def supervised(*args: Any, **named: Any) -> Any:
        done.append("sft")
        return supervise(*args, **named)

    def rewarded(*args: Any, **named: Any) -> Any:
        done.append("reward")
        return fit(*args, **named)

    def reinforced(*args: Any, **named: Any) -> Any:
        done.append("ppo")
        return loop(*args, **named)

    monkeypatch.setattr(tuning, "train_supervised", supervised)
    monkeypatch.setattr(reward, "_train_until_it_fits", rewarded)
    monkeypatch.setattr(reinforce, "train_ppo", reinforced)
    return done


def test_what_a_trial_comes_to(undisturbed: tuple[Trial, TunedModel]) -> None:
    trial, tuned = undisturbed
    assert trial.phases() == ["ppo", "reward", "sft"]
    assert sorted(entry.name for entry in trial.workdir.iterdir()) == [
        "model",
        "rl.csv",
        "train.csv",
    ]
    assert tuned.folder == trial.workdir / "model"
    again, tokenizer = load_model(tuned.folder)
    for name, weight in tuned.model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    _, valid, _ = encode_splits(tokenizer, PAIRS, trial.spec)
    assert tuned.valid_loss == pytest.approx(mean_token_loss(again, valid), rel=1e-6)
    assert [report.valid_loss for report in trial.told] == [tuned.valid_loss]
    assert tuned.trainable_parameters == tuned.total_parameters
    assert tuned.measures["reward/held_out"] == 2
    assert 0 <= tuned.measures["reward/accuracy"] <= 1
    assert -1 < tuned.measures["rl/reward"] < 1
    assert tuned.seconds > 0
    assert tuned.adjusted == {}
    rows = table(trial.workdir / "rl.csv")
    # Seven questions to train on, four a time.
    assert [row["step"] for row in rows] == ["1", "2"]
    losses = table(trial.workdir / "train.csv")
    assert [row["valid_loss"] != "" for row in losses] == [False] * (len(losses) - 1) + [True]
    card = (tuned.folder / "README.md").read_text()
    assert '"rl": "ppo"' in card
    assert tuned.model.generation_config.max_new_tokens == trial.spec.decoding.max_new_tokens


def test_the_first_phase_is_ordinary_fine_tuning(
    tiny_gpt2: Path, data: Path, tmp_path: Path
) -> None:
    """On the questions and their preferred answers, a tenth of them held out."""
    from corpora.question_answers import read_questions
    from corpora.question_splits import split_questions

    trial = Trial(tmp_path, "a", chatmgl_spec(tiny_gpt2, data, rl="none"), tiny_gpt2)
    tuned = trial()
    assert trial.phases() == ["sft"]
    assert tuned.measures == {}
    assert not (trial.workdir / "rl.csv").exists()
    pairs = split_questions(read_questions(data), trial.spec.split.split_seed)
    assert (len(pairs.train), len(pairs.valid)) == (7, 1)
    plain = train(
        replace(trial.spec, method=SftSettings()),
        tiny_gpt2,
        pairs,
        tmp_path / "plain",
        lambda report: None,
    )
    assert plain.train_loss == tuned.train_loss
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, tuned.model.state_dict()[name])


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"kl_coef": 0.5}, ["ppo"]),
        ({"reward_epochs": 1}, ["reward", "ppo"]),
        ({"training": {"learning_rate": 5e-4}}, ["sft", "ppo"]),
        ({"loader": "v2"}, []),
        ({"beams": (1,)}, []),
    ],
)
def test_trials_share_what_they_have_in_common(
    undisturbed: tuple[Trial, TunedModel],
    data: Path,
    trained: list[str],
    change: dict[str, Any],
    again: list[str],
) -> None:
    first, tuned = undisturbed
    spec = first.spec
    match change:
        case {"loader": loader}:
            spec = replace(spec, loader=loader)
        case {"beams": beams}:
            spec = replace(spec, decoding=replace(spec.decoding, beams=beams, max_new_tokens=3))
        case {"training": training}:
            spec = chatmgl_spec(first.source, data, training)
        case _:
            spec = chatmgl_spec(first.source, data, **change)
    other = Trial(first.sweep, f"with {change}", spec, first.source)()
    assert trained == again
    same = all(
        torch.equal(weight, other.model.state_dict()[name])
        for name, weight in tuned.model.state_dict().items()
    )
    assert same is (again == [])
    assert other.seconds > 0
    if not again:
        # Linked, not copied; and the settings are the trial's own.
        weights = [t.folder / "model.safetensors" for t in (tuned, other)]
        assert weights[0].samefile(weights[1])
        assert other.model.generation_config.max_new_tokens == spec.decoding.max_new_tokens
        assert not (tuned.folder / "README.md").samefile(other.folder / "README.md")


@pytest.mark.parametrize("asked", [0, 2, 4, 6, 7, 9, 10, 11])
def test_stopped_anywhere_and_continued(
    undisturbed: tuple[Trial, TunedModel], tmp_path: Path, asked: int
) -> None:
    whole, tuned = undisturbed
    trial = Trial(tmp_path, "a", whole.spec, whole.source)
    with pytest.raises(StoppedError):
        trial(after(asked, lambda: True))
    again = trial()
    assert left(trial) == left_alone(whole)
    assert again.digest == tuned.digest
    assert again.measures == tuned.measures


def left_alone(trial: Trial) -> dict[str, Any]:
    """As `left`, with the phases of the one trial alone."""
    return {**left(trial), "phases": ["ppo", "reward", "sft"]}


@pytest.mark.parametrize("asked", [3, 8, 11])
def test_killed_in_each_phase_and_continued(
    undisturbed: tuple[Trial, TunedModel], tmp_path: Path, asked: int
) -> None:
    whole, _ = undisturbed
    trial = Trial(tmp_path, "a", whole.spec, whole.source)
    run_until_killed(trial, asked)
    trial()
    assert left(trial) == left_alone(whole)


@pytest.mark.parametrize("name", ["sft", "reward", "ppo"])
def test_a_damaged_phase_is_done_again(
    tiny_gpt2: Path, data: Path, tmp_path: Path, trained: list[str], name: str
) -> None:
    trial = Trial(tmp_path, "a", chatmgl_spec(tiny_gpt2, data), tiny_gpt2)
    first = trial()
    assert trained == ["sft", "reward", "ppo"]
    (folder,) = (tmp_path / "phases").glob(f"{name}-*")
    weights = folder / "model" / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()  # Another trial's link to it is another file's then.
    weights.write_bytes(content[:-1])
    again = trial()
    assert name in trained[3:]
    assert any("was passed over" in note for note in again.notes)
    assert again.digest == first.digest


def test_data_that_cannot_be_used(tiny_gpt2: Path, tmp_path: Path) -> None:
    file = tmp_path / "qa.json"
    file.write_text(json.dumps([{"question": "Why?", "answer": "So."}] * 2))
    spec = chatmgl_spec(tiny_gpt2, file, rl="none")
    with pytest.raises(CorpusError, match="two different questions"):
        Trial(tmp_path, "a", spec, tiny_gpt2)()
