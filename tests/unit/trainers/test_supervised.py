from __future__ import annotations

import csv
import math
import pickle
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora.dialogue import PairSplits
from search_spaces.spec import (
    DeltaSettings,
    PeftType,
    Precision,
    SftSettings,
    TrainingSpec,
    TrialSpec,
)
from tests.tiny import tiny_pairs, tiny_spec
from trainers.encoding import IGNORED_LABEL, EncodedPair
from trainers.errors import DivergedError, ModelError
from trainers.examples import encode_splits
from trainers.loading import load_model
from trainers.progress import EpochReport
from trainers.select import train
from trainers.supervised import optimizer_steps, train_supervised

FIELDS = get_type_hints(TrainingSpec)


class Run:
    """One training of the tiny GPT-2 without dropout, and everything that it said."""

    def __init__(
        self, source: Path, workdir: Path, spec: TrialSpec, pairs: PairSplits | None = None
    ) -> None:
        workdir.mkdir(parents=True, exist_ok=True)
        self.model: Any
        self.model, self.tokenizer = load_model(source)
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        self.train, self.valid, _ = encode_splits(self.tokenizer, pairs or tiny_pairs(), spec)
        self.before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.told: list[EpochReport] = []
        course = train_supervised(
            self.model, self.tokenizer, spec, self.train, self.valid, workdir, self.told.append
        )
        assert course.train_loss is not None
        assert course.valid_loss is not None
        self.losses = (course.train_loss, course.valid_loss)
        with (workdir / "train.csv").open(newline="") as stream:
            self.rows = list(csv.DictReader(stream))
        self.steps = [row for row in self.rows if row["train_loss"]]

    @property
    def after(self) -> dict[str, torch.Tensor]:
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def moved(self) -> bool:
        return any(not torch.equal(p, self.before[name]) for name, p in self.after.items())


def loss_by_hand(model: Any, examples: list[EncodedPair]) -> torch.Tensor:
    """Mean over the counted tokens of all examples, each read alone."""
    total, tokens = torch.zeros(()), 0
    for example in examples:
        logits_tv = model(input_ids=torch.tensor([example.input_ids])).logits[0]
        labels_t = torch.tensor(example.labels[1:])
        counted = labels_t != IGNORED_LABEL
        total = total - logits_tv[:-1].log_softmax(-1)[counted, labels_t[counted]].sum()
        tokens += int(counted.sum())
    return total / tokens


@pytest.mark.parametrize("loss_on", ["reply", "all"])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 1), (2, 2), (1, 4)])
def test_a_step_follows_the_gradient_of_the_counted_tokens(
    tiny_gpt2: Path, tmp_path: Path, loss_on: Any, batch_size: int, accumulation: int
) -> None:
    """One plain gradient step by hand is one step of the trainer, however the batch is cut."""
    spec = tiny_spec(
        optimizer="sgd",
        lr_scheduler="constant",
        max_grad_norm=0.0,
        learning_rate=0.05,
        loss_on=loss_on,
        max_steps=1,
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
    )
    run = Run(tiny_gpt2, tmp_path, spec, tiny_pairs(train=4))
    on_prompt = any(e.labels[1] != IGNORED_LABEL for e in run.train)
    assert on_prompt is (loss_on == "all")
    model: Any = load_model(tiny_gpt2)[0]
    model.eval()  # no dropout
    loss = loss_by_hand(model, run.train)
    loss.backward()
    assert run.losses[0] == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        stepped = parameter.detach() - 0.05 * parameter.grad
        torch.testing.assert_close(run.after[name], stepped, rtol=1e-4, atol=1e-5)


def test_accumulating_is_a_larger_batch(tiny_gpt2: Path, tmp_path: Path) -> None:
    """TRL divides by the counted tokens of the whole optimiser step, not of each forward pass.

    So pairs of unlike lengths weigh the same however a step is cut, over a whole trajectory. By
    plain gradient steps, because Adam blows up rounding where a gradient is zero (GPT-2's key bias).
    """
    pairs = tiny_pairs(train=12)
    runs = [
        Run(
            tiny_gpt2,
            tmp_path / str(batch),
            tiny_spec(
                batch_size=batch,
                gradient_accumulation_steps=accumulation,
                optimizer="sgd",
                learning_rate=0.02,
                max_steps=None,
                epochs=2,
            ),
            pairs,
        )
        for batch, accumulation in ((4, 1), (2, 2), (1, 4))
    ]
    for run in runs[1:]:
        assert len(run.steps) == len(runs[0].steps) == 6
        for name, weights in run.after.items():
            torch.testing.assert_close(weights, runs[0].after[name], rtol=0, atol=1e-5)
        for mine, first in zip(run.rows, runs[0].rows, strict=True):
            for field in ("train_loss", "valid_loss"):
                assert (mine[field] == "") is (first[field] == "")
                if mine[field]:
                    assert float(mine[field]) == pytest.approx(float(first[field]), abs=1e-4)


def test_clipping_bounds_the_step(tiny_gpt2: Path, tmp_path: Path) -> None:
    def moved_by(norm: float) -> float:
        spec = tiny_spec(
            optimizer="sgd",
            lr_scheduler="constant",
            learning_rate=1.0,
            max_steps=1,
            max_grad_norm=norm,
        )
        run = Run(tiny_gpt2, tmp_path / str(norm), spec)
        return math.sqrt(sum(float((p - run.before[n]).pow(2).sum()) for n, p in run.after.items()))

    assert moved_by(0.5) == pytest.approx(0.5, rel=1e-3)
    assert moved_by(0.0) > 1


@pytest.mark.parametrize("optimizer", get_args(FIELDS["optimizer"]))
def test_every_optimizer_trains(tiny_gpt2: Path, tmp_path: Path, optimizer: Any) -> None:
    run = Run(tiny_gpt2, tmp_path, tiny_spec(optimizer=optimizer, learning_rate=1e-3))
    assert run.moved()
    assert len(run.steps) == 2
    assert all(math.isfinite(loss) for loss in run.losses)


@pytest.mark.parametrize("scheduler", get_args(FIELDS["lr_scheduler"]))
def test_every_scheduler_trains(tiny_gpt2: Path, tmp_path: Path, scheduler: Any) -> None:
    spec = tiny_spec(lr_scheduler=scheduler, warmup_steps=1, max_steps=3)
    run = Run(tiny_gpt2, tmp_path, spec)
    assert run.moved()
    rates = [float(row["learning_rate"]) for row in run.steps]
    # All but `constant`, which knows no warm-up, begin at zero and reach their peak.
    assert rates[:2] == pytest.approx([1e-2 if scheduler == "constant" else 0.0, 1e-2])


def test_training_ends_after_max_steps(tiny_gpt2: Path, tmp_path: Path) -> None:
    run = Run(tiny_gpt2, tmp_path, tiny_spec(max_steps=2, epochs=5))
    assert [int(row["step"]) for row in run.steps] == [1, 2]
    (report,) = run.told
    assert (report.step, report.total_steps) == (2, 2)
    assert report.valid_loss == run.losses[1]
    assert report.train_loss == run.losses[0]


def test_training_ends_with_the_epochs(tiny_gpt2: Path, tmp_path: Path) -> None:
    """A limit beyond the epochs' steps is none: the Trainer alone would go on until it."""
    run = Run(tiny_gpt2, tmp_path, tiny_spec(max_steps=9, epochs=2), tiny_pairs(train=4))
    assert [report.step for report in run.told] == [2, 4]
    assert [report.total_steps for report in run.told] == [4, 4]
    assert float(run.steps[-1]["learning_rate"]) == pytest.approx(1e-2 / 4)


@settings(deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 3),
    st.one_of(st.none(), st.integers(1, 9)),
)
def test_steps_are_counted_as_the_trainer_does(
    examples: int, batch: int, accumulation: int, epochs: int, most: int | None
) -> None:
    spec = tiny_spec(
        batch_size=batch, gradient_accumulation_steps=accumulation, epochs=epochs, max_steps=most
    )
    batches = -(-examples // batch)
    steps = -(-batches // accumulation) * epochs
    assert optimizer_steps(spec, examples) == min(steps, most or steps)


def test_every_epoch_is_told(tiny_gpt2: Path, tmp_path: Path) -> None:
    spec = tiny_spec(max_steps=None, epochs=3, batch_size=2, gradient_accumulation_steps=2)
    run = Run(tiny_gpt2, tmp_path, spec, tiny_pairs(train=7))
    steps = optimizer_steps(spec, 7)
    assert steps == 6
    assert [report.step for report in run.told] == [2, 4, 6]
    assert {report.total_steps for report in run.told} == {steps}
    assert [report.epoch for report in run.told] == pytest.approx([1, 2, 3])
    assert [float(r["valid_loss"]) for r in run.rows if r["valid_loss"]] == [
        report.valid_loss for report in run.told
    ]
    assert run.told[-1].valid_loss < run.told[0].valid_loss


def test_long_training_is_logged_in_about_two_hundred_points(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.supervised._LOGGED_POINTS", 3)
    run = Run(tiny_gpt2, tmp_path, tiny_spec(max_steps=8, epochs=9))
    assert [int(row["step"]) for row in run.steps] == [2, 4, 6, 8]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_trial(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    model: Any
    model, tokenizer = load_model(tiny_gpt2)
    forward_at_first = model.forward
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(bad)
    spec = tiny_spec()
    examples = encode_splits(tokenizer, tiny_pairs(), spec)
    with pytest.raises(DivergedError) as caught:
        train_supervised(model, tokenizer, spec, *examples[:2], tmp_path, pytest.fail)
    assert caught.value.step == 1
    assert not math.isfinite(caught.value.loss)
    assert "learning_rate" in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.step, str(again)) == (1, str(caught.value))
    assert (tmp_path / "train.csv").is_file(), "the curve up to there is kept"
    assert model.forward == forward_at_first


def test_divergence_after_the_last_log_is_seen(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.resumable.mean_token_loss", lambda *_: math.inf)
    with pytest.raises(DivergedError, match="step 2"):
        Run(tiny_gpt2, tmp_path, tiny_spec())
    assert (tmp_path / "train.csv").read_text().count("\n") == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 is for GPUs")
def test_fp16_needs_a_gpu(tiny_gpt2: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="fp16 needs a GPU"):
        Run(tiny_gpt2, tmp_path, tiny_spec(precision="fp16"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_model_is_left_as_it_was_loaded(
    tiny_gpt2: Path, tmp_path: Path, precision: Precision
) -> None:
    """Master weights in fp32, no autocast and no fused head over `forward`, caching as it was."""
    run = Run(tiny_gpt2, tmp_path, tiny_spec(precision=precision))
    assert run.moved()
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}
    assert not run.model.training
    assert "forward" not in vars(run.model)
    assert run.model.config.use_cache is True
    assert run.losses[0] == pytest.approx(
        loss_by_hand(load_model(tiny_gpt2)[0].eval(), run.train).item(), abs=1
    )


def test_bf16_computes_in_bf16(tiny_gpt2: Path, tmp_path: Path) -> None:
    exact, coarse = (
        Run(tiny_gpt2, tmp_path / precision, tiny_spec(precision=precision)).losses[0]
        for precision in get_args(Precision)[:2]
    )
    assert coarse != exact
    assert coarse == pytest.approx(exact, rel=1e-2)


@pytest.mark.parametrize("peft_type", [None, *sorted({*get_args(PeftType)} - {"prefix"})])
def test_checkpointing_changes_nothing_but_memory(
    tiny_gpt2: Path, tmp_path: Path, peft_type: PeftType | None
) -> None:
    method = DeltaSettings(peft_type=peft_type) if peft_type else SftSettings()
    tuned = []
    for checkpointing in (False, True):
        workdir = tmp_path / str(checkpointing)
        workdir.mkdir()
        spec = tiny_spec(tiny_gpt2, method, gradient_checkpointing=checkpointing)
        tuned.append(train(spec, tiny_gpt2, tiny_pairs(), workdir, lambda _: None))
    for plain, checkpointed in zip(
        tuned[0].model.parameters(), tuned[1].model.parameters(), strict=True
    ):
        torch.testing.assert_close(plain, checkpointed)
    assert tuned[0].train_loss == pytest.approx(tuned[1].train_loss)


def test_a_seed_makes_a_model(tiny_gpt2: Path, tmp_path: Path) -> None:
    """Equal seeds give equal bits, with dropout, shuffling and a fresh adapter; others differ."""
    for method in (SftSettings(), DeltaSettings(peft_type="lora", dropout=0.1)):
        weights = []
        for number, seed in enumerate((0, 0, 1)):
            torch.rand(number)  # What ran before in this process does not count.
            workdir = tmp_path / f"{method.kind}{number}"
            workdir.mkdir()
            spec = tiny_spec(tiny_gpt2, method, seed=seed)
            train(spec, tiny_gpt2, tiny_pairs(), workdir, lambda _: None)
            (file,) = (workdir / "model").glob("*.safetensors")
            weights.append(file.read_bytes())
        assert weights[0] == weights[1]
        assert weights[0] != weights[2]
