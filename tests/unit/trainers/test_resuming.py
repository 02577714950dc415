"""A training that is interrupted ends with the bits of one that is not."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from search_spaces.spec import TrainingSpec
from tests.tiny import tiny_pairs
from tests.unit.trainers.interrupted import (
    METHODS,
    STEPS,
    Outcome,
    Training,
    interrupted_spec,
    outcome,
    write_spec,
)
from trainers import tune
from trainers.checkpoints import CheckpointSettings
from trainers.course import Course
from trainers.errors import DivergedError, StoppedError
from trainers.progress import EpochReport
from trainers.resumable import ResumableTrainer, SFTTrainer

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path) -> Any:
    """What an undisturbed training comes to; each is done once."""
    known: dict[str, Outcome] = {}

    def look_up(name: str = "lora", **training: Any) -> Outcome:
        key = json.dumps([name, training])
        if key not in known:
            workdir = tmp_path_factory.mktemp(name)
            spec = interrupted_spec(tiny_gpt2, name, **training)
            # Never saved while it trained: saving changes nothing either.
            tuned = Training(tiny_gpt2, workdir, spec)(checkpoints=CheckpointSettings())
            known[key] = outcome(tuned, workdir)
        return known[key]

    return look_up


@pytest.fixture
def lora(tiny_gpt2: Path, tmp_path: Path) -> Training:
    return Training(tiny_gpt2, tmp_path / "trial", interrupted_spec(tiny_gpt2))


def disturb_random_numbers() -> None:
    """A new process begins with other random states than the killed one had."""
    torch.rand(3)
    random.random()
    np.random.rand()


OFTEN = ("sft", "lora", "acts")
"""Methods that every run of the tests stops; the others' trained parts go the same ways."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in METHODS],
)
def test_stopped_at_some_steps(
    tiny_gpt2: Path, tmp_path: Path, undisturbed: Any, name: str
) -> None:
    training = Training(tiny_gpt2, tmp_path / "trial", interrupted_spec(tiny_gpt2, name))
    spread = random.Random(name)
    done = 0
    while True:
        try:
            tuned = training(training.stop_after(spread.randint(1, 3)))
            break
        except StoppedError:
            disturb_random_numbers()
            done += 1
            (folder,) = training.checkpoints()
            assert folder.startswith("checkpoint-")
    assert done >= 2
    assert tuned.notes == ()
    assert outcome(tuned, training.workdir) == undisturbed(name)
    assert [report.step for report in training.told] == [2, 4, 6]


@pytest.mark.parametrize(
    ("name", "step"), [("sft", 3), *(("lora", step) for step in range(1, STEPS + 1))]
)
def test_stopped_at_every_step(
    tiny_gpt2: Path, tmp_path: Path, undisturbed: Any, name: str, step: int
) -> None:
    training = Training(tiny_gpt2, tmp_path / "trial", interrupted_spec(tiny_gpt2, name))
    # Before each step, and before and within each epoch's validation.
    with pytest.raises(StoppedError):
        training(training.stop_after(step + (step - 1) // 2), CheckpointSettings())
    assert training.checkpoints() == [f"checkpoint-{step}"]
    assert (training.workdir / "train.csv").read_text().count("\n") == 1 + step + (step - 1) // 2
    assert outcome(training(), training.workdir) == undisturbed(name)


@pytest.mark.parametrize("epoch", [1, 3])
def test_stopped_while_validating(lora: Training, undisturbed: Any, epoch: int) -> None:
    """Again and again, before the random states are restored."""
    for asked in (3 * epoch, 1, 1):
        with pytest.raises(StoppedError, match="validation"):
            lora(lora.stop_after(asked))
        disturb_random_numbers()
        assert lora.checkpoints() == [f"checkpoint-{2 * epoch}"]
        assert len(lora.told) == epoch - 1
    assert outcome(lora(), lora.workdir) == undisturbed()
    assert [report.step for report in lora.told] == [2, 4, 6]


def test_stopped_before_it_begins(lora: Training) -> None:
    with pytest.raises(StoppedError, match="before"):
        lora(lambda: True)
    assert not lora.workdir.exists()


@pytest.mark.parametrize(("epoch", "every"), [(1, 5), (2, 1), (3, 5)])
def test_an_exception_from_outside(
    lora: Training, undisturbed: Any, epoch: int, every: int
) -> None:
    """The sweep's own signal may fail: after a checkpoint, or long after one."""

    def fail(report: EpochReport) -> None:
        if report.step == 2 * epoch:
            raise ConnectionError("the sweep is gone")

    settings = CheckpointSettings(every, "steps")
    with pytest.raises(ConnectionError):
        lora(checkpoints=settings, on_epoch=fail)
    rows = (lora.workdir / "train.csv").read_text().count("\n")
    assert rows == 1 + 3 * epoch
    disturb_random_numbers()
    assert outcome(lora(checkpoints=settings), lora.workdir) == undisturbed()
    assert [report.step for report in lora.told][-1] == STEPS


@pytest.mark.parametrize(
    ("name", "where", "count"), [("sft", "saving", 2), ("lora", "step", 4)], ids=["sft", "lora"]
)
def test_killed(
    tiny_gpt2: Path, tmp_path: Path, undisturbed: Any, name: str, where: str, count: int
) -> None:
    """SIGKILL, between steps and with a checkpoint half written."""
    training = Training(tiny_gpt2, tmp_path / "trial", interrupted_spec(tiny_gpt2, name))
    spec = write_spec(training.spec, tmp_path / "spec.json")
    killed = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "tests.unit.trainers.interrupted"),
            *map(str, (spec, tiny_gpt2, training.workdir, where, count, torch.get_num_threads())),
        ],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    left = training.checkpoints()
    assert left == ([".aside-checkpoint-3", "checkpoint-2"] if name == "sft" else ["checkpoint-2"])
    assert outcome(training(), training.workdir) == undisturbed(name)


@pytest.mark.parametrize("optimizer", get_args(get_type_hints(TrainingSpec)["optimizer"]))
def test_every_optimizer_continues(
    tiny_gpt2: Path, tmp_path: Path, undisturbed: Any, optimizer: str
) -> None:
    settings: Any = {"optimizer": optimizer, "learning_rate": 1e-3, "lr_scheduler": "cosine"}
    spec = interrupted_spec(tiny_gpt2, "sft", **settings)
    training = Training(tiny_gpt2, tmp_path / "trial", spec)
    with pytest.raises(StoppedError):
        training(training.stop_after(3))
    assert outcome(training(), training.workdir) == undisturbed("sft", **settings)


@pytest.mark.parametrize("scheduler", ["polynomial", "constant"])
def test_schedules_continue(
    tiny_gpt2: Path, tmp_path: Path, undisturbed: Any, scheduler: str
) -> None:
    settings: Any = {"lr_scheduler": scheduler, "warmup_steps": 3}
    spec = interrupted_spec(tiny_gpt2, "ia3", **settings)
    training = Training(tiny_gpt2, tmp_path / "trial", spec)
    with pytest.raises(StoppedError):
        training(training.stop_after(2))
    assert outcome(training(), training.workdir) == undisturbed("ia3", **settings)


def test_bf16_continues(tiny_gpt2: Path, tmp_path: Path, undisturbed: Any) -> None:
    """The validation of the last step too, which is all that is left to do, is in bf16."""
    spec = interrupted_spec(tiny_gpt2, "sft", precision="bf16")
    training = Training(tiny_gpt2, tmp_path / "trial", spec)
    for asked in (4, 5):
        with pytest.raises(StoppedError):
            training(training.stop_after(asked))
    assert training.checkpoints() == [f"checkpoint-{STEPS}"]
    assert outcome(training(), training.workdir) == undisturbed("sft", precision="bf16")


def test_losses_that_are_means_over_steps(
    lora: Training, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that spans the interruption counts the steps before it too."""
    monkeypatch.setattr("trainers.supervised._LOGGED_POINTS", 2)
    with pytest.raises(StoppedError):
        lora(lora.stop_after(2))
    assert lora.checkpoints() == ["checkpoint-2"]
    tuned = lora()
    losses = [row["train_loss"] for row in outcome(tuned, lora.workdir).rows if row["train_loss"]]
    each = [float(r["train_loss"]) for r in undisturbed().rows if r["train_loss"]]
    assert [float(loss) for loss in losses] == pytest.approx([sum(each[:3]) / 3, sum(each[3:]) / 3])


@pytest.mark.parametrize("most", [3, 4, 5])
def test_training_that_ends_within_an_epoch(
    tiny_gpt2: Path, tmp_path: Path, undisturbed: Any, most: int
) -> None:
    """The Trainer by itself would take one more step."""
    spec = interrupted_spec(tiny_gpt2, max_steps=most)
    training = Training(tiny_gpt2, tmp_path / "trial", spec)
    done = 0
    while True:
        try:
            tuned = training(training.stop_after(2))
            break
        except StoppedError:
            done += 1
    assert done >= 2
    assert outcome(tuned, training.workdir) == undisturbed(max_steps=most)


def test_checkpoints_hold_only_what_is_trained(lora: Training, tiny_gpt2: Path) -> None:
    with pytest.raises(StoppedError):
        lora(lora.stop_after(2))
    size = sum(file.stat().st_size for file in (lora.workdir / "checkpoint-2").iterdir())
    assert size < (tiny_gpt2 / "model.safetensors").stat().st_size / 2


def test_seconds_add_up(lora: Training) -> None:
    with pytest.raises(StoppedError):
        lora(lora.stop_after(2))
    state = json.loads((lora.workdir / "checkpoint-2" / "state.json").read_bytes())
    before = state["course"]["seconds"]
    assert before > 0
    assert state["course"]["timed_steps"] == 1
    tuned = lora()
    assert tuned.seconds > before
    assert tuned.seconds_per_step is not None
    assert 0 < tuned.seconds_per_step * STEPS < tuned.seconds * 2


def test_a_loss_that_is_no_number_ends_training_at_once(
    lora: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the forward pass, not at the next logged step; a rerun comes to the same."""
    monkeypatch.setattr("trainers.supervised._LOGGED_POINTS", 1)
    step = SFTTrainer.training_step

    def diverging(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = step(self, *args, **kwargs)
        if self.state.global_step == 3:
            return loss * torch.nan
        return loss

    monkeypatch.setattr(SFTTrainer, "training_step", diverging)
    for _ in range(2):
        with pytest.raises(DivergedError, match="training loss") as caught:
            lora()
        assert caught.value.step == 4
        assert (lora.workdir / "train.csv").read_text().count("\n") == 2, "heading, first epoch"


def test_a_gradient_that_is_no_number_ends_training(lora: Training) -> None:
    log = ResumableTrainer.log

    def diverging(self: Any, logs: dict[str, float], *rest: Any) -> None:
        log(self, {**logs, "grad_norm": float("inf")}, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResumableTrainer, "log", diverging)
        with pytest.raises(DivergedError, match="gradient norm must stay finite, but got inf"):
            lora()


def test_a_trainer_without_the_hooks_is_not_trusted(
    lora: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoppedError):
        lora(lora.stop_after(2))
    monkeypatch.setattr(ResumableTrainer, "_load_rng_state", lambda *_: None)
    with pytest.raises(RuntimeError, match="restores no random"):
        lora()


@pytest.mark.parametrize("error", ["OSError", "SafetensorError"])
def test_a_full_disk_keeps_the_last_checkpoint(
    lora: Training, undisturbed: Any, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    import safetensors.torch

    save, saved = safetensors.torch.save_file, []

    def save_until_full(tensors: Any, file: Path) -> None:
        if len(saved) == 3:
            file.write_bytes(b"half")
            if error == "OSError":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        saved.append(file)
        save(tensors, file)

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", save_until_full)
        with pytest.raises(OSError, match="No space left") as caught:
            lora()
    assert caught.value.errno == errno.ENOSPC
    assert lora.checkpoints() == ["checkpoint-3"]
    assert outcome(lora(), lora.workdir) == undisturbed()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """800 KiB: room for one checkpoint of the tiny model, not for two."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ("-t", "tmpfs", "-o", "size=800k", "tmpfs", str(place))
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full(tiny_gpt2: Path, small_disk: Path, undisturbed: Any) -> None:
    spec = interrupted_spec(tiny_gpt2, "sft")
    training = Training(tiny_gpt2, small_disk / "trial", spec)
    with pytest.raises(OSError, match="No space left") as caught:
        training()
    assert caught.value.errno == errno.ENOSPC
    assert training.checkpoints() == ["checkpoint-1"]
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert outcome(training(), training.workdir) == undisturbed("sft")


def test_other_pairs_are_another_training(lora: Training) -> None:
    with pytest.raises(StoppedError):
        lora(lora.stop_after(2))
    lora.pairs = tiny_pairs(train=8)
    (note,) = lora().notes
    assert note.startswith("checkpoint-2 was passed over: it belongs to other settings")
    lora.pairs = tiny_pairs(train=7)
    (note,) = lora().notes
    assert note.startswith("trained.json was passed over: it belongs to other settings")


def test_a_model_that_was_changed_is_trained_again(
    lora: Training, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora()
    weights = lora.workdir / "model" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    tuned = lora()
    assert tuned.notes == (
        "trained.json was passed over: in model/, adapter_model.safetensors is not as it was written",
    )
    assert outcome(tuned, lora.workdir) == undisturbed()
    monkeypatch.setattr(tune, "train_supervised", lambda *_: pytest.fail("trained again"))
    assert lora().notes == ()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: "[" * 100_000, "cannot be read"),
        (lambda text: "[]", "must hold a JSON object"),
        (lambda text: text.replace('"valid_loss": 7', '"valid_loss": 1'), "not as it was written"),
    ],
    ids=["truncated", "nested", "list", "another number"],
)
def test_a_word_of_completion_that_is_not_whole(
    lora: Training, undisturbed: Any, change: Any, why: str
) -> None:
    lora()
    file = lora.workdir / "trained.json"
    text = file.read_text()
    assert change(text) != text
    file.write_text(change(text))
    tuned = lora()
    (note,) = tuned.notes
    assert note.startswith("trained.json was passed over")
    assert why in note
    assert outcome(tuned, lora.workdir) == undisturbed()


def test_killed_before_the_word_of_completion(lora: Training, undisturbed: Any) -> None:
    """The model is there, whole or not, and nothing says so: it is trained again."""
    lora()
    (lora.workdir / "trained.json").unlink()
    (lora.workdir / "model" / "adapter_model.safetensors").write_bytes(b"half")
    tuned = lora()
    assert tuned.notes == ()
    assert outcome(tuned, lora.workdir) == undisturbed()


@pytest.mark.parametrize("name", ["lora", "prefix", "sft", "houlsby", "bitfit", "acts-lora"])
def test_a_model_that_is_taken_up_again_decodes_as_the_one_in_memory(
    tiny_gpt2: Path, tmp_path: Path, name: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_gpt2, source)
    own = json.loads((source / "generation_config.json").read_text())
    own |= {"repetition_penalty": 1.7, "eos_token_id": [0, 5]}
    (source / "generation_config.json").write_text(json.dumps(own))
    training = Training(source, tmp_path / "trial", interrupted_spec(source, name))
    first, again = training(), training()
    assert first.model.generation_config.to_dict() == again.model.generation_config.to_dict()
    assert again.model.generation_config.repetition_penalty in (None, 1.0)


def test_a_gradient_norm_without_a_number_can_be_kept(tmp_path: Path) -> None:
    course = Course()
    course.add_loss(1, 2.0)
    course.log(1, 0.5, 1e-3, math.inf)
    assert course.rows[-1].grad_norm is None
    assert course.rows[-1].train_loss == 2.0
