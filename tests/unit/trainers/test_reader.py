"""READER's phases: what each comes to, what trials share, and what interrupts them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from corpora.dialogue import CorpusError
from search_spaces.spec import ReaderSettings, TrialSpec
from tests.tiny import tiny_spec
from tests.unit.trainers.interrupted import after
from tests.unit.trainers.phased import PAIRS, Trial, left, run_until_killed, table
from trainers import reinforce
from trainers import tune as tuning
from trainers.act_head import ActHead, load_head
from trainers.encoder_files import BUNDLED_ENCODER
from trainers.errors import StoppedError
from trainers.examples import encode_splits
from trainers.loading import load_model
from trainers.loss import mean_token_loss
from trainers.reader_reward import ReaderReward
from trainers.select import train
from trainers.tuned import TunedModel


def reader_spec(source: Path, training: dict[str, Any] | None = None, **own: Any) -> TrialSpec:
    settings: dict[str, Any] = {
        "similarity_weight": 0,
        "rl_batch_size": 3,
        "rl_mini_batch_size": 3,
        "rl_max_new_tokens": 6,
        "rl_learning_rate": 1e-3,
        "rl_iterations": 2,
        **own,
    }
    options = {"max_steps": None, "epochs": 1, "batch_size": 2, **(training or {})}
    return tiny_spec(source, ReaderSettings(**settings), **options)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path
) -> tuple[Trial, TunedModel]:
    sweep = tmp_path_factory.mktemp("undisturbed")
    trial = Trial(sweep, "a", reader_spec(tiny_gpt2), tiny_gpt2)
    return trial, trial()


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which phases were trained, in place of taken."""
    done: list[str] = []
    supervise, loop = tuning.train_supervised, reinforce.train_ppo

    def supervised(*args: Any, **named: Any) -> Any:
        done.append("joint")
        return supervise(*args, **named)

    def reinforced(*args: Any, **named: Any) -> Any:
        done.append("ppo")
        return loop(*args, **named)

    monkeypatch.setattr(tuning, "train_supervised", supervised)
    monkeypatch.setattr(reinforce, "train_ppo", reinforced)
    return done


def test_what_a_trial_comes_to(undisturbed: tuple[Trial, TunedModel]) -> None:
    trial, tuned = undisturbed
    assert trial.phases() == ["joint", "ppo"]
    assert sorted(e.name for e in trial.workdir.iterdir()) == ["model", "rl.csv", "train.csv"]
    assert tuned.folder == trial.workdir / "model"
    again, tokenizer = load_model(tuned.folder)
    for name, weight in tuned.model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert isinstance(tuned.acts, ActHead)
    assert torch.equal(load_head(again, tuned.folder).weight, tuned.acts.weight)
    _, valid, _ = encode_splits(tokenizer, PAIRS, trial.spec)
    assert tuned.valid_loss == mean_token_loss(again, valid)
    assert trial.told[-1].valid_loss == tuned.valid_loss
    # Width 32, two acts.
    assert tuned.trainable_parameters == tuned.total_parameters == 42_368 + 2 * 32 + 2
    assert tuned.notes == ("the act of 2 of 6 training replies is unknown",)
    assert tuned.adjusted == {}
    rows = table(trial.workdir / "rl.csv")
    assert [row["step"] for row in rows] == ["1", "2"]
    assert tuned.measures["rl/reward"] == pytest.approx(
        sum(float(row["reward"]) for row in rows) / 2
    )
    assert tuned.model.generation_config.max_new_tokens == trial.spec.decoding.max_new_tokens
    assert '"rl": "ppo"' in (tuned.folder / "README.md").read_text()


def test_the_policy_is_trained_on_the_reward(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `rl.csv` says is the mean of the rewards; the judge is the supervised model throughout."""
    seen: list[list[float]] = []
    call = ReaderReward.__call__

    def watched(self: ReaderReward, numbers: Any, replies: Any) -> list[float]:
        (act,) = [term for term in self.terms if term.name == "act_reward"]
        judge = act.score.__self__  # type: ignore[attr-defined]
        supervised, _ = load_model(next((tmp_path / "phases").glob("joint-*")) / "model")
        for name, weight in judge.model.state_dict().items():
            assert torch.equal(weight, supervised.state_dict()[name])
        seen.append(call(self, numbers, replies))
        return seen[-1]

    monkeypatch.setattr(ReaderReward, "__call__", watched)
    spec = reader_spec(tiny_gpt2, similarity_weight=1, similarity_model=BUNDLED_ENCODER)
    trial = Trial(tmp_path, "a", spec, tiny_gpt2)
    trial()
    rewards = [float(row["reward"]) for row in table(trial.workdir / "rl.csv")]
    assert rewards == pytest.approx([sum(one) / 3 for one in seen], abs=1e-6)
    assert len({reward for one in seen for reward in one}) == 6


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"rl": "none"}, []),
        ({"kl_coef": 0.5}, ["ppo"]),
        ({"rouge2_weight": 3.0}, ["ppo"]),
        ({"act_loss_weight": 0.5}, ["joint", "ppo"]),
        ({"training": {"learning_rate": 5e-4}}, ["joint", "ppo"]),
        ({"beams": (1,)}, []),
    ],
)
def test_trials_share_what_they_have_in_common(
    undisturbed: tuple[Trial, TunedModel],
    trained: list[str],
    change: dict[str, Any],
    again: list[str],
) -> None:
    first, tuned = undisturbed
    match change:
        case {"beams": beams}:
            decoding = replace(first.spec.decoding, beams=beams, max_new_tokens=3)
            spec = replace(first.spec, decoding=decoding)
        case _:
            spec = reader_spec(first.source, **change)
    trial = Trial(first.sweep, f"with {change}", spec, first.source)
    other = trial()
    assert trained == again
    assert (trial.workdir / "rl.csv").exists() is (change != {"rl": "none"})
    assert other.model.generation_config.max_new_tokens == spec.decoding.max_new_tokens
    assert not (tuned.folder / "README.md").samefile(other.folder / "README.md")
    shared = next((first.sweep / "phases").glob("joint-*")) / "model" / "act_head.safetensors"
    if change == {"rl": "none"}:
        assert shared.samefile(other.folder / "act_head.safetensors")
        assert other.valid_loss == trial.told[-1].valid_loss != tuned.valid_loss
        assert other.digest != tuned.digest
    elif not again:
        for name in ("model.safetensors", "act_head.safetensors"):
            assert (tuned.folder / name).samefile(other.folder / name)
        assert other.digest == tuned.digest


def test_acts_are_a_part_of_the_training(undisturbed: tuple[Trial, TunedModel]) -> None:
    """The same texts with another act are another training."""
    first, _ = undisturbed
    other = replace(PAIRS, train=(replace(PAIRS.train[0], act="reflection"), *PAIRS.train[1:]))
    tuned = train(
        reader_spec(first.source, rl="none"),
        first.source,
        other,
        first.sweep / "trials" / "other",
        lambda _: None,
        phases=first.sweep / "other",
    )
    names = [next((first.sweep / name).glob("joint-*")).name for name in ("phases", "other")]
    assert names[0] != names[1]
    assert tuned.notes == ("the act of 2 of 6 training replies is unknown",)


@pytest.mark.parametrize("asked", [0, 2, 4, 5, 6, 7])
def test_stopped_anywhere_and_continued(
    undisturbed: tuple[Trial, TunedModel], tmp_path: Path, asked: int
) -> None:
    """Before it begins, in the joint training and its validation, in the loop and after it."""
    whole, tuned = undisturbed
    trial = Trial(tmp_path, "a", whole.spec, whole.source)
    with pytest.raises(StoppedError):
        trial(after(asked, lambda: True))
    again = trial()
    assert left(trial) == {**left(whole), "phases": ["joint", "ppo"]}
    assert (again.digest, again.measures, again.valid_loss) == (
        tuned.digest,
        tuned.measures,
        tuned.valid_loss,
    )


def test_stopped_again_and_again(undisturbed: tuple[Trial, TunedModel], tmp_path: Path) -> None:
    whole, _ = undisturbed
    trial, stops = Trial(tmp_path, "a", whole.spec, whole.source), 0
    while True:
        torch.rand(3)  # A new process begins with other random states.
        try:
            trial(after(2, lambda: True))
            break
        except StoppedError:
            stops += 1
    assert stops >= 3
    assert left(trial) == {**left(whole), "phases": ["joint", "ppo"]}


def test_killed_in_the_loop_and_continued(
    undisturbed: tuple[Trial, TunedModel], tmp_path: Path
) -> None:
    whole, _ = undisturbed
    trial = Trial(tmp_path, "a", whole.spec, whole.source)
    run_until_killed(trial, 6)
    assert trial.phases() == ["joint", "ppo"]
    trial()
    assert left(trial) == {**left(whole), "phases": ["joint", "ppo"]}


@pytest.mark.parametrize("file", ["model.safetensors", "act_head.safetensors", "act_head.json"])
def test_a_damaged_phase_is_done_again(
    undisturbed: tuple[Trial, TunedModel], tmp_path: Path, trained: list[str], file: str
) -> None:
    whole, _ = undisturbed
    trial = Trial(tmp_path, "a", reader_spec(whole.source, rl="none"), whole.source)
    first = trial()
    (folder,) = (tmp_path / "phases").glob("joint-*")
    damaged = folder / "model" / file
    content = damaged.read_bytes()
    damaged.unlink()  # Another trial's link to it is another file's then.
    damaged.write_bytes(content[:-1])
    again = trial()
    assert trained == ["joint", "joint"]
    assert any("was passed over" in note and file in note for note in again.notes)
    assert again.digest == first.digest


def test_rloo_is_a_loop_too(tiny_gpt2: Path, tmp_path: Path) -> None:
    spec = reader_spec(tiny_gpt2, rl="rloo", rl_batch_size=4, rl_mini_batch_size=2)
    trial = Trial(tmp_path, "a", spec, tiny_gpt2)
    tuned = trial()
    assert trial.phases() == ["joint", "rloo"]
    assert [row["step"] for row in table(trial.workdir / "rl.csv")] == ["1", "2", "3"]
    again = trial()
    assert (again.digest, again.valid_loss) == (tuned.digest, tuned.valid_loss)


def test_a_corpus_without_acts_is_refused(tiny_gpt2: Path, tmp_path: Path) -> None:
    bare = replace(PAIRS, train=tuple(replace(pair, act=None) for pair in PAIRS.train))
    with pytest.raises(CorpusError, match=r"sample: acts: .* none of the 6 training replies"):
        train(reader_spec(tiny_gpt2), tiny_gpt2, bare, tmp_path, lambda _: None)
    assert not list(tmp_path.iterdir())
