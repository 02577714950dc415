"""Trainings that share a base come to what each comes to alone."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from search_spaces.spec import DeltaSettings
from tests.tiny import make_tiny_tokenizer, tiny_spec
from tests.unit.trainers.fused_tasks import (
    Trainings,
    even_specs,
    furthest_losses,
    furthest_weights,
    unlike_specs,
)
from tests.unit.trainers.interrupted import EVERY_STEP, after
from trainers import delta, fused, fused_model, loading
from trainers.errors import DivergedError, ModelError, StoppedError
from trainers.fused import train_fused
from trainers.fused_model import FusedModel, why_not_fused
from trainers.loading import load_model
from trainers.resumable import ResumableTrainer

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["gpt2", "llama"])
def tiny(request: pytest.FixtureRequest, tiny_gpt2: Path, tiny_llama: Path) -> Path:
    """The GPT-2 has dropout everywhere; the Llama has keys and values for several heads."""
    return tiny_gpt2 if request.param == "gpt2" else tiny_llama


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path) -> Trainings:
    """Undisturbed, together."""
    place = tmp_path_factory.mktemp("even")
    trainings = Trainings(tiny_gpt2, place, even_specs(tiny_gpt2))
    assert [one.error for one in train_fused(trainings.tasks)] == [None] * 3
    return trainings


def together(trainings: Trainings, **kwargs: Any) -> Trainings:
    assert [one.error for one in train_fused(trainings.tasks, **kwargs)] == [None] * len(
        trainings.specs
    )
    return trainings


def in_double_precision(patch: pytest.MonkeyPatch) -> None:
    """Everything in f64; alone by the plain loss, since TRL's head computes in f32."""

    def load(folder: Path) -> Any:
        model, tokenizer = loading.load_model(folder)
        return model.double(), tokenizer

    def plain_loss(
        self: Any, model: Any, inputs: dict[str, Any], *_: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        labels = inputs.pop("labels")
        logits = model(**inputs).logits
        summed = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
        )
        return summed / num_items_in_batch

    patch.setattr(delta, "load_model", load)
    patch.setattr(fused, "load_model", load)
    patch.setattr(ResumableTrainer, "compute_loss", plain_loss)


def test_four_that_differ_in_everything(tiny: Path, tmp_path: Path) -> None:
    specs = unlike_specs(tiny)
    alone = Trainings(tiny, tmp_path / "alone", specs).all_alone()
    fused = together(Trainings(tiny, tmp_path / "fused", specs))
    for number in range(4):
        for column in ("train_loss", "valid_loss", "grad_norm"):
            assert furthest_losses(alone, fused, number, column) < 1e-4
        assert furthest_weights(alone, fused, number) < 1e-4
        assert fused.settings(number) == alone.settings(number)
        assert [report.step for report in fused.told[number]] == [
            report.step for report in alone.told[number]
        ]
        left = {entry.name for entry in (tmp_path / "fused" / str(number)).iterdir()}
        assert left == {"train.csv", "trained.json", "model"}
        tuned = fused.alone(number)  # Finds it finished.
        assert (tuned.fused_with, tuned.notes, tuned.adjusted) == (3, (), {})
        assert tuned.seconds_per_step is not None
        assert tuned.seconds > 0


def test_in_double_precision_nothing_but_rounding_is_left(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout: each member draws the random numbers that it would draw alone."""
    in_double_precision(monkeypatch)
    specs = unlike_specs(tiny_gpt2)
    alone = Trainings(tiny_gpt2, tmp_path / "alone", specs).all_alone()
    fused = together(Trainings(tiny_gpt2, tmp_path / "fused", specs))
    for number in range(4):
        assert alone.weights(number).popitem()[1].dtype == torch.float64
        assert furthest_losses(alone, fused, number, "train_loss") < 1e-10
        assert furthest_weights(alone, fused, number) < 1e-10


def test_where_training_is_chaotic_it_parts_as_from_a_nudge(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a high learning rate rounding grows; fusing must not add more than rounding does."""
    in_double_precision(monkeypatch)
    specs = unlike_specs(tiny_gpt2, steps=30, learning_rate=0.3, lr_scheduler="constant")[:2]
    alone = Trainings(tiny_gpt2, tmp_path / "alone", specs).all_alone()
    fused = together(Trainings(tiny_gpt2, tmp_path / "fused", specs))
    adapt = delta.adapt

    def nudged(*given: Any) -> Any:
        model = adapt(*given)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_A" in name:
                    parameter.mul_(1 + 1e-15)
        return model

    monkeypatch.setattr(delta, "adapt", nudged)
    control = Trainings(tiny_gpt2, tmp_path / "nudged", specs).all_alone()
    for number in range(2):
        ours = furthest_weights(alone, fused, number)
        theirs = furthest_weights(alone, control, number)
        assert theirs > 0
        assert abs(math.log10(max(ours, 1e-16) / theirs)) < 2.5


@pytest.mark.parametrize("rate", [1e20, 1e30])
def test_divergence_ends_one_alone(tiny: Path, tmp_path: Path, rate: float) -> None:
    specs = unlike_specs(tiny, steps=6)
    wild = replace(specs[1].training, learning_rate=rate, warmup_steps=0)
    specs[1] = replace(specs[1], training=wild)
    alone = Trainings(tiny, tmp_path / "alone", specs)
    with pytest.raises(DivergedError) as caught:
        alone.alone(1)
    fused = Trainings(tiny, tmp_path / "fused", specs)
    errors = [one.error for one in train_fused(fused.tasks)]
    assert [error is None for error in errors] == [True, False, True, True]
    assert isinstance(errors[1], DivergedError)
    assert (errors[1].step, errors[1].what) == (caught.value.step, caught.value.what)
    assert [row["step"] for row in fused.rows(1)] == [row["step"] for row in alone.rows(1)]
    assert not (tmp_path / "fused" / "1" / "model").exists()
    for number in (0, 2, 3):
        alone.alone(number)
        assert furthest_weights(alone, fused, number) < 1e-4


@pytest.mark.parametrize("asked", [1, 3, 5, 8])
def test_stopped_and_continued_together(
    tiny_gpt2: Path, tmp_path: Path, even: Trainings, asked: int
) -> None:
    trainings = Trainings(tiny_gpt2, tmp_path / "stopped", even_specs(tiny_gpt2))
    with pytest.raises(StoppedError):
        train_fused(trainings.tasks, after(asked, lambda: True))
    assert list(trainings.place.glob("*/checkpoint-*"))
    torch.rand(3)
    together(trainings)
    for number in range(3):
        assert trainings.rows(number) == even.rows(number)
        weights = even.weights(number)
        assert all(torch.equal(w, weights[n]) for n, w in trainings.weights(number).items())
        assert trainings.told[number] == even.told[number]


def test_any_grouping_continues_another(tiny_gpt2: Path, tmp_path: Path, even: Trainings) -> None:
    """Together, then one alone, then the others with one that began alone."""
    trainings = Trainings(tiny_gpt2, tmp_path / "mixed", even_specs(tiny_gpt2))
    with pytest.raises(StoppedError):
        train_fused(trainings.tasks[:2], after(4, lambda: True))
    with pytest.raises(StoppedError):
        trainings.alone(2, after(3, lambda: True))
    tuned = trainings.alone(0)
    assert (tuned.fused_with, tuned.notes) == (1, ())
    together(trainings)
    for number in range(3):
        assert furthest_losses(trainings, even, number, "train_loss") < 1e-4
        assert furthest_weights(trainings, even, number) < 1e-4


def test_stopped_before_it_begins(tiny_gpt2: Path, tmp_path: Path) -> None:
    trainings = Trainings(tiny_gpt2, tmp_path / "never", even_specs(tiny_gpt2))
    with pytest.raises(StoppedError, match="before"):
        train_fused(trainings.tasks, lambda: True)


def test_steps_that_never_end_together(tiny: Path, tmp_path: Path) -> None:
    """Stopped again and again while members are in the middle of their steps."""
    specs = unlike_specs(tiny, steps=5)
    undisturbed = together(Trainings(tiny, tmp_path / "once", specs))
    trainings = Trainings(tiny, tmp_path / "often", specs, checkpoints=EVERY_STEP)
    for asked in (2, 3, 4):
        with pytest.raises(StoppedError):
            train_fused(trainings.tasks, after(asked, lambda: True))
    together(trainings)
    for number in range(4):
        assert furthest_losses(trainings, undisturbed, number, "train_loss") < 1e-4
        assert furthest_weights(trainings, undisturbed, number) < 1e-4


def test_killed(tiny_gpt2: Path, tmp_path: Path, even: Trainings) -> None:
    trainings = Trainings(tiny_gpt2, tmp_path / "killed", even_specs(tiny_gpt2))
    program = [sys.executable, "-W", "ignore", "-m", "tests.unit.trainers.fused_tasks"]
    killed = subprocess.run(
        [*program, *map(str, (tiny_gpt2, trainings.place, 7, torch.get_num_threads()))],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert len(list(trainings.place.glob("*/checkpoint-*"))) == 3
    together(trainings)
    for number in range(3):
        assert trainings.rows(number) == even.rows(number)
        assert furthest_weights(trainings, even, number) == 0


@pytest.mark.parametrize("fitting", [1, 2])
def test_out_of_memory_halves_the_group(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, even: Trainings, fitting: int
) -> None:
    """From the third pass on; the halves go on from where the whole left checkpoints."""
    add_gradients: Callable[..., torch.Tensor] = FusedModel.add_gradients
    seen: list[int] = []

    def limited(self: Any, batches: Any, counts: Any) -> torch.Tensor:
        seen.append(len(batches))
        if len(batches) > fitting and len(seen) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return add_gradients(self, batches, counts)

    monkeypatch.setattr(FusedModel, "add_gradients", limited)
    trainings = Trainings(
        tiny_gpt2, tmp_path / "short", even_specs(tiny_gpt2), checkpoints=EVERY_STEP
    )
    together(trainings)
    assert seen[:5] == [3] * 5
    assert (2 in seen[5:]) is True
    for number in range(3):
        assert furthest_losses(trainings, even, number, "train_loss") < 1e-4
        assert furthest_weights(trainings, even, number) < 1e-4
        assert [r.step for r in trainings.told[number]] == [r.step for r in even.told[number]]


def test_what_is_finished_is_left_alone(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(tiny_gpt2, tmp_path / "done", even_specs(tiny_gpt2))
    trainings.alone(1)
    before = (tmp_path / "done" / "1" / "trained.json").read_bytes()
    together(trainings)
    assert (tmp_path / "done" / "1" / "trained.json").read_bytes() == before
    monkeypatch.setattr(fused, "load_model", pytest.fail)
    together(trainings)


def test_a_mistake_is_one_members_own(tiny_gpt2: Path, tmp_path: Path) -> None:
    specs = even_specs(tiny_gpt2)
    specs[0] = replace(specs[0], training=replace(specs[0].training, max_length=4096))
    errors = [one.error for one in train_fused(Trainings(tiny_gpt2, tmp_path / "a", specs).tasks)]
    assert isinstance(errors[0], ModelError)
    assert errors[1:] == [None, None]


def test_what_cannot_train_together_is_said(tiny_gpt2: Path, tmp_path: Path) -> None:
    specs = [
        tiny_spec(tiny_gpt2, DeltaSettings(peft_type=peft_type)) for peft_type in ("lora", "ia3")
    ]
    with pytest.raises(ValueError, match="fuse_key"):
        train_fused(Trainings(tiny_gpt2, tmp_path / "a", specs).tasks)


def test_the_base_is_left_as_it_was(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_model(tiny_gpt2)
    before = {name: p.clone() for name, p in model.named_parameters()}
    monkeypatch.setattr(fused, "load_model", lambda _: (model, tokenizer))
    together(Trainings(tiny_gpt2, tmp_path / "a", unlike_specs(tiny_gpt2, steps=2)))
    assert model.config._attn_implementation == "sdpa"
    assert not model.training
    for module in model.modules():
        assert not module._forward_hooks
        assert "forward" not in vars(module)
    after_it = dict(model.named_parameters())
    assert after_it.keys() == before.keys()
    assert all(torch.equal(p, before[name]) for name, p in after_it.items())


def test_bf16_is_computed_in_bf16(tiny_gpt2: Path, tmp_path: Path) -> None:
    specs = unlike_specs(tiny_gpt2, steps=4, precision="bf16")
    alone = Trainings(tiny_gpt2, tmp_path / "alone", specs).all_alone()
    fused = together(Trainings(tiny_gpt2, tmp_path / "fused", specs))
    exact = together(Trainings(tiny_gpt2, tmp_path / "exact", unlike_specs(tiny_gpt2, steps=4)))
    for number in range(4):
        assert furthest_losses(alone, fused, number, "train_loss") < 0.1
        assert furthest_losses(exact, fused, number, "train_loss") > 1e-4


def make_windowed(folder: Path) -> Path:
    tokenizer = make_tiny_tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 5}
    config = MistralConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **shape, **heads)
    MistralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_that_cannot_be_shared_trains_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_windowed(tmp_path / "windowed")
    assert "window" in why_not_fused(load_model(source)[0])
    monkeypatch.setattr(FusedModel, "add_gradients", pytest.fail)
    trainings = together(Trainings(source, tmp_path / "a", unlike_specs(source, steps=2)[:2]))
    assert trainings.alone(0).fused_with == 0


def test_a_model_is_tried(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no setting says shows in what it computes."""
    model = load_model(tiny)[0]
    assert why_not_fused(model) == ""
    run_rows = fused_model.run_rows
    monkeypatch.setattr(fused_model, "run_rows", lambda *given: run_rows(*given).flip(0))
    assert "differently" in why_not_fused(model)
    assert model.config._attn_implementation == "sdpa"
