from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_pairs, tiny_spec
from tests.unit.trainers.interrupted import Training
from trainers.errors import StoppedError
from trainers.examples import encode_splits
from trainers.loading import load_model
from trainers.loss import mean_token_loss
from trainers.micro_batch import (
    MicroBatch,
    halve_at_once,
    micro_batch,
    remembered_at_once,
    smaller_cut,
)
from trainers.resumable import SFTTrainer

PAIRS = tiny_pairs(train=11)
"""One optimiser step of 8 pairs, one of 3."""


def training(source: Path, workdir: Path, **settings: Any) -> Training:
    cut = {"batch_size": 8, "gradient_accumulation_steps": 1, **settings}
    # Plain gradient steps: Adam blows up rounding where a gradient is zero.
    plain = {"optimizer": "sgd", "learning_rate": 0.02, "max_steps": None, "epochs": 2}
    return Training(source, workdir, tiny_spec(source, **cut, **plain), PAIRS)


class Memory:
    """A device on which so many pairs fit, in place of the trainer's."""

    def __init__(
        self, patch: pytest.MonkeyPatch, pairs: int, error: type[Exception], text: str = ""
    ) -> None:
        self.seen: list[int] = []
        self.models: list[weakref.ref[Any]] = []
        step = SFTTrainer.training_step

        def limited(trainer: Any, model: Any, inputs: Any, *rest: Any) -> torch.Tensor:
            rows = len(inputs["input_ids"])
            self.seen.append(rows)
            if all(known() is not model for known in self.models):
                gc.collect()
                assert all(known() is None for known in self.models), "still held"
                self.models.append(weakref.ref(model))
            loss: torch.Tensor = step(trainer, model, inputs, *rest)
            if rows > pairs:
                raise error(text)
            return loss

        patch.setattr(SFTTrainer, "training_step", limited)


def weights(training: Training) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(training.workdir / "model" / "model.safetensors")


@pytest.mark.parametrize(
    ("whole", "expected"), [(8, [4, 2, 1]), (6, [3, 1]), (3, [1]), (12, [6, 3, 1]), (7, [1])]
)
def test_the_next_smaller_divides(whole: int, expected: list[int]) -> None:
    spec = tiny_spec(batch_size=whole, gradient_accumulation_steps=3)
    found, pairs = [], whole
    while pairs > 1:
        batch = micro_batch(spec, smaller_cut(pairs))
        assert batch.batch_size * batch.gradient_accumulation_steps == 3 * whole
        pairs = batch.batch_size
        found.append(pairs)
    assert found == expected


@pytest.mark.parametrize(("most", "pairs"), [(99, 8), (8, 8), (7, 4), (3, 2), (1, 1)])
def test_the_largest_that_divides(most: int, pairs: int) -> None:
    assert micro_batch(tiny_spec(batch_size=8), most) == MicroBatch(pairs, 8 // pairs)


def test_halving_for_the_next_attempt(tmp_path: Path) -> None:
    assert [halve_at_once(tmp_path, 6) for _ in range(3)] == [True, True, False]
    assert remembered_at_once(tmp_path, 6) == 1
    assert not (tmp_path / "base").exists()
    assert not halve_at_once(tmp_path / "base", 1)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"batch_size": "4"}', '{"batch_size": 0}', "{"])
def test_a_memory_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "micro_batch.json").write_text(text)
    assert remembered_at_once(tmp_path, 4) == 4


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        (MemoryError, ""),
    ],
    ids=["gpu", "host", "python"],
)
def test_less_at_once_is_the_same_training(
    plain_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any, text: str
) -> None:
    whole = training(plain_gpt2, tmp_path / "whole")
    expected = whole()
    assert expected.adjusted == {}
    small = training(plain_gpt2, tmp_path / "small")
    with monkeypatch.context() as patch:
        memory = Memory(patch, 2, error, text)
        tuned = small(checkpoints=whole_epochs())
    assert tuned.adjusted == {"batch_size": 2, "gradient_accumulation_steps": 4}
    assert memory.seen == [8, 4, *[2, 2, 2, 2, 2, 1] * 2]
    assert len(memory.models) == 3
    assert [report.step for report in small.told] == [2, 4]
    for name, weight in weights(small).items():
        torch.testing.assert_close(weight, weights(whole)[name], rtol=0, atol=1e-5)
    assert tuned.train_loss == pytest.approx(expected.train_loss, rel=1e-4)
    assert tuned.valid_loss == pytest.approx(expected.valid_loss, rel=1e-4)
    again = small()
    assert again.adjusted == tuned.adjusted


def whole_epochs() -> Any:
    from trainers.checkpoints import CheckpointSettings

    return CheckpointSettings(1, "epochs")


@pytest.mark.parametrize(("pairs", "accumulation"), [(8, 1), (4, 2), (1, 8)])
def test_every_cut_gives_the_same_weights(
    plain_gpt2: Path, tmp_path: Path, pairs: int, accumulation: int
) -> None:
    """Adjusted, and specified so."""
    specified = training(
        plain_gpt2,
        tmp_path / "specified",
        batch_size=pairs,
        gradient_accumulation_steps=accumulation,
    )
    adjusted = training(plain_gpt2, tmp_path / "adjusted")
    while remembered_at_once(adjusted.workdir, 8) > pairs:
        assert halve_at_once(adjusted.workdir, 8)
    tuned = adjusted()
    assert bool(tuned.adjusted) is (pairs != 8)
    assert specified().train_loss == tuned.train_loss
    for name, weight in weights(adjusted).items():
        assert torch.equal(weight, weights(specified)[name])


def test_memory_that_runs_out_late(
    plain_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the last checkpoint, and a process that is stopped then begins with less."""
    trial = training(plain_gpt2, tmp_path / "trial")
    with pytest.raises(StoppedError):
        trial(trial.stop_after(1))
    with monkeypatch.context() as patch:
        memory = Memory(patch, 4, torch.OutOfMemoryError)
        with pytest.raises(StoppedError):
            # The second step has 3 pairs and fits; the third does not, and is repeated.
            trial(trial.stop_after(3))
        assert memory.seen == [3, 8, 4, 4]
        assert trial.checkpoints() == ["checkpoint-3"]
        # Two files know.
        (trial.workdir / "micro_batch.json").unlink()
        tuned = trial()
    assert memory.seen == [3, 8, 4, 4, 3]
    assert tuned.adjusted == {"batch_size": 4, "gradient_accumulation_steps": 2}


def test_one_pair_that_does_not_fit(
    plain_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = training(plain_gpt2, tmp_path / "trial")
    with monkeypatch.context() as patch:
        memory = Memory(patch, 0, torch.OutOfMemoryError, "CUDA out of memory")
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            trial()
    assert memory.seen == [8, 4, 2, 1]


def test_other_errors_are_not_taken_for_it(
    plain_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = training(plain_gpt2, tmp_path / "trial")
    with monkeypatch.context() as patch:
        memory = Memory(patch, 0, RuntimeError, "shapes do not match")
        with pytest.raises(RuntimeError, match="shapes"):
            trial()
    assert memory.seen == [8]


def test_validation_reads_fewer_at_once(plain_gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any
    model, tokenizer = load_model(plain_gpt2)
    _, examples, _ = encode_splits(tokenizer, tiny_pairs(valid=21), tiny_spec(plain_gpt2))
    expected = mean_token_loss(model, examples)
    forward, seen, most = model.forward, [], 3

    def limited(input_ids: torch.Tensor, **rest: Any) -> Any:
        seen.append(len(input_ids))
        if len(input_ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(input_ids=input_ids, **rest)

    monkeypatch.setattr(model, "forward", limited)
    assert mean_token_loss(model, examples) == pytest.approx(expected, rel=1e-6)
    assert seen == [16, 8, 4, *[2] * 10, 1]
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        mean_token_loss(model, examples)
